"""Windows that follow the spans rebuild two alphabets which fixed windows mix."""

import numpy as np
import pytest
import tiny_bank

from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import adaptive_windows
from cr_jax.studies.adaptive_windows import Pieces, halves, pieces

SIZES = BatchSizes(experts=2, windows=8)


def test_windows_begin_anew_at_each_switch_and_cover_the_text():
    owner = np.repeat([0, 1, 0], [20, 7, 37])
    found = pieces(owner, 16)
    assert found.starts.tolist() == [0, 16, 20, 27, 43, 59]
    assert found.lengths.tolist() == [16, 4, 7, 16, 16, 5]
    assert found.expert.tolist() == [0, 0, 1, 0, 0, 0]


def test_halves_cover_what_they_halve():
    found = halves(Pieces(np.array([0, 9, 14]), np.array([9, 5, 1]), np.array([2, 3, 4])))
    order = np.argsort(found.starts)
    assert found.starts[order].tolist() == [0, 5, 9, 12, 14]
    assert found.lengths[order].tolist() == [5, 4, 3, 2, 1]
    assert found.expert[order].tolist() == [2, 2, 3, 3, 4]


@pytest.fixture(scope="module")
def found():
    bank = tiny_bank.trained_bank()
    ids, owner = [], np.repeat([0, 1] * 4, 24)  # every second window of 16 mixes the two
    for i, low in enumerate((97, 113)):
        windows = tiny_bank.windows(12, 50 + i, low, low + 10)
        ids.append(windows.tokens[windows.mask][:96].reshape(4, 24))
    text = np.stack(ids, 1).reshape(-1)
    ways = adaptive_windows.rebuilt(bank, [text], [owner], SIZES)
    wrong = adaptive_windows.rebuilt(bank, [text], [1 - owner], SIZES)
    return bank, ways, wrong


def test_spans_rebuild_more_than_fixed_windows_of_the_same_size(found):
    _, ways, wrong = found
    assert ways["spans"]["tra"] > ways["fixed 16"]["tra"] + 0.1
    assert ways["fixed 16"]["tra"] > ways["one expert"]["tra"] + 0.1
    assert wrong["spans"]["tra"] < ways["one expert"]["tra"]  # spans of the wrong experts


def test_halving_never_rebuilds_less_and_costs_latents(found):
    bank, ways, _ = found
    assert ways["halved"]["tra"] >= ways["spans"]["tra"]
    assert ways["halved"]["latents_per_token"] >= ways["spans"]["latents_per_token"]
    each = bank.model.latents / bank.model.window
    assert ways["fixed 16"]["latents_per_token"] == pytest.approx(each)
    assert ways["fixed 4"]["latents_per_token"] == pytest.approx(4 * each)
    assert ways["one expert"]["latents_per_token"] == pytest.approx(each)
    # Spans of 24 tokens take two windows each, as 32 tokens would.
    assert ways["spans"]["latents_per_token"] == pytest.approx(each * 32 / 24)


def test_a_window_stays_whole_where_its_halves_bring_fewer_tokens_back(monkeypatch):
    """An expert that rebuilds 3 of 4 tokens of a window of 16, none of a shorter one, and all of
    one of 2."""

    def scored(self, of):
        n = of.lengths
        exact = np.where(n == 16, 12, np.where(n == 2, 2, 0)).astype(float)[None]
        return {"exact": exact, "nats": exact, "residual": exact}

    monkeypatch.setattr(adaptive_windows._Reader, "_scored", scored)
    read = adaptive_windows._Reader(None, np.zeros(32), SIZES)
    whole = Pieces(np.array([0, 16]), np.array([16, 16]), np.array([0, 0]))
    for smallest, exact, windows in ((8, 24, 2), (4, 24, 2), (2, 32, 16)):
        sums = adaptive_windows._Sums()
        read.add_halved(sums, whole, smallest)
        assert (sums.exact, sums.windows) == (exact, windows)
