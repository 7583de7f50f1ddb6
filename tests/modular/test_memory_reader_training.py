"""An adapter learns from its past alone; compressor and language model keep every bit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank
import tiny_lms
from tiny_bank import refuses

from cr_jax import config as settings
from cr_jax.bank import ExpertBank
from cr_jax.data import ByteTokenizer, Corpus, Mixture, eval_windows
from cr_jax.data.experiment_text import Corpora
from cr_jax.modular import memory, memory_reader
from cr_jax.modular import memory_reader_training as training
from cr_jax.modular.options import LATENTS, MemoryOptions
from cr_jax.training import step

L = 16  # tokens of a window
LM = dataclasses.replace(tiny_lms.BYTES, window=32)
NAMES = ("e0", "e1")


@functools.cache
def bank() -> ExpertBank:
    models = {n: tiny_lms.one(tiny_lms.trained(), i) for i, n in enumerate(NAMES)}
    return tiny_bank.trained_bank().with_lms(LM, models, tiny_lms.one(tiny_lms.trained(), 2))


def experiment(**modular):
    raw = settings.default().to_dict()
    parts = {"train": ("a",), "valid": ("b",), "test": ("c",)}
    raw["data"] |= {"mode": "padded", "domains": {n: parts for n in NAMES}}
    raw["train"] |= {"steps": 1, "log_every": 1000}
    raw["model"]["window"] = 4 * L
    raw["lm_optimizer"] |= {"name": "adamw", "learning_rate": 0.02, "warmup": 0.0}
    small = {"window": 4 * L, "branch_batch": 8, "looks": 1, "seed_tokens": 1}
    raw["modular"] |= small | {"branch_tokens": 60 * 8 * 4 * L} | modular
    return settings.build(raw)


def corpus(expert: int, seed: int, count: int = 40, short: int = 0) -> Corpus:
    """Documents of one letter each, so that the past says what comes first; `short` too short."""
    rng = np.random.default_rng(seed)
    lengths = [4 * L] * count + [L] * short
    letters = rng.integers(*tiny_lms.RANGES[expert], len(lengths))
    end = ByteTokenizer().end_id
    parts = [np.append(np.full(n, x), end) for n, x in zip(lengths, letters, strict=True)]
    starts = np.cumsum([0, *map(len, parts)])
    tokens = np.concatenate(parts).astype(np.uint16)
    return Corpus(tokens, starts, len(tokens), f"{expert} {seed}", [""] * len(lengths))


def text() -> Corpora:
    cut = lambda i: eval_windows(corpus(i, 1), 4 * L, mode="padded", pad_id=0)
    valid = {n: cut(i) for i, n in enumerate(NAMES)}
    train = {n: corpus(i, 0, short=5) for i, n in enumerate(NAMES)}
    return Corpora(ByteTokenizer(), train, valid, valid)


@functools.cache
def loss():
    return training.loss_of(experiment(), bank(), 2)


@functools.cache
def params():
    """Of e0, with an adapter whose every number is drawn."""
    reader = jax.eval_shape(loss().init, jax.random.key(0))["reader"]
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), reader)
    own = bank().expert("e0")
    return jax.tree.map(jnp.asarray, {"compressor": own.params, "lm": own.lm, "reader": drawn})


def rows(seed: int = 0):
    tokens = np.random.default_rng(seed).integers(*tiny_lms.RANGES[0], (3, 4 * L)).astype(np.int32)
    return {"tokens": jnp.asarray(tokens)}


def test_z_and_the_compressor_get_no_gradient_and_a_step_leaves_the_model_as_it_is():
    one, lowered = rows(), loss()
    count = lowered.rows(one, None, None)[1]
    assert count == 3 * (3 * L)
    grads = jax.jit(jax.grad(lambda p: lowered(p, one, count)[0]))(params())
    size = {k: max(np.abs(x).max() for x in jax.tree.leaves(v)) for k, v in grads.items()}
    assert size["compressor"] == 0 < size["reader"]
    assert size["lm"] > 0  # a step must leave it out

    adamw = settings.OptimizerConfig(name="adamw", learning_rate=0.1, weight_decay=0.1, warmup=0.0)
    state = jax.jit(lambda key: step.init_state(lowered, adamw, key))(jax.random.key(0))
    assert not {"lm", "compressor"} & {
        key.key
        for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)
        for key in path
        if hasattr(key, "key")
    }
    state = state.replace(params=params())
    state, sums = jax.jit(step.make_train_step(lowered, adamw))(state, one, jnp.float32(0))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.params, params())
    assert all(jax.tree.leaves((same["lm"], same["compressor"])))
    assert not any(jax.tree.leaves(same["reader"])) and sums["gradient_norm"] > 0


def test_no_state_depends_on_the_current_window_or_a_later_one():
    apply = jax.jit(loss()._states)
    base = apply(params(), rows())

    def moved(at):
        """The first position after the first window whose state another token at `at` changes."""
        tokens = rows()["tokens"].at[:, at].set(rows()["tokens"][:, at] + 1)
        change = np.abs(apply(params(), {"tokens": tokens}) - base).max((0, 2)) > 1e-6
        return int(np.argmax(change)) if change.any() else None

    assert moved(5) == 0 and moved(L - 1) == 0  # the past is read
    assert moved(L + 3) == 4 and moved(3 * L + 2) == 2 * L + 3  # by the language model alone
    assert moved(4 * L - 1) is None


def test_padding_changes_no_text_before_it():
    one = rows()
    mask = jnp.arange(4 * L)[None] < jnp.array([[4 * L], [2 * L + 5], [2 * L]])
    padded = {"tokens": jnp.where(mask, one["tokens"], 0), "mask": mask}
    whole, cut = (jax.jit(loss()._states)(params(), x) for x in (one, padded))
    kept = np.asarray(mask)[:, L:]
    np.testing.assert_allclose(cut[kept], whole[kept], atol=1e-6)
    assert float(loss().rows(padded, None, None)[1]) == kept.sum()
    empty = {"tokens": padded["tokens"] * 0, "mask": jnp.zeros_like(mask)}
    value, _ = loss()(params(), empty, loss().rows(empty, None, None)[1])
    assert value == 0


def test_training_makes_the_past_useful_and_a_memory_is_read_as_in_training(tmp_path):
    """Whole documents of one letter: only latents say how a window begins."""
    found = training.train(experiment(), bank(), text(), tmp_path)
    looks = found.note["looks"]
    for name in NAMES:
        first, last = (look["experts"][name]["valid_nll"] for look in (looks[0], looks[-1]))
        assert last < first - 0.02
    again = training.train(experiment(), bank(), text(), tmp_path)
    adapters = training.stored(tmp_path, bank())
    assert adapters.past == 3 and set(adapters.params) == set(NAMES)
    jax.tree.map(np.testing.assert_array_equal, again.params["e1"]["reader"], adapters.params["e1"])


def test_a_memory_is_read_as_in_training_and_another_text_s_does_not_help(tmp_path):
    training.train(experiment(looks=0), bank(), text(), tmp_path)
    reader = training.stored(tmp_path, bank()).params["e0"]
    tokens = corpus(0, 2, 12).tokens.reshape(12, -1)[:, :-1].astype(np.int32)

    def nats(of: int):
        """Of the last windows' tokens after the past of the row so many below."""
        options, parts = MemoryOptions(LATENTS, corrections=0), []
        for past in np.roll(tokens, -of, 0)[:, : 3 * L]:
            kept = memory.write(bank(), bytes(past.tolist()).decode(), options)
            parts.append(memory_reader.Latents.of(kept, "e0", 3).before(np.array([3])))
        z, ages = (np.concatenate(x) for x in zip(*parts, strict=True))
        own = bank().expert("e0").lm
        return memory_reader.read_nats(loss().lm, own, reader, tokens[:, -L:], (z, ages), 5)

    own, other = nats(0), nats(1)
    assert own[:, 0].mean() < other[:, 0].mean() - 0.1
    whole = jax.tree.map(jnp.asarray, {**params(), "reader": reader})
    counted = jnp.ones(tokens.shape, bool).at[:, : 3 * L].set(False)
    scored = loss().score(whole, {"tokens": jnp.asarray(tokens), "counted": counted})
    assert own.sum() == pytest.approx(float(scored["nll"]), rel=1e-4)


def test_long_documents_are_kept_whole():
    found = training.long_only(corpus(0, 0, 3, short=2), L)
    assert len(found.names) == 3 and len(found.tokens) == found.starts[-1] == 3 * (4 * L + 1)
    assert found.fingerprint != corpus(0, 0, 3, short=2).fingerprint
    both = training.long_only(Mixture([corpus(0, 0), corpus(1, 0)], (1, 2)), L)
    assert len(both.corpora) == 2 and both.weights == (1, 2)
    refuses(lambda: training.long_only(corpus(0, 0, 0, short=2), L), "longer than 16 tokens")


def test_what_cannot_be_is_one_line(tmp_path):
    for window in (L, 3 * L + 1):
        wrong = experiment(window=window)
        refuses(lambda e=wrong: training.loss_of(e, bank(), 2), f"window={window}", "16 tokens")
    e = experiment()
    packed = dataclasses.replace(e, data=dataclasses.replace(e.data, mode="packed"))
    refuses(lambda: training.loss_of(packed, bank(), 2), "padded")
    other = dataclasses.replace(text(), train={"tools": corpus(0, 0)})
    refuses(lambda: training.train(e, bank(), other, tmp_path), "tools")
    refuses(lambda: training.stored(tmp_path, bank()), "stage.json")


def test_adapters_are_of_one_bank(tmp_path):
    training.train(experiment(branch_tokens=8 * 4 * L), bank(), text(), tmp_path)
    models = {n: tiny_lms.one(tiny_lms.trained(), 1 - i) for i, n in enumerate(NAMES)}
    swapped = tiny_bank.trained_bank().with_lms(LM, models, None)
    refuses(lambda: training.stored(tmp_path, swapped), "language_models: e0, e1")
