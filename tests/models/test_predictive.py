"""The predictive encoder: causal, a code length for every token, the compressor unharmed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import FORMS, encode, fresh, prefix_mask, run, small, windows

from cr_jax import models
from cr_jax.config import SEEN, OptimizerConfig, Scoring, TrainConfig, check_scoring
from cr_jax.errors import UserError
from cr_jax.router import score_experts, score_windows
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.residuals import (
    Scorer,
    residual_nll,
    surprise_sums,
    token_residuals,
    token_scores,
    token_surprises,
)
from cr_jax.training import step as step_room
from cr_jax.training.losses import CompressorLoss

CODE = Scoring(predicted=True)
predictive = functools.partial(small, predictive=True)


@functools.partial(jax.jit, static_argnums=0)
def code_length(config, params, tokens, mask):
    return residual_nll(models.Autoencoder(config), params, tokens, mask, CODE)


def full(config, tokens):
    return jnp.ones(tokens.shape, bool)


@pytest.mark.parametrize("form", FORMS)
def test_a_token_is_predicted_from_those_before_it_alone(form):
    config = predictive(form)
    params, tokens = fresh(config), windows(config)
    net = models.Autoencoder(config)

    @jax.jit
    @jax.jacobian
    def slope(vectors):
        """d(state i) / d(token j's vector), summed over widths: [L, L, D]."""
        p = {"params": {**params["params"], "embedding": vectors}}
        h = net.apply(p, jnp.arange(config.window)[None], method="predict")
        return jnp.sum(h[0] * jnp.arange(1.0, config.d_model + 1)[None], -1)

    moved = np.abs(slope(params["params"]["embedding"])[:, : config.window]).sum(-1)
    assert not np.triu(moved).any()  # neither itself nor anything later
    assert (np.tril(moved, -1)[np.tril_indices(config.window, -1)] > 0).all()
    # The control: the rebuilt window sees every token, or the probe would prove nothing.
    changed = tokens.at[:, -1].set((tokens[:, -1] + 1) % config.vocab_size)
    before, after = (run(config, params, t)[0] for t in (tokens, changed))
    assert np.abs(before - after)[:, 0].max() > 0


def test_the_code_length_of_a_prefix_does_not_know_what_follows():
    config = predictive()
    params, tokens = fresh(config), windows(config)
    other = tokens.at[:, 6:].set((tokens[:, 6:] + 3) % config.vocab_size)
    mask = full(config, tokens)
    a, b = code_length(config, params, tokens, mask), code_length(config, params, other, mask)
    np.testing.assert_allclose(a[:, :6], b[:, :6], rtol=1e-5)
    assert np.abs(a - b)[:, 6:].max() > 0.01
    short = code_length(config, params, tokens, prefix_mask(config, [6] * len(tokens)))
    np.testing.assert_allclose(a[:, :6], short[:, :6], rtol=1e-5)


def test_one_pass_for_training_gives_what_two_passes_give():
    config = predictive()
    params, tokens = fresh(config), windows(config)
    net = models.Autoencoder(config)
    both = jax.jit(functools.partial(net.apply, method="rebuild_and_predict"))
    h, ahead = both(params, tokens)
    np.testing.assert_allclose(h, run(config, params, tokens)[0], rtol=1e-5, atol=1e-5)
    alone = jax.jit(functools.partial(net.apply, method="predict"))(params, tokens)
    np.testing.assert_allclose(ahead, alone, rtol=1e-5, atol=1e-5)


def train(model, steps=150, weight=0.3):
    """Windows that count upwards from anywhere: token i + 1 follows from token i."""
    settings = TrainConfig(batch=16, steps=steps, predict_weight=weight)
    loss = CompressorLoss(model, settings)
    optimizer = OptimizerConfig(name="adamw", learning_rate=1e-2, warmup=0.0)
    state = jax.jit(functools.partial(step_room.init_state, loss, optimizer))(jax.random.key(0))
    step = jax.jit(step_room.make_train_step(loss, optimizer), donate_argnums=0)
    rng = np.random.default_rng(0)
    for i in range(steps):
        starts = rng.integers(0, model.vocab_size, (16, 1))
        tokens = (starts + np.arange(model.window)) % model.vocab_size
        state, sums = step(state, {"tokens": jnp.asarray(tokens, jnp.int32)}, np.float32(i / steps))
    return state.params, {k: float(v) / 160 for k, v in sums.items()}


def test_training_learns_to_predict_and_a_code_length_tells_order_from_disorder():
    model = predictive(encoder_blocks=1)
    params, sums = train(model)
    uniform = np.log(model.vocab_size)
    assert sums["predicted_nll"] < uniform / 3  # only a window's first token stays unknown
    counting = (jnp.arange(4)[:, None] * 7 + jnp.arange(model.window)[None]) % model.vocab_size
    mixed = jax.random.permutation(jax.random.key(1), counting, axis=1, independent=True)
    lengths = [
        code_length(model, params, t, full(model, t))[:, 1:].mean() for t in (counting, mixed)
    ]
    assert lengths[0] < 0.5 < uniform < lengths[1]
    # Without the loss nothing is learnt about what follows: the signal is the loss's doing.
    _, control = train(model, weight=0.0)
    assert control["predicted_nll"] > uniform


def test_the_rule_stands_beside_rebuilding_in_one_score():
    config = predictive()
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), fresh(config, 0), fresh(config, 1))
    tokens = windows(config)
    mask = prefix_mask(config, [10, 7, 4, 1])
    groups = BatchSizes().groups(2)
    plain, coded = (
        score_experts(Scorer(token_scores, config, rule), both, tokens, mask, groups)
        for rule in (SEEN, CODE)
    )
    np.testing.assert_allclose(plain.nll, coded.nll, rtol=1e-6)
    assert np.abs(coded.residual - coded.nll).max() > 0.1
    for rule, whole in ((SEEN, plain), (CODE, coded)):
        bare = score_experts(Scorer(token_residuals, config, rule), both, tokens, mask, groups)
        np.testing.assert_allclose(bare.residual, whole.residual, rtol=1e-6)
        assert bare.nll is None and bare.correct is None
    alone = score_windows(config, both, tokens, mask, CODE, BatchSizes())
    np.testing.assert_allclose(alone.residual, np.where(mask, coded.residual, 0).sum(-1), rtol=1e-5)


def test_the_surprise_is_what_the_nll_exceeds_the_models_own_doubt_by():
    config, mask = predictive(), prefix_mask(predictive(), [10, 7, 4, 1])
    params, tokens = fresh(config, 0), windows(config)
    one = jax.tree.map(lambda x: x[None], params)
    sizes = BatchSizes(tokens=8).groups(1)
    sums = score_experts(Scorer(surprise_sums, config, CODE), one, tokens, mask, sizes)

    @jax.jit
    def predicted(params):
        h = models.Autoencoder(config).apply(params, tokens, mask, method="predict")
        return h @ models.head(config, params)

    logits = predicted(params)
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    nll = -np.take_along_axis(log_p, np.asarray(tokens)[..., None], -1)[..., 0]
    entropy = -(np.exp(log_p) * log_p).sum(-1)
    by_hand = np.where(mask, nll - entropy, 0).sum(-1)
    np.testing.assert_allclose(sums.surprise[0], by_hand, rtol=1e-4, atol=1e-4)
    each = score_experts(Scorer(token_surprises, config, CODE), one, tokens, mask, sizes)
    np.testing.assert_allclose(
        np.where(mask, each.surprise[0], 0), np.where(mask, nll - entropy, 0), rtol=1e-4, atol=1e-4
    )
    plain = score_windows(config, one, tokens, mask, CODE, BatchSizes(tokens=8))
    assert plain.surprise is None
    np.testing.assert_allclose(plain.residual, sums.residual, rtol=1e-6)
    seen = score_experts(Scorer(surprise_sums, config, SEEN), one, tokens, mask, sizes)
    assert seen.surprise is None and seen.exact is not None
    assert score_experts(Scorer(token_surprises, config, SEEN), one, tokens, mask, sizes)[3] is None
    # Negative control: tokens drawn from the predictions themselves surprise by nothing.
    shape = (500, *tokens.shape)
    drawn = jax.random.categorical(jax.random.key(0), 4 * logits, axis=-1, shape=shape)
    log_p = np.asarray(jax.nn.log_softmax(4 * logits), np.float64)[None].repeat(500, 0)
    said = np.take_along_axis(log_p, np.asarray(drawn)[..., None], -1)[..., 0].mean(0)
    entropy = -(np.exp(log_p[0]) * log_p[0]).sum(-1)
    assert abs((-said - entropy).mean()) < 0.02 < entropy.mean()


def test_a_plain_encoder_looks_both_ways_and_has_no_code_length():
    config = small()
    tokens = windows(config)
    changed = tokens.at[:, -1].set((tokens[:, -1] + 1) % config.vocab_size)
    first = lambda c, t: encode(c, fresh(c), t)[:, 0]
    assert np.abs(first(config, tokens) - first(config, changed)).max() > 0
    ahead = predictive()  # z of the first positions cannot know the last token
    np.testing.assert_allclose(first(ahead, tokens), first(ahead, changed), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="predictive=True"):
        check_scoring(CODE, config)
    for change in ({"parts": 2}, {"rate": 1}, {"parts": 2, "hidden": 2}):
        with pytest.raises(UserError, match="predicted hides nothing"):
            check_scoring(dataclasses.replace(CODE, **change), ahead)
