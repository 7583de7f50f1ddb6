"""Rules on made-up signals whose order is known by hand."""

import dataclasses

import numpy as np
import pytest

from cr_jax.studies.unknown.scores import Signals, available, join

COUNT = 200


def known(seed=0, extras=True):
    """Two experts; at home 1.0 +- 0.1 nats/token, at the other's 3.0 +- 0.1; reference 2.0."""
    rng = np.random.default_rng(seed)
    found = []
    for home in range(2):
        mean = np.array([[1.0], [3.0]])[[home, 1 - home]]
        residual = mean + rng.normal(0, 0.1, (2, COUNT))
        one = lambda: 2 + rng.normal(0, 0.1, COUNT)
        found.append(
            Signals(residual, *((one(), one(), rng.normal(0, 1, (COUNT, 2))) if extras else ()))
        )
    return found


def one(first, second, compressed=2.0, generalist=2.0, repetition=(0.0, 0.0)):
    return Signals(
        np.array([[first], [second]]),
        np.array([compressed]),
        np.array([generalist]),
        np.array([repetition]),
    )


USUAL = one(1.0, 3.0)


def fitted(name):
    own = known()
    return available(own[0])[name](own)


@pytest.mark.parametrize(
    "name",
    [
        "p",
        "novelty_score",
        "two_sided",
        "p_two_sided",
        "worst",
        "joint",
        "fingerprint",
        "fingerprint_complexity",
        "neighbours",
        "largest",
        "novelty_score_repetition",
    ],
)
def test_what_all_rebuild_badly_is_stranger_than_own_text(name):
    score = fitted(name)
    assert score(one(2.5, 3.0))[0] > score(USUAL)[0]


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        ("p", False),
        ("novelty_score", False),
        ("two_sided", True),
        ("p_two_sided", True),
        ("worst", True),
        ("joint", True),
        ("fingerprint", True),
        ("neighbours", True),
    ],
)
def test_only_some_rules_see_that_an_input_is_too_easy(name, sees):
    """0.2 where 1.0 is usual: a p-value of one side finds nothing strange."""
    score = fitted(name)
    assert (score(one(0.2, 3.0))[0] > score(USUAL)[0]) == sees


def test_the_reference_corrects_for_text_that_is_easy_for_everyone():
    easy = one(1.0, 3.0, compressed=0.3, generalist=0.3)  # as usual for expert 0, easy in itself
    for name, sees in (
        ("generalist", True),
        ("complexity", True),
        ("joint", True),
        ("worst", True),
        ("fingerprint_complexity", True),
        ("p", False),
        ("novelty_score", False),
    ):
        score = fitted(name)
        assert (score(easy)[0] > score(USUAL)[0]) == sees, name


def test_margin_is_minus_the_gap_of_the_two_best():
    np.testing.assert_allclose(fitted("margin")(one(1.0, 1.25)), [-0.25])


def test_p_is_that_of_the_winner():
    values = np.arange(1, 100) / 100  # 99 residuals: 0.01 ... 0.99
    own = [Signals(np.stack([values, values + 5])), Signals(np.stack([values + 5, values]))]
    rules = available(own[0])
    window = Signals(np.array([[0.90], [0.95]]))  # 10 of 99 are as large or larger than 0.90
    np.testing.assert_allclose(rules["p"](own)(window), [1 - 11 / 100])
    np.testing.assert_allclose(rules["p_two_sided"](own)(window), [1 - 22 / 100])


def test_rules_depend_on_the_signals_at_hand():
    bare = available(known(extras=False)[0])
    assert not {"generalist", "complexity", "fingerprint_complexity"} & set(bare)
    assert {"generalist", "complexity", "fingerprint_complexity"} < set(available(known()[0]))
    alone = available(Signals(np.ones((1, 3))))
    assert "margin" not in alone and "p" in alone


def test_the_order_of_experts_changes_nothing():
    own = known()
    turn = lambda s: dataclasses.replace(s, residual=s.residual[::-1])
    turned = [turn(s) for s in own[::-1]]
    windows = join(known(1))
    for name, rule in available(own[0]).items():
        np.testing.assert_allclose(
            rule(own)(windows), rule(turned)(turn(windows)), atol=1e-8, err_msg=name
        )


def test_a_window_is_scored_alike_in_any_company():
    own, windows = known(), join(known(1))
    for name, rule in available(own[0]).items():
        score = rule(own)
        np.testing.assert_allclose(
            score(windows)[7:9], score(windows.take(slice(7, 9))), atol=1e-8, err_msg=name
        )


def test_text_that_repeats_like_no_known_text_is_strange_though_it_is_cheap():
    score, plain = fitted("novelty_score_repetition"), fitted("novelty_score")
    often = one(1.0, 3.0, repetition=(-9.0, 9.0))
    assert plain(often)[0] == plain(USUAL)[0]
    assert score(often)[0] > 1 > score(USUAL)[0]
    # what is strange without repeating stays as strange
    assert score(one(2.5, 3.0))[0] > 1
