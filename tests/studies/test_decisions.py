"""Decisions from token scores: what each statistic is, and a world where the sum is wrong."""

import json

import numpy as np
import pytest

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies import decisions

NAMES = ("a", "b", "c")


def world(seed, outliers, count=80, tokens=50):
    """The own expert is ahead by 0.5 nats at each token; on `outliers` tokens of each window it
    fails by 12 nats."""
    rng, made = np.random.default_rng(seed), {}
    mask = np.ones((count, tokens), bool)
    for home, name in enumerate(NAMES):
        nats = rng.normal(3.0, 0.2, (3, count, tokens))
        nats[home] -= 0.5
        failed = rng.random((count, tokens)).argsort(-1) < rng.integers(0, outliers + 1, (count, 1))
        nats[home] += 12 * failed
        made[name] = decisions.summaries(nats, mask)
    return made


def test_a_clipped_gap_survives_tokens_that_the_sum_does_not():
    found = decisions.run(NAMES, world(0, 4), world(1, 4))
    assert found["plain"]["test"] < 0.6
    assert found["statistics"]["gap_1"]["test"] > 0.98
    chosen = found["statistics"][found["chosen"]]
    assert chosen["test"] > 0.98 and chosen["valid"] == max(
        of["valid"] for of in found["statistics"].values()
    )
    assert json.loads(json.dumps(found)) == found


def test_without_such_tokens_nothing_beats_the_sum():
    """A negative control."""
    found = decisions.run(NAMES, world(0, 0), world(1, 0))
    assert found["plain"]["test"] == 1.0 and found["chosen"] == decisions.SUM
    assert found["statistics"]["sum"]["offset_share"] == 0.0
    assert found["statistics"]["sum"]["typicality_weight"] == 0.0 and not found["confusion"]


def test_labels_without_meaning_stay_at_chance():
    same = {n: world(3, 0)["a"] for n in NAMES}
    found = decisions.run(NAMES, same, {n: world(4, 0)["a"] for n in NAMES})
    assert all(of["test"] <= 0.4 for of in found["statistics"].values())
    assert found["confusion"]["b"] == {"a": 80}


def test_offsets_help_an_expert_that_loses_its_own_text():
    def with_loser(made):
        for of in made.values():
            for name in decisions.STATISTICS:
                of[name][2] += 0.6
        return made

    found = decisions.run(NAMES, with_loser(world(0, 0)), with_loser(world(1, 0)))
    of = found["statistics"]["sum"]
    assert found["plain"]["test"] < 0.7 < 0.95 < of["test"]
    assert of["offset_share"] > 0 or of["typicality_weight"] > 0


def test_statistics_are_what_they_say_and_padding_is_not_read():
    nats = np.array([[[1.0, 9.0, 4.0, np.nan]], [[2.0, 1.0, 1.0, np.inf]]])
    mask = np.array([[True, True, True, False]])
    found = decisions.summaries(nats, mask)
    assert found["sum"][:, 0] == pytest.approx([14 / 3, 4 / 3])
    assert found["gap_2"][:, 0] == pytest.approx([4 / 3, 1 / 3])
    assert found["gap_6"][:, 0] == pytest.approx([3, 1 / 3])
    assert found["tempered_0.5"][:, 0] == pytest.approx([2, (2 + 2**0.5) / 3])
    long = np.tile(np.arange(1, 11, dtype=float), (2, 1, 1))
    assert decisions.summaries(long, np.ones((1, 10), bool))["trimmed_0.1"][0, 0] == 5.0


def test_blocks_are_joined_in_order():
    count = decisions.BLOCK + 9
    drawn = np.random.default_rng(0).random((2, count, 6)).astype(np.float32)
    mask = np.ones((count, 6), bool)
    windows = Windows(np.zeros((count, 6), np.int32), mask, np.arange(count))
    found = decisions.measure(lambda block: drawn[:, block.document], windows)
    for name, wanted in decisions.summaries(drawn, mask).items():
        np.testing.assert_array_equal(found[name], wanted)


def test_windows_of_every_domain_are_needed():
    made = world(0, 0, count=4)
    with pytest.raises(UserError, match="two domains or more"):
        decisions.run(NAMES, made, {"a": made["a"]})
