"""Numbers of a window against plain loops over its tokens."""

import dataclasses

import numpy as np
import pytest

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.unknown import token_statistics
from cr_jax.studies.unknown.token_statistics import CLEAR, CLIP, Nats, TokenStatistics

EXPERTS, WINDOW = 4, 20


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    mask = np.arange(WINDOW) < rng.integers(1, WINDOW + 1, (150, 1))
    mask[0] = True
    return Windows(rng.integers(0, 9, mask.shape).astype(np.int32), mask, np.arange(150))


@pytest.fixture(scope="module")
def nats(windows):
    drawn = np.random.default_rng(1).exponential(2.0, (EXPERTS, *windows.tokens.shape))
    return np.where(windows.mask, drawn, np.nan).astype(np.float32)


def scorer(nats, calls):
    """Scores blocks of the windows numbered by `document`."""

    def score(block):
        calls.append(len(block))
        of = nats[:, block.document]
        return Nats(of, -of)

    return score


def of_one_window(nats):
    """nats [E, T] -> the fields, as their docstring says."""
    experts, tokens = nats.shape
    pairs = {k: np.empty((experts, experts)) for k in token_statistics._PAIRS}
    for e in range(experts):
        for o in range(experts):
            d = nats[e] - nats[o]
            pairs["clipped"][e, o] = np.mean([min(CLIP, max(-CLIP, x)) for x in d])
            pairs["share"][e, o] = np.mean([x > CLEAR for x in d])
            pairs["excess"][e, o] = np.mean([max(0, x) for x in d])
            rival = nats[[x for x in range(experts) if x not in (e, o)]].min(0)
            pairs["rival_excess"][e, o] = np.mean(np.maximum(0, nats[e] - rival))
            pairs["rival_lead"][e, o] = np.mean(rival - nats[e])
    dearest = -np.sort(-nats, -1)[:, : int(np.ceil(0.05 * tokens))].mean(-1)
    return {"residual": nats.mean(-1), "deviation": nats.std(-1), "dearest": dearest, **pairs}


def test_every_number_is_what_its_name_says(windows, nats):
    found = token_statistics.measure(scorer(nats, []), windows)[WINDOW]
    assert len(found) == 150 and {f.name for f in dataclasses.fields(found)} == {
        *of_one_window(nats[:, 0]),
        *("distinct", "novel", "surprise"),
    }
    np.testing.assert_array_equal(found.surprise, -found.residual)
    for n in (0, 1, 63, 64, 149):
        for name, wanted in of_one_window(nats[:, n, windows.mask[n]]).items():
            got = getattr(found, name)[..., n]
            np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6, err_msg=name)
    words = windows.tokens[1][windows.mask[1]]
    assert found.distinct[1] == pytest.approx(np.log(len(set(words)) / len(words)))


def test_cut_windows_are_the_first_tokens(windows, nats):
    calls = []
    found = token_statistics.measure(scorer(nats, calls), windows, (5, 12), causal=True)
    assert calls == [64, 64, 22]  # scored once, a block at a time
    long = windows.mask.sum(-1) >= 12
    assert len(found[12]) == long.sum() < len(found[5]) < len(found[WINDOW])
    first = nats[:, np.flatnonzero(long)[3], :12]
    np.testing.assert_allclose(found[12].residual[:, 3], first.mean(-1), rtol=1e-5)
    again = token_statistics.measure(scorer(nats, calls), windows, (5, 12))
    for f in dataclasses.fields(TokenStatistics):
        np.testing.assert_array_equal(getattr(again[5], f.name), getattr(found[5], f.name))
    assert len(calls) == 3 + 9  # a rule that looks ahead scores every length


def test_a_length_that_no_window_has_is_left_out(windows, nats):
    short = windows.take(np.flatnonzero(windows.mask.sum(-1) < 8))
    assert token_statistics.measure(scorer(nats, []), short, (8,), causal=True).keys() == {WINDOW}


@pytest.mark.parametrize("fault", ["two experts", "a NaN", "an empty window"])
def test_scores_that_mean_nothing_are_refused(windows, nats, fault):
    given, some = nats[:, :3], windows.take(slice(3))
    if fault == "two experts":
        given = given[:2]
    elif fault == "a NaN":
        given = given.copy()
        given[1, 0, 0] = np.nan
    else:
        some = dataclasses.replace(some, mask=some.mask & [[True], [False], [True]])
    with pytest.raises(UserError, match="need three experts or more"):
        token_statistics.statistics(Nats(given), some)


def test_memory_bounds_the_number_of_windows():
    most = token_statistics.most_windows
    assert most(20, 40) == 256
    assert most(64, 128) == 2**30 // (4 * 5 * 64**2 * 128) < 256
    assert most(1000, 2000) == 16
