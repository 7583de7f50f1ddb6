"""The sums that all studies read count real tokens only."""

import numpy as np
import tiny_bank
from tiny_bank import windows

from cr_jax.scoring.residuals import TokenScores
from cr_jax.studies import evaluation


def test_padding_that_holds_no_number_costs_nothing(monkeypatch):
    bank, batch = tiny_bank.in_memory(2), windows(3)
    nll = np.where(batch.mask[None], np.ones((2, 1, 1), np.float32), np.nan)
    scores = TokenScores(nll, np.ones(nll.shape, bool), np.where(batch.mask[None], nll, np.inf))
    monkeypatch.setattr(evaluation, "score_tokens", lambda *a, **k: scores)
    found = evaluation.score_domains(bank, {"home": batch})["home"]
    np.testing.assert_array_equal(found.nll, np.tile(batch.mask.sum(-1), (2, 1)))
    np.testing.assert_array_equal(found.nll, found.residual_nll)
    assert found.metrics(0)["nll"] == found.metrics(0)["residual"] == 1.0
