"""Which experts are candidates, and the least margin that makes the exact winners such."""

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.routing import candidates
from cr_jax.routing.candidates import agreement, are_candidates, fit, measure, needed_margins

NAMES = ("a", "b", "c", "d")


def test_windows_without_a_winner_do_not_count_as_agreement():
    bigrams = np.array([[0.0, 1, 0], [1, 0, 1]])
    exact = np.array([[0.0, 0, np.nan], [1, 1, np.nan]])
    assert agreement(bigrams, exact).tolist() == [0.5, 1]
    with pytest.raises(UserError, match="scores no token"):
        agreement(bigrams[:, 2:], exact[:, 2:])


def test_agreement_by_hand():
    exact = np.array([[1.0, 5, 5, 5], [2, 1, 9, 9], [3, 2, 1, 1]])  # winners 0, 1, 2, 2
    bigrams = np.array([[1.0, 1, 1, 1], [2, 3, 2, 2], [3, 2, 1.5, 3]])  # ranks 0, 2, 1, 2
    np.testing.assert_allclose(agreement(bigrams, exact), [1 / 4, 2 / 4, 1])
    np.testing.assert_allclose(agreement(exact, exact), [1, 1, 1])


def test_the_nearest_and_all_within_the_margin_are_kept():
    residuals = np.array([[1.0, 2, 3], [1.5, 2, np.nan], [3.0, 2, 1], [2.0, 2, np.inf]])
    of = lambda few, margin: are_candidates(residuals, few, margin).astype(int).T.tolist()
    assert of(1, 0.0) == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]  # of equal ones the first
    assert of(1, 0.4) == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]]
    assert of(1, 1.0) == [[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]]
    assert of(3, 0.0)[0] == [1, 1, 0, 1]
    assert of(3, 99.0) == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]  # no residual: never near
    assert are_candidates(np.full((3, 1), np.nan), 2, 9.0).sum() == 2


def test_a_larger_margin_or_least_number_never_keeps_fewer():
    residuals = np.random.default_rng(0).normal(5, 1, (7, 200))
    for few in range(1, 8):
        found = needed_margins(residuals, few)
        assert ((found == 0).sum(0) == few).all()
        assert (found >= needed_margins(residuals, min(7, few + 1))).all()
        # Two ways: each expert is kept from its own gap on, and not before it.
        for e in range(7):
            for i in range(0, 200, 40):
                at = found[e, i]
                assert are_candidates(residuals[:, [i]], few, at)[e, 0]
                less = np.nextafter(at, 0)
                assert at == 0 or not are_candidates(residuals[:, [i]], few, less)[e, 0]


def world(seed, dear=0.0, noise=0.15, n=120):
    """Residuals of experts and of their noisier bigram models; that of d costs `dear` more."""
    rng = np.random.default_rng(seed)
    exact, bigrams = {}, {}
    for e, name in enumerate(NAMES):
        level = 4.0 + rng.gamma(2, 0.3, (4, n))
        level[e] = 3.8 + 0.1 * rng.standard_normal(n)
        exact[name] = level
        bigrams[name] = level + 1 + noise * rng.standard_normal(level.shape)
        bigrams[name][3] += dear
    return bigrams, exact


def test_the_margin_is_the_least_that_will_do():
    bigrams, exact = world(0, noise=0.4)
    found = fit(bigrams, exact, NAMES, 1, 0.95)
    assert found.candidate_margin > 0 and found.windows == 480 and found.offsets is None
    assert measure(bigrams, exact, NAMES, 1, found.candidate_margin) == (
        found.agreement,
        found.mean_candidates,
    )
    less = np.nextafter(found.candidate_margin, 0)
    assert measure(bigrams, exact, NAMES, 1, less)[0] < 0.95 <= found.agreement
    sure = fit(bigrams, exact, NAMES, 1, 1.0)
    assert sure.agreement == 1 and sure.candidate_margin > found.candidate_margin
    assert sure.mean_candidates > found.mean_candidates
    assert fit(bigrams, exact, NAMES, 1, 0.0).candidate_margin == 0
    assert fit(bigrams, exact, NAMES, 4, 1.0).mean_candidates == 4
    # What the whole rule says at margin 0 is what `agreement` says of k.
    fixed = np.mean([agreement(bigrams[n], exact[n]) for n in NAMES], 0)
    assert [measure(bigrams, exact, NAMES, k)[0] for k in (1, 2, 3, 4)] == pytest.approx(fixed)


def test_offsets_rescue_a_dear_bigram_model_and_are_left_out_where_they_do_not_help():
    bigrams, exact = world(0, dear=1.5)
    new = world(1, dear=1.5)
    found = fit(bigrams, exact, NAMES, 1, 0.98)
    assert found.offsets["d"] == pytest.approx(1.2, abs=0.4)
    assert max(found.offsets[n] for n in "abc") < 0.1
    with_offsets = measure(*new, NAMES, 1, found.candidate_margin, found.offsets)
    assert with_offsets[0] > 0.96  # of windows that nothing was chosen on
    assert measure(*new, NAMES, 1, found.candidate_margin)[0] < with_offsets[0] - 0.1
    without = fit(*world(0), NAMES, 1, 0.98)
    assert without.offsets is None and without.candidate_margin < found.candidate_margin


def test_offsets_are_judged_on_windows_that_they_were_not_fitted_on():
    """d's bigram model is dear in every other window: offsets of one half harm in the other."""
    bigrams, exact = world(0)
    for r in bigrams.values():
        r[3, ::2] += 1.5
    found = fit(bigrams, exact, NAMES, 1, 0.98)
    # On windows that they were fitted on, these offsets would do with less.
    assert measure(bigrams, exact, NAMES, 1, found.candidate_margin - 0.3, found.offsets)[0] > 0.98
    everywhere = fit(*world(0, dear=1.5), NAMES, 1, 0.98)
    assert everywhere.candidate_margin < found.candidate_margin - 0.5
    assert everywhere.mean_candidates < found.mean_candidates - 1


@pytest.mark.parametrize(
    "experts, windows, at_least", [(9, 10, 0.9), (11, 20, 0.95), (20, 10, 0.9)]
)
def test_an_agreement_that_is_just_reached_is_reached(experts, windows, at_least):
    """Bigram models lose just as many windows as may be lost: no rounding may cost a margin."""
    names, lost = tuple(map(str, range(experts))), round(windows * (1 - at_least))
    exact = {
        n: np.where(np.arange(experts)[:, None] == e, 1.0, 5.0) * np.ones(windows)
        for e, n in enumerate(names)
    }
    bigrams = {n: r.copy() for n, r in exact.items()}
    for e, n in enumerate(names):
        bigrams[n][e, :lost] = 9.0
    found = fit(bigrams, exact, names, 1, at_least)
    assert found.candidate_margin == 0 and found.agreement >= at_least


def test_bigram_models_without_a_finite_residual_cannot_be_chosen_by():
    bigrams, exact = world(0)
    broken = {n: np.where(np.arange(4)[:, None] == 2, np.nan, r) for n, r in bigrams.items()}
    with pytest.raises(UserError, match="no finite residual"):
        fit(broken, exact, NAMES, 1, 0.9)
    assert fit(broken, exact, NAMES, 1, 0.7).agreement >= 0.7
    unscored = {n: np.where(np.arange(r.shape[1]) < 119, np.nan, r) for n, r in exact.items()}
    with pytest.raises(UserError, match="single validation window"):
        fit(bigrams, unscored, NAMES, 1, 0.9)
    assert candidates.column(None, NAMES).shape == (4, 1)
