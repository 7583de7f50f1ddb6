"""Calls of one shape: one program serves all batches, and no call is of no size."""

import numpy as np
import pytest
import tiny_bank
from tiny_bank import TEXT, TINY, windows

from cr_jax.errors import UserError
from cr_jax.routing import route as router
from cr_jax.scoring import batching


def test_one_trace_serves_all_batches(monkeypatch):
    traces, real = [], batching.score_experts
    monkeypatch.setattr(
        batching, "score_experts", lambda *a: traces.append(a[2].shape) or real(*a))
    bank = tiny_bank.in_memory(2)
    whole = router.score(bank, windows(11), batch=4)
    assert traces == [(4, TINY.window)]
    router.score(bank, windows(4, seed=1), batch=4)
    router.route(bank, TEXT, batch=4)
    assert len(traces) == 1
    np.testing.assert_allclose(whole, router.score(bank, windows(11), batch=11), rtol=1e-5)
    assert len(traces) == 2


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", ["batch", "expert_chunk", "chunk"])
def test_calls_of_no_size_are_one_line(name, size):
    bank, batch = tiny_bank.in_memory(1), windows(2)
    for call in (router.route, router.score, router.score_stats, router.route_all):
        with pytest.raises(UserError, match=f"{name} must be a whole number of at least 1"):
            call(bank, batch, **{name: size})
