"""Batches of one shape: one program serves all, and none is of no size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank
from tiny_bank import TEXT, TINY, windows

from cr_jax import router
from cr_jax.errors import UserError
from cr_jax.scoring import batching, residuals
from cr_jax.scoring.batching import BatchSizes, in_batches, in_groups, unmapped


def test_one_trace_serves_all_batches(monkeypatch):
    traces, real, four = [], residuals.window_sums, BatchSizes(windows=4)
    monkeypatch.setattr(residuals, "window_sums", lambda *a: traces.append(a[2].shape) or real(*a))
    bank = tiny_bank.in_memory(2)
    whole = router.route_windows(bank, windows(11), four).residuals
    assert traces == [(4, TINY.window)]
    router.route_windows(bank, windows(4, seed=1), four)
    router.route(bank, TEXT, sizes=four)
    assert len(traces) == 1
    larger = router.route_windows(bank, windows(11), BatchSizes(windows=11)).residuals
    np.testing.assert_allclose(whole, larger, rtol=1e-5)
    assert len(traces) == 2


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
@pytest.mark.parametrize("axis", [-1, -2])
def test_batches_join_to_what_one_call_gives(count, axis):
    some, shapes = windows(9).take(slice(count)), []

    def score(tokens, mask):
        shapes.append(tokens.shape)
        whole = jnp.where(mask, tokens, -1)[None] * jnp.array([1, 2])[:, None, None]
        return whole.sum(-1) if axis == -1 else whole

    want = np.asarray(score(some.tokens, some.mask))
    shapes.clear()
    np.testing.assert_array_equal(in_batches(score, some, 4, axis), want)
    assert set(shapes) == {(4, TINY.window)} and len(shapes) == max(1, -(-count // 4))


@pytest.mark.parametrize(("experts", "side_by_side"), [(1, 1), (4, 4), (5, 2), (6, 3), (7, 3)])
def test_groups_join_to_what_all_experts_give(experts, side_by_side):
    params = {"w": jnp.arange(1.0, experts + 1)}
    mask, traced = jnp.ones((3, 16), bool), []

    def score(some, masks):
        traced.append(masks.shape)
        return some["w"][:, None] * masks.sum(-1, dtype=jnp.float32)

    found = in_groups(score, params, mask, side_by_side)
    np.testing.assert_array_equal(found, np.arange(1.0, experts + 1)[:, None] * np.full(3, 16.0))
    assert set(traced) == {(side_by_side, 3, 16)}


def test_one_expert_alone_is_scored_as_by_vmap():
    ranks = []

    def one(params, mask):
        ranks.append(params["w"].ndim)
        return {"sum": params["w"] * mask.sum(-1), "none": None}

    params, masks = {"w": jnp.array([2.0])}, jnp.ones((1, 3, 16))
    found, mapped = unmapped(one)(params, masks), jax.vmap(one)(params, masks)
    np.testing.assert_array_equal(found["sum"], np.full((1, 3), 32.0))
    np.testing.assert_array_equal(found["sum"], mapped["sum"])
    assert ranks[0] == 0 and found["none"] is None


def test_sizes_deal_experts_evenly_and_rows_are_few():
    assert BatchSizes(experts=4, tokens=60).groups(9) == (3, 20)
    assert BatchSizes(experts=4, tokens=2).groups(4) == (4, 1)
    assert {BatchSizes(windows=64).rows(n) for n in range(1, 99)} == {1, 4, 16, 64}
    assert BatchSizes(windows=6).rows(3) == 4 and BatchSizes(windows=6).rows(5) == 6


def test_a_cpu_has_smaller_batches_than_the_defaults(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert BatchSizes.for_device() == BatchSizes(1, 16, 256)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert BatchSizes.for_device() == BatchSizes(4, 64, 8192, jax.local_device_count())


@pytest.mark.parametrize("size", [0, -1, True])
@pytest.mark.parametrize("name", ["experts", "windows", "tokens", "devices"])
def test_sizes_of_nothing_are_one_line(name, size):
    with pytest.raises(UserError, match=f"{name} must be a whole number of at least 1"):
        BatchSizes(**{name: size})


def test_a_loop_over_blocks_scores_what_blocks_in_a_row_do(monkeypatch):
    two = dataclasses.replace(TINY, encoder_blocks=2, decoder_blocks=2)
    bank, some = tiny_bank.in_memory(2, two), windows(3)
    assert batching.looped(bank.model).scan and not bank.model.scan
    looped = router.score_bank(bank, some).residual
    monkeypatch.setattr(router, "looped", lambda model: model)
    np.testing.assert_allclose(looped, router.score_bank(bank, some).residual, rtol=1e-5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert batching.looped(bank.model) == bank.model
