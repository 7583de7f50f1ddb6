"""Gate and language models: they route, they fail where nothing can be known, they stop in time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_corpora
from tiny_corpora import NAMES, WINDOW

from cr_jax.config import OptimizerConfig
from cr_jax.data import Mixture
from cr_jax.data.experiment_text import Corpora, sized
from cr_jax.errors import UserError
from cr_jax.studies import baselines
from cr_jax.studies.baselines import gate
from cr_jax.studies.baselines.interface import Budget
from cr_jax.training import loop
from cr_jax.training.losses import ClassifierLoss, LanguageModelLoss

LENGTHS = (16, WINDOW)
BUDGET = Budget(gate_steps=24, gate_batch=8)


def experiment(**train):
    return tiny_corpora.experiment(**{"experts_by": "map", **train})


@functools.cache
def fitted(name):
    return baselines.fit(name, tiny_corpora.corpora(unseen=()), experiment(), LENGTHS, BUDGET)


@pytest.mark.parametrize("name", ["gate", "lm"])
def test_three_alphabets_are_told_apart(name):
    found = baselines.measure(fitted(name), tiny_corpora.corpora(), LENGTHS, 8)
    assert found["64"] >= 0.97 and found["16"] >= 0.9
    assert found["ood"]["refitted"] == (name == "lm")
    note = found["note"]
    assert note["steps"] == (24 if name == "gate" else 30)
    assert note["tokens_per_domain"] == note["steps"] * 8 * WINDOW


@pytest.mark.parametrize("name", ["gate", "lm"])
def test_shuffled_labels_are_routed_at_chance(name):
    c = tiny_corpora.corpora()
    mixed = Mixture(list(c.train.values()), [1, 1, 1])
    c = Corpora(c.tokenizer, dict.fromkeys(NAMES, mixed), c.valid, c.test)
    found = baselines.measure(baselines.fit(name, c, experiment(), LENGTHS, BUDGET), c, LENGTHS, 8)
    # A domain's windows share one alphabet and may all go one way: mean of three, each 0 or 1.
    assert found["64"] <= 0.7
    right = [found["confusion"][n][n] for n in NAMES]
    assert sum(right) < 0.7 * sum(sum(row.values()) for row in found["confusion"].values())


@pytest.mark.parametrize("name", ["gate", "lm"])
def test_a_score_depends_on_the_prefix_it_is_for_only(name):
    w = tiny_corpora.corpora().test["digits"]
    other = w.tokens.copy()
    other[:, 16:] = tiny_corpora.corpora().test["letters"].tokens[0, 16:]
    whole, changed = (fitted(name).predict(t, w.mask, LENGTHS) for t in (w.tokens, other))
    assert whole.shape == (2, 3, len(w))
    np.testing.assert_allclose(whole[0], changed[0], rtol=1e-5, atol=1e-5)
    assert np.abs(whole[1] - changed[1]).max() > 0.1


def test_each_language_model_learns_from_its_own_domain_only():
    c = tiny_corpora.corpora()
    swapped = Corpora(c.tokenizer, {**c.train, "marks": c.train["letters"]}, c.valid, c.test)
    w = c.test["marks"]
    a = fitted("lm").predict(w.tokens, w.mask, LENGTHS)
    b = baselines.fit("lm", swapped, experiment(), LENGTHS, BUDGET).predict(
        w.tokens, w.mask, LENGTHS
    )
    np.testing.assert_allclose(a[:, :2], b[:, :2], rtol=1e-4)
    assert (a[:, 2] > b[:, 2] + 0.5).all()


def test_a_budget_of_tokens_or_seconds_ends_training():
    c = tiny_corpora.corpora()
    few = baselines.fit("lm", c, experiment(), LENGTHS, Budget(lm_tokens=3 * 8 * WINDOW))
    assert few.note["steps"] == 3
    timed = baselines.fit("lm", c, experiment(steps=10**8), LENGTHS, Budget(seconds=0.2))
    assert 1 <= timed.note["steps"] < 10**6


def test_a_gate_does_not_see_padding():
    model = sized(experiment().model, tiny_corpora.TOKENIZER)
    net = gate.Gate(model, 3)
    tokens = jax.random.randint(jax.random.key(0), (4, WINDOW), 0, 256)
    mask = jnp.arange(WINDOW)[None] < jnp.array([1, 5, 30, WINDOW])[:, None]
    params = jax.jit(net.init)(jax.random.key(1), tokens, mask)
    params["params"]["classes"] = jax.random.normal(jax.random.key(2), (16, 3))
    apply = jax.jit(net.apply)
    a, b = (np.asarray(apply(params, jnp.where(mask, tokens, fill), mask)) for fill in (0, 7))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, np.asarray(apply(params, tokens, jnp.ones_like(mask))))


@pytest.mark.parametrize("name", ["gate", "lm"])
def test_a_loss_that_is_not_finite_is_named(name):
    wild = OptimizerConfig(name="adamw", learning_rate=1e30, clip=0.0)
    with pytest.raises(UserError, match=r"not finite at step [23];") as caught:
        baselines.fit(
            name,
            tiny_corpora.corpora(unseen=()),
            dataclasses.replace(experiment(), optimizer=wild),
            LENGTHS,
            BUDGET,
        )
    assert "learning_rate" in str(caught.value) and "\n" not in str(caught.value)


def test_baselines_train_in_memory(tmp_path, monkeypatch):
    """By the loop that trains compressors, without a file."""
    monkeypatch.chdir(tmp_path)
    steps = []
    real = loop.make_train_step
    monkeypatch.setattr(
        loop, "make_train_step", lambda loss, *rest: steps.append(type(loss)) or real(loss, *rest)
    )
    few = dataclasses.replace(BUDGET, gate_steps=2, lm_tokens=2 * 8 * WINDOW)
    for name in ("gate", "lm"):
        note = baselines.fit(name, tiny_corpora.corpora(unseen=()), experiment(), LENGTHS, few).note
        assert note["steps"] == 2 and np.isfinite(note["last_loss"]).all()
        assert len(note["last_loss"]) == (1 if name == "gate" else 3)
    assert steps == [ClassifierLoss, LanguageModelLoss]
    assert not list(tmp_path.iterdir())


def test_training_is_the_same_by_vmap_and_by_map_and_by_pmap():
    c, few = tiny_corpora.corpora(), dataclasses.replace(BUDGET, lm_tokens=4 * 8 * WINDOW)
    w = c.test["letters"]
    e = experiment(experts_by="vmap")
    found = [
        baselines.fit("lm", c, x, LENGTHS, few).predict(w.tokens, w.mask, LENGTHS)
        for x in (e, experiment(), dataclasses.replace(e, parallel="pmap"))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-3)
