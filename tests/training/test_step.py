"""One pure step: learns, adds up micro-batches exactly, draws what it says."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import prefix_mask, small, windows

from cr_jax import models
from cr_jax.config import OptimizerConfig, TrainConfig
from cr_jax.training import step as step_room
from cr_jax.training.draws import draw_for, draw_ids, replace_some
from cr_jax.training.losses import CompressorLoss

MODEL = small(tie_embeddings=True)
ADAMW = OptimizerConfig(name="adamw", learning_rate=3e-3, warmup=0.0)
TRAIN = TrainConfig(batch=8, steps=1)
ALL = dataclasses.replace(TRAIN, nested=0.5, hidden=0.5)
traces = collections.Counter()


@functools.cache
def start(optimizer=ADAMW, train=TRAIN):
    make = lambda key: step_room.init_state(CompressorLoss(MODEL, train), optimizer, key)
    return jax.jit(make)(jax.random.key(0))


@functools.cache
def compiled(optimizer=ADAMW, train=TRAIN):
    step = step_room.make_train_step(CompressorLoss(MODEL, train), optimizer, train.accumulate)

    @jax.jit
    def counted(*args):
        traces[optimizer, train] += 1  # Python runs only while JAX traces
        return step(*args)

    return counted


def batch(seed=0, masked=False):
    found = {"tokens": windows(MODEL, 8, seed)}
    if masked:
        found["mask"] = prefix_mask(MODEL, [10, 1, 3, 10, 7, 2, 10, 5])
    return found


def run(steps, optimizer=ADAMW, train=TRAIN, state=None, first=0, masked=False):
    state, out = state or start(optimizer, train), None
    for i in range(first, first + steps):
        state, out = compiled(optimizer, train)(state, batch(i % 4, masked), jnp.float32(0.0))
    return jax.device_get(state), {k: v.item() for k, v in jax.device_get(out).items()}


def distance(a, b):
    """Largest difference of two trees relative to the largest entry."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return max(np.abs(x - y).max() for x, y in pairs) / max(np.abs(x).max() for x, _ in pairs)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_loss_falls_and_one_trace_serves_all_steps(name):
    optimizer = dataclasses.replace(ADAMW, name=name)
    state, first = run(1, optimizer)
    again = state.replace(step=np.asarray(state.step))  # numpy, as a restored checkpoint is
    state, last = run(40, optimizer, state=again)
    assert state.step == 41
    assert first["tokens"] == last["tokens"] == 80
    assert 0.3 * np.log(29) < first["nll"] / 80 < 3 * np.log(29)
    assert last["nll"] < 0.7 * first["nll"] and last["correct"] > first["correct"]
    assert traces[optimizer, TRAIN] == 1


def test_the_first_sums_are_those_of_the_model():
    """The step's figures, and its gradient norm, by the plain way."""
    state = start()
    tokens = batch()["tokens"]

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def plain(params):
        h, _ = models.Autoencoder(MODEL).apply(params, tokens)
        log_p = jax.nn.log_softmax(h @ models.head(MODEL, params))
        right = jnp.argmax(log_p, -1) == tokens
        return -jnp.mean(jnp.take_along_axis(log_p, tokens[..., None], -1)), right

    (nll, right), slope = plain(state.params)
    _, sums = run(1)
    assert sums["nll"] / 80 == pytest.approx(float(nll), rel=1e-5)
    assert sums["correct"] == right.sum()
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(slope)))
    assert sums["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_micro_batches_add_up_to_the_batch():
    """Though they hold different numbers of real tokens, and with everything drawn."""
    once, sums = run(3, train=ALL, masked=True)
    twice, sums_2 = run(3, train=dataclasses.replace(ALL, accumulate=2), masked=True)
    assert sums["tokens"] == 48
    assert sums_2 == pytest.approx(sums, rel=1e-4)
    assert distance(once.params, twice.params) < 1e-4
    assert distance(once.params, start().params) > 1e-3


def test_draws_reach_the_model():
    _, plain = run(1)
    _, hard = run(1, train=ALL)
    assert plain["tokens"] == hard["tokens"] and hard["nll"] > plain["nll"] + 1


def drawn(train, step=0, rows=512, key=0):
    options, kept = draw_for(
        MODEL, train, (rows, MODEL.window), jax.random.fold_in(jax.random.key(key), step)
    )
    return options if kept is None else {**options, "kept": kept}


def test_nothing_is_drawn_unless_asked_for():
    assert drawn(TRAIN) == {}


def test_short_windows_keep_a_random_number_of_leading_tokens():
    kept = np.asarray(drawn(dataclasses.replace(TRAIN, short=0.5))["kept"])
    lengths = kept.sum(-1)
    assert np.array_equal(kept, np.arange(MODEL.window) < lengths[:, None])
    assert lengths.min() == 1 and 0.4 < np.mean(lengths < MODEL.window) < 0.55


def test_tokens_past_a_short_window_change_neither_the_update_nor_the_sums():
    train = dataclasses.replace(TRAIN, short=1.0)
    step = compiled(train=train)
    kept = np.asarray(drawn(train, rows=8)["kept"])
    tokens = np.random.default_rng(0).integers(0, MODEL.vocab_size, kept.shape, np.int32)
    other = np.where(kept, tokens, 0)
    assert not np.array_equal(tokens, other)
    one, two = (
        step(start(), {"tokens": jnp.asarray(t)}, jnp.float32(0.5)) for t in (tokens, other)
    )
    assert float(one[1]["tokens"]) == kept.sum()
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_rates_are_drawn_for_the_share_of_windows_that_was_asked_for():
    train = dataclasses.replace(TRAIN, nested=0.5)
    rate = np.asarray(drawn(train)["rate"])
    assert rate.shape == (512,) and rate.min() == 1 and rate.max() == MODEL.d_latent
    assert 0.4 < np.mean(rate < MODEL.d_latent) < 0.55
    assert np.array_equal(rate, drawn(train)["rate"])
    assert not np.array_equal(rate, drawn(train, step=1)["rate"])
    assert not np.array_equal(rate, drawn(train, key=1)["rate"])


def test_every_rate_is_drawn_and_every_octave_as_often():
    rate = np.asarray(drawn(dataclasses.replace(TRAIN, nested=1.0), rows=1 << 14)["rate"])
    full = MODEL.d_latent
    share = np.bincount(rate, minlength=full + 1)[1:] / len(rate)
    want = np.log1p(1 / np.arange(1, full + 1)) / np.log(full + 1)
    np.testing.assert_allclose(share, want, atol=4 * np.sqrt(0.25 / len(rate)))


def test_nested_and_short_are_drawn_apart():
    both = drawn(dataclasses.replace(TRAIN, nested=1.0, short=1.0))
    lengths = np.asarray(both["kept"]).sum(-1)
    assert abs(np.corrcoef(lengths, both["rate"])[0, 1]) < 0.2


def test_no_two_draws_of_a_step_are_by_one_key(monkeypatch):
    keys, drawn_by = [], jax.random.uniform

    def uniform(key, *shape, **bounds):
        keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
        return drawn_by(key, *shape, **bounds)

    monkeypatch.setattr(jax.random, "uniform", uniform)
    draws = dict(nested=0.5, hidden=0.5, short=0.5, vocab_sample=16, replaced=0.1)
    train = dataclasses.replace(TRAIN, **draws)
    CompressorLoss(MODEL, train).rows(batch(), jax.random.key(3), None)
    assert len(keys) == 9 == len(set(keys))


def test_hidden_tokens_are_drawn_between_the_two_shares():
    train = dataclasses.replace(TRAIN, hidden=0.5, hidden_low=0.2, hidden_high=0.6)
    hidden = np.asarray(drawn(train)["hidden"])
    some = hidden.any(-1)
    assert 0.4 < some.mean() < 0.6
    assert 0.35 < hidden[some].mean() < 0.47


def test_a_share_of_the_tokens_gives_way_to_tokens_of_the_batch():
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 1000, (64, 32)) * 2)
    loss = CompressorLoss(MODEL, dataclasses.replace(TRAIN, replaced=0.25))
    rows, _ = jax.jit(lambda t, key: loss.rows({"tokens": t}, key, None))(tokens, jax.random.key(1))
    given = np.asarray(rows["tokens"])
    # A replacement is the token itself about once in 1,000 times.
    assert 0.2 < (given != np.asarray(tokens)).mean() < 0.3
    assert np.isin(given, np.asarray(tokens)).all()


def test_replaced_tokens_are_those_of_one_device_on_several():
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 1000, (8, 32)))
    split = jax.pmap(lambda t: replace_some(t, 0.25, jax.random.key(1), "data"), axis_name="data")(
        tokens.reshape(4, 2, 32)
    )
    whole = replace_some(tokens, 0.25, jax.random.key(1))
    assert np.array_equal(split.reshape(8, 32), whole)
    assert not np.array_equal(whole, tokens)


def test_the_ids_of_a_step_are_those_of_the_batch_and_others_at_random():
    tokens = jnp.asarray([[3, 3, 7], [11, 7, 3]])
    drawn = [
        np.asarray(draw_ids(tokens, 29, size, jax.random.key(key)))
        for size, key in ((8, 0), (8, 1))
    ]
    for ids in drawn:
        assert len(set(ids)) == 8 and np.array_equal(ids, np.sort(ids))
        assert {3, 7, 11} <= set(ids) and ids.min() >= 0 and ids.max() < 29
    assert set(drawn[0]) != set(drawn[1])
    assert set(np.asarray(draw_ids(tokens, 29, 2, jax.random.key(0)))) < {3, 7, 11}


def sampled(size, key=0):
    """(loss, sums, gradients, ids) of one batch."""
    loss = CompressorLoss(MODEL, dataclasses.replace(TRAIN, vocab_sample=size))
    params = start().params

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def values(params):
        rows, count = loss.rows(batch(), jax.random.key(key), None)
        value, sums = loss(params, rows, count)
        return value, (sums, rows.get("vocab"))

    (value, (sums, ids)), slope = values(params)
    return value, sums, slope, ids


def test_a_softmax_over_all_ids_is_the_plain_one():
    value, sums, slope, _ = sampled(0)
    whole, whole_sums, whole_slope, ids = sampled(MODEL.vocab_size)
    assert np.array_equal(ids[0], np.arange(29))
    np.testing.assert_allclose(whole, value, rtol=1e-6)
    assert int(whole_sums["correct"]) == int(sums["correct"])
    assert distance(whole_slope, slope) < 1e-5


def test_a_sampled_softmax_is_over_its_ids_and_moves_no_other():
    tokens = np.minimum(batch()["tokens"], 9)  # ten different ids at most
    loss = CompressorLoss(MODEL, dataclasses.replace(TRAIN, vocab_sample=16))
    untied = dataclasses.replace(MODEL, tie_embeddings=False)
    params = jax.jit(lambda key: models.init(untied, key))(jax.random.key(0))
    loss = dataclasses.replace(loss, model=untied)
    draw = jax.jit(lambda ids: loss.rows({"tokens": ids}, jax.random.key(3), None))
    rows, count = draw(jnp.asarray(tokens))
    ids = np.asarray(rows["vocab"][0])

    @jax.jit
    @jax.value_and_grad
    def plain(params):
        h, _ = models.Autoencoder(untied).apply(params, jnp.asarray(tokens))
        logits = (h @ models.head(untied, params))[..., ids]
        own = jnp.searchsorted(ids, tokens)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), own[..., None], -1))

    value, slope = jax.jit(jax.value_and_grad(lambda p: loss(p, rows, count)[0]))(params)
    want, everything = plain(params)
    assert float(value) == pytest.approx(float(want), rel=1e-5)
    moved = np.abs(np.asarray(models.head(untied, slope))).max(0) > 0
    assert np.array_equal(np.flatnonzero(moved), ids)
    assert distance(slope, everything) < 1e-5


def test_a_batch_with_more_ids_than_the_softmax_leaves_their_tokens_out():
    _, sums, _, ids = sampled(4)
    tokens = np.asarray(batch()["tokens"])
    assert int(sums["tokens"]) == np.isin(tokens, np.asarray(ids[0])).sum() < tokens.size


def test_micro_batches_share_the_ids_of_the_batch():
    few = dataclasses.replace(TRAIN, vocab_sample=24)
    once, sums = run(3, train=few)
    twice, sums_2 = run(3, train=dataclasses.replace(few, accumulate=2))
    assert sums_2 == pytest.approx(sums, rel=1e-4)
    assert distance(once.params, twice.params) < 1e-4


@dataclasses.dataclass(frozen=True)
class HeldLoss(CompressorLoss):
    """A compressor's loss beside a number that it reads and a step must not change."""

    frozen: tuple[str, ...] = ("held",)

    def init(self, key):
        return {**super().init(key), "held": jnp.float32(2)}

    def __call__(self, params, rows, count):
        value, sums = super().__call__({"params": params["params"]}, rows, count)
        return params["held"] * value, sums


@pytest.mark.parametrize("frozen", [("held",), ()])
def test_what_a_loss_freezes_keeps_every_bit(frozen):
    """Weight decay would move it; without the name it moves: a negative control."""
    loss = HeldLoss(MODEL, TRAIN, frozen=frozen)
    decayed = dataclasses.replace(ADAMW, weight_decay=0.1)
    state = jax.jit(lambda key: step_room.init_state(loss, decayed, key))(jax.random.key(0))
    step = step_room.make_train_step(loss, decayed, accumulate=2)
    after, _ = jax.jit(step)(state, batch(), jnp.float32(0))
    assert (float(after.params["held"]) == 2.0) == bool(frozen)
    assert distance(after.params["params"], state.params["params"]) > 0
    count = lambda tree: len(jax.tree.leaves(tree))
    assert count(state.opt_state) == 2 * count(state.params) + 1 - 2 * len(frozen)
