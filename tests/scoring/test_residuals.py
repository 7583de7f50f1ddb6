"""Scores (`scoring.residuals`) are those of single experts; a rule scores its own positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank
from tiny_bank import TINY, fresh, in_memory, one, spread, windows

from cr_jax import models, router
from cr_jax.config import SEEN, Scoring
from cr_jax.data.windows import Windows
from cr_jax.models import objective
from cr_jax.scoring import calibrate as calibrate_module
from cr_jax.scoring import residuals
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.calibrate import calibrate


def by_token(params, tokens, mask):
    scorer = residuals.Scorer(residuals.token_scores, TINY, SEEN)
    return router.score_experts(scorer, params, tokens, mask, (2, 4096))


@jax.jit
def score_alone(params, tokens, mask):
    h, _ = models.Autoencoder(TINY).apply(params, tokens, mask)
    return objective.token_scores(h, models.head(TINY, params), tokens)


@pytest.mark.parametrize(("experts", "expert_chunk"), [(1, 4), (3, 4), (4, 2), (5, 2)])
def test_scores_equal_a_loop_over_single_experts(experts, expert_chunk):
    bank, batch = tiny_bank.in_memory(experts), windows(3)
    got = router.score_tokens(bank, batch, sizes=BatchSizes(experts=expert_chunk, tokens=16))
    assert got.nll.shape == got.correct.shape == (experts, 3, TINY.window)
    assert got.nll.dtype == np.float32 and got.correct.dtype == bool
    for e, name in enumerate(bank.names):
        alone = score_alone(bank.expert_params(name), batch.tokens, batch.mask)
        np.testing.assert_allclose(got.nll[e], alone.nll, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got.correct[e], alone.correct)
    assert np.std(got.nll[:, 0, 0]) > 0 or experts == 1  # the experts differ


def test_an_experts_score_does_not_depend_on_another_experts_parameters():
    params, batch = jax.tree.map(jnp.asarray, fresh(3)), windows(2)

    @jax.jit
    @jax.grad
    def gradient(params, e):
        tokens, mask = jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
        return jnp.sum(by_token(params, tokens, mask).nll[e], where=mask)

    for e in range(3):
        sizes = sum(
            np.abs(x).reshape(3, -1).sum(-1)
            for x in map(np.asarray, jax.tree.leaves(gradient(params, e)))
        )
        np.testing.assert_array_equal(sizes > 0, np.arange(3) == e)


def test_ids_under_the_padding_mask_change_nothing():
    bank, batch = tiny_bank.in_memory(2), windows(3)
    other = Windows(np.where(batch.mask, batch.tokens, 7), batch.mask, batch.document)
    assert (other.tokens != batch.tokens).any()
    a, b = router.score(bank, batch), router.score(bank, other)
    np.testing.assert_array_equal(a[:, batch.mask], b[:, batch.mask])
    assert router.route(bank, batch) == router.route(bank, other)
    seen = Windows(np.where(batch.mask, 7, batch.tokens), batch.mask, batch.document)
    assert router.route(bank, batch) != router.route(bank, seen)


def test_experts_spread_over_devices_score_the_same():
    mesh = jax.make_mesh(
        (2,), ("expert",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("expert"))
    batch, params = windows(2), fresh(4)
    tokens, mask = jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
    call = jax.jit(lambda p: by_token(p, tokens, mask))
    np.testing.assert_allclose(
        call(jax.device_put(params, split)).nll, call(params).nll, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("rule", "passes"),
    [(SEEN, (1, 1)), (Scoring(parts=4, hidden=1), (1, 1)), (Scoring(predicted=True), (0, 1))],
    ids=["seen", "hidden", "predicted"],
)
def test_residuals_alone_cost_the_passes_of_their_rule_and_no_other(monkeypatch, rule, passes):
    model = dataclasses.replace(TINY, predictive=rule.predicted)
    bank, batch, traced = tiny_bank.in_memory(2, model, rule=rule), windows(20), []
    for name in ("decode", "_states"):
        real = getattr(models.Autoencoder, name)
        monkeypatch.setattr(
            models.Autoencoder,
            name,
            lambda *a, real=real, name=name, **k: (traced.append(name), real(*a, **k))[1],
        )

    def counted(call):
        """(what it gives, decoders and encoders in the program that it compiles)."""
        traced.clear()
        router.score_experts.clear_cache()
        calibrate_module._one_expert.clear_cache()
        return call(), (traced.count("decode"), traced.count("_states"))

    routes, of_routes = counted(
        lambda: router.route_windows(bank, batch, sizes=BatchSizes(windows=32))
    )
    made, of_made = counted(
        lambda: calibrate(
            model, one(bank.params, 0), batch, rule=rule, sizes=BatchSizes(windows=32)
        )
    )
    assert of_routes == of_made == passes
    # TRA needs a pass over seen tokens, which is the paper's rule itself.
    scores, of_scores = counted(
        lambda: router.score_tokens(bank, batch, sizes=BatchSizes(windows=32))
    )
    assert of_scores == ((1, 1) if rule == SEEN else (passes[0] + 1, passes[1] + 1))
    nats = np.where(batch.mask, scores.residual, 0).sum(-1, dtype=float)
    by_hand = residuals.residual_means(nats, batch.mask.sum(-1))
    np.testing.assert_allclose(routes.residuals, by_hand, rtol=1e-6)
    np.testing.assert_allclose(made.residuals[16], np.sort(by_hand[0, :-1]), rtol=1e-6)


def test_a_hidden_token_s_residual_is_the_mean_of_the_passes_that_hide_it():
    rule, params, batch = Scoring(parts=4, hidden=2), one(in_memory(1).params, 0), spread()
    net = models.Autoencoder(TINY)
    dealt = residuals.places(rule, 16)
    assert dealt.shape == (4, 8) and (np.bincount(dealt.ravel()) == 2).all()

    @jax.jit
    def of_pass(tokens, mask, hidden):
        h, _ = net.apply(params, tokens, mask, None, jnp.broadcast_to(hidden, tokens.shape))
        return objective.token_scores(h, models.head(TINY, params), tokens).nll

    each = np.full((4, *batch.tokens.shape), np.nan)
    for i, at in enumerate(dealt):
        hidden = np.isin(np.arange(16), at)
        each[i][:, at] = np.asarray(of_pass(batch.tokens, batch.mask, hidden))[:, at]
    tokens, mask = jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
    got = residuals.residual_nll(net, params, tokens, mask, rule)
    np.testing.assert_allclose(got, np.nanmean(each, 0), rtol=1e-5)
    assert np.nanstd(each, 0).min() > 0  # what else was hidden matters
