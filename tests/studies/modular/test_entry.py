"""The whole study on three alphabets: branches beat the dense model, and it can fail."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_bank
import tiny_corpora

from cr_jax.config import LmConfig, Scoring
from cr_jax.errors import UserError
from cr_jax.models import lm, objective
from cr_jax.studies.interface import Context
from cr_jax.studies.modular import entry, grow, merges, models
from cr_jax.studies.modular.measure import Models, measure

WINDOW = tiny_corpora.WINDOW
KINDS = dict(zip(("e0", "e1", "e2"), tiny_corpora.NAMES))  # the tiny bank's names of experts
LM = LmConfig(vocab_size=258, d_model=16, heads=2, d_ff=24, blocks=1, dtype="float32")


@functools.cache
def corpora():
    texts = {e: lambda seed, k=k: tiny_corpora.words(k, seed) for e, k in KINDS.items()}
    texts["mixed"] = lambda seed: "\n".join(tiny_corpora.words(k, seed) for k in KINDS.values())
    return tiny_corpora.corpora(texts, unseen=("mixed",))


def rows(names, count, seed):
    """Training windows of each set of domains [K, count, L]."""
    rng, found = np.random.default_rng(seed), []
    for own in names:
        picked = []
        for _ in range(count):
            tokens = corpora().train[str(rng.choice(own))].tokens
            start = rng.integers(len(tokens) - WINDOW)
            picked.append(tokens[start : start + WINDOW])
        found.append(np.stack(picked).astype(np.int32))
    return jnp.asarray(np.stack(found))


@functools.partial(jax.jit, static_argnums=2)
def _step(params, state, tx, tokens):
    def loss(own, tokens):
        h, weights = lm.make_lm(LM).apply(own, tokens), jnp.full(tokens.shape, 1 / tokens.size)
        return objective.linear_cross_entropy(h, lm.head(LM, own), tokens, weights)[0]

    grads = jax.vmap(jax.grad(loss))(params, tokens)
    with jax.numpy_dtype_promotion("standard"):
        updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state


def train(start, names, steps, seed):
    """Models of as many sets of domains, all from one start."""
    tx = optax.adam(1e-2)
    params = jax.tree.map(lambda x: jnp.stack([x] * len(names)), start)
    state = tx.init(params)
    for i in range(steps):
        params, state = _step(params, state, tx, rows(names, 8, (seed, i)))
    return [jax.tree.map(lambda x, k=k: np.asarray(x[k]), params) for k in range(len(names))]


@functools.cache
def language_models():
    fresh = jax.jit(lm.init, static_argnums=0)(LM, jax.random.key(0))
    every = tuple(KINDS)
    (seed,) = train(fresh, [every], 40, 0)
    # One program trains them all.
    text = [*((n,) for n in KINDS), every, every, every, ("e0", "e1"), ("e2",)]
    made = train(seed, text, 60, 1)
    experts, parts = dict(zip(KINDS, made[:3])), dict(zip(("part_00", "part_01"), made[6:]))
    arm = lambda params: types.SimpleNamespace(
        config=LM, params=params, train_tokens=1000, train_flops=1e6
    )
    return types.SimpleNamespace(
        config=LM,
        seed=seed,
        experts=experts,
        arms={
            "branches": arm(experts),
            "seed": arm({"seed": seed}),
            "dense": arm({"dense": made[3]}),
            "random_split": arm(dict(zip("ab", made[4:6]))),
            "partition_2": arm(parts),
        },
    )


@functools.cache
def context(predicted=True):
    experiment = tiny_corpora.experiment(experts_by="map")
    model = dataclasses.replace(experiment.model, vocab_size=258, predictive=predicted)
    rule = Scoring(predicted=True) if predicted else Scoring()
    bank = tiny_bank.in_memory(3, model, rule=rule)
    experiment = dataclasses.replace(
        experiment, model=model, eval=dataclasses.replace(experiment.eval, batch=16)
    )
    return Context(experiment, corpora(), bank, {}, language_models())


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        # The gate's own training is tested with the baselines.
        small = entry.baselines.Budget(gate_steps=6, gate_batch=8)
        fit = functools.partial(entry.baselines.fit, budget=small)
        patch.setattr(entry, "baselines", types.SimpleNamespace(fit=fit))
        patch.setattr(merges, "TEMPERS", (0.4,))  # the choice is tested in test_merges.py
        return entry.run(context())


def test_every_arm_is_there_and_the_claims_hold(report):
    found = report["modular"]
    assert found["settings"]["main_prefix"] == 32 and list(found["prefix"]) == ["16", "32"]
    after = found["prefix"]["32"]["after"]
    assert after.keys() >= {
        *("dense", "seed", "label", "label_encoder", "top1", "top1_code_length", "top1_bigrams"),
        *("top1_candidates", "top1_rebuilding", "gate", "past", "mixture", "mixture_2", "merged"),
        *("random_split", "partition_2", "oracle_segment", "oracle_window", "oracle_token"),
    }
    ppl = {name: row["mean_ppl_vs_dense"] for name, row in after.items()}
    assert ppl["label"] < 0.97 and ppl["top1"] < 0.97 and ppl["mixture"] < 0.97
    assert ppl["random_split"] > ppl["top1"] and ppl["seed"] > 1 == ppl["dense"]
    assert ppl["oracle_token"] < ppl["oracle_window"] <= ppl["top1"] + 1e-6
    assert found["prefix"]["32"]["agreement"]["top1"]["label"] > 0.9
    assert found["arms"].keys() >= {"top1_16", "top1_32", "past", "dense"}
    assert found["partition"]["2"] == after["partition_2"]
    assert 0 <= found["scheduling_flops_share"] < 1
    assert found["scheduling_flops_share"] == found["scheduling"]["32"]["flops_share"]
    json.dumps(found, allow_nan=False)


def test_texts_that_switch_domains_are_followed(report):
    mixed = report["modular"]["mixed"]
    assert mixed.keys() == {"spliced", "mixed"}
    spliced = {n: row["mean_ppl_vs_dense"] for n, row in mixed["spliced"]["arms"].items()}
    assert spliced["label"] < spliced["oracle_window"]  # no single expert is right
    assert spliced["mixture"] < spliced["top1_32"]
    assert "label" not in mixed["mixed"]["arms"] and "mixture" in mixed["mixed"]["arms"]


def test_the_section_shows_what_was_found(report):
    section = entry.section(report)
    names = [row[0] for row in section.rows]
    assert {len(row) for row in section.rows} == {len(section.head)}
    assert names[0] == "oracle_token (a bound)" and "dense" in names
    dense = next(row for row in section.rows if row[0] == "dense")
    assert dense[1] == "+0.0 %"
    assert "choose the label's expert in" in section.finding
    assert "predict the same, bit for bit" in section.finding
    other = {**report["modular"], "grow": {**report["modular"]["grow"], "bit_identical": False}}
    assert "do NOT predict the same" in entry.section({"modular": other}).finding


def test_a_further_expert_leaves_the_others_bit_identical(report, monkeypatch):
    grown = report["modular"]["grow"]
    assert grown["bit_identical"] is True
    assert 0 <= grown["changed_share"] < 0.05 and grown["own_ppl"] < 0.97  # alphabets are apart
    assert grown["rules"].keys() == {"top1", "top1_code_length", "top1_bigrams"}
    made = context()
    windows = {n: made.text.test[n] for n in KINDS}
    assert grow.bit_identical(Models(made, language_models()), windows)
    real, calls = grow.model_nats, []

    def disturbed(*given):
        calls.append(given)
        found = real(*given)
        return np.nextafter(found, 0) if len(calls) == 2 else found

    monkeypatch.setattr(grow, "model_nats", disturbed)
    assert not grow.bit_identical(Models(made, language_models()), windows)


def test_spliced_windows_are_shown_with_who_speaks(report):
    found = report["modular_document"]
    assert found["label_share"] > 0.6 and {t["label"] for w in found["windows"] for t in w} <= {
        *KINDS
    }
    for window in found["windows"]:
        assert len(window) == WINDOW and window[0]["expert"] == "seed"


def test_nats_of_a_run_are_its_models(report):
    made, lms = context(), language_models()
    windows = {n: made.text.test[n].spread(3) for n in KINDS}
    found = measure(Models(made, lms), windows, (16,), {})["e1"]
    for e, name in enumerate(KINDS):
        params, tokens = jax.tree.map(jnp.asarray, (lms.experts[name], windows["e1"].tokens))
        own = jax.jit(lm.make_lm(LM).apply)(params, tokens)
        nll = objective.token_scores(own, lm.head(LM, params), tokens).nll
        np.testing.assert_allclose(found.experts[e], nll, atol=1e-4)
    assert set(found.singles) == {"dense"} and set(found.sets) == {"random_split", "partition_2"}
    assert found.sets["partition_2"].shape == (2, 3, WINDOW)
    assert found.code_length.shape == found.bigrams.shape == (3, 3, WINDOW)
    assert found.bytes.sum() == sum(
        len(made.text.tokenizer.decode(row).encode()) for row in windows["e1"].tokens
    )
    assert found.choices["rebuilding"][16].shape == (3, 3) and "gate" not in found.choices


def test_a_gate_that_cannot_be_trained_is_left_out_with_its_reason(monkeypatch):
    def refuse(*_):
        raise UserError("no room")

    monkeypatch.setattr(entry.baselines, "fit", refuse)
    assert entry._gate(context(), (16,)) == (None, {"gate": "no room"})


def test_rebuilding_is_no_code_length():
    made = context(predicted=False)
    windows = {"e0": made.text.test["e0"].spread(2)}
    assert measure(Models(made, language_models()), windows, (), {})["e0"].code_length is None


@pytest.mark.parametrize(
    ("experts", "says"), [(None, "has no language models"), ("e0", "no language model for e1, e2")]
)
def test_a_run_without_language_models_is_refused(experts, says):
    lms = language_models()
    if experts:
        few = types.SimpleNamespace(**{**vars(lms), "experts": {experts: lms.experts[experts]}})
    made = dataclasses.replace(context(), language_models=few if experts else None)
    with pytest.raises(UserError, match=says):
        entry.run(made)


@pytest.mark.parametrize(
    ("tokens", "domains", "says"),
    [(None, 3, "this run trains none"), (0, 3, "this run trains none"), (5, 1, "2 or more")],
)
def test_what_can_be_known_before_is_refused_before(tokens, domains, says):
    data = types.SimpleNamespace(domains=dict.fromkeys(range(domains)))
    modular = {} if tokens is None else {"modular": types.SimpleNamespace(seed_tokens=tokens)}
    with pytest.raises(UserError, match=says):
        models.check(types.SimpleNamespace(data=data, **modular))
    models.check(
        types.SimpleNamespace(
            data=types.SimpleNamespace(domains={1: 1, 2: 2}),
            modular=types.SimpleNamespace(seed_tokens=5),
        )
    )
