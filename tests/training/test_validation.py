"""Validation while training: the figures, when they are made, what is kept, any layout, a stop."""

import dataclasses
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_model import prefix_mask, small, windows

from cr_jax import models
from cr_jax.config import TrainConfig, validation_period
from cr_jax.data import ByteTokenizer, load_corpus
from cr_jax.data.windows import eval_windows
from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.parallel import programs
from cr_jax.training import losses, validation
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.clock import Clock
from cr_jax.training.loop import Interrupted
from cr_jax.training.losses import CompressorLoss

EVERY = {"every": "4 steps", "every_windows": 21, "calibration_windows": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    tiny_run.write(place)
    return place


def run(folder, name, steps=10, evaluation=EVERY, stop=None, **options):
    e = tiny_run.experiment(folder, steps=steps, evaluation=evaluation, **options.pop("train", {}))

    def on_log(step, values):
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)

    return tiny_run.train(e, folder, workdir=name, on_log=on_log, **options)


@pytest.fixture(scope="module")
def whole(folder):
    return run(folder, "whole")


def lines(folder, name):
    found = [json.loads(x) for x in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [x for x in found if "valid_nll" in x]


def test_the_last_look_is_what_scoring_the_valid_windows_says(folder, whole):
    """By the plain way: logits at once, of the same 21 windows, with the trained weights."""
    assert [x["step"] for x in whole.looks] == [4, 8, 10]

    @jax.jit
    def plain(params, tokens):
        h, _ = models.Autoencoder(tiny_run.MODEL).apply(params, tokens)
        return jax.nn.log_softmax(h @ models.head(tiny_run.MODEL, params))

    for e, name in enumerate(tiny_run.NAMES):
        corpus = load_corpus(
            [f"files:{folder}/{name}-valid.txt"], ByteTokenizer(), folder / "cache"
        )
        tokens = jnp.asarray(eval_windows(corpus, 12, limit=40).spread(21).tokens)
        params = jax.tree.map(lambda x, e=e: jnp.asarray(x[e]), whole.params)
        log_p = plain(params, tokens)
        nll = -jnp.take_along_axis(log_p, tokens[..., None], -1)
        found = whole.looks[-1]["experts"][name]
        assert found["valid_nll"] == pytest.approx(float(jnp.mean(nll)), rel=1e-5)
        assert found["valid_tra"] == pytest.approx(
            float(jnp.mean(jnp.argmax(log_p, -1) == tokens)), abs=1e-6
        )
    # Negative control: the weights moved, and the look before saw others.
    before = [x["experts"]["digits"]["valid_nll"] for x in whole.looks]
    assert len(set(before)) == 3
    assert whole.looks[-1]["loss"] == pytest.approx(
        np.mean([v["valid_nll"] for v in whole.looks[-1]["experts"].values()])
    )


def test_every_look_is_a_line_of_the_metrics_and_training_is_left_as_it_was(folder, whole):
    written = [(x["step"], x["expert"], x["valid_nll"]) for x in lines(folder, "whole")]
    assert written == [
        (look["step"], n, look["experts"][n]["valid_nll"])
        for look in whole.looks
        for n in tiny_run.NAMES
    ]
    blind = run(folder, "blind", evaluation={})
    assert blind.looks == [] and blind.best is None and not lines(folder, "blind")
    assert tiny_run.same(blind.params, whole.params)


@pytest.mark.parametrize(
    "layout",
    [
        {"mode": "pmap", "devices": jax.devices()[:4]},
        {"devices": jax.devices()[:4]},
        {"devices": jax.devices()[:4], "fsdp": 2},
        {"devices": jax.devices()[:4], "train": {"experts_by": "map"}},
    ],
    ids=["pmap", "data", "fsdp", "map"],
)
def test_the_same_figures_on_any_layout(folder, whole, layout, request):
    found = run(folder, request.node.callspec.id, **layout)
    assert [x["step"] for x in found.looks] == [4, 8, 10]
    for ours, theirs in zip(found.looks, whole.looks, strict=True):
        for name, figures in theirs["experts"].items():
            assert ours["experts"][name] == pytest.approx(figures, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("stop", [2, 3, 6], ids="stopped at {}".format)
def test_a_stop_changes_no_look(folder, whole, stop):
    """Also one in the very step of a look: it is made up for when the run goes on."""
    name = f"stop{stop}"
    with pytest.raises(Interrupted, match=f"step {stop + 1}"):
        run(folder, name, stop=stop)
    found = run(folder, name)
    strip = lambda looks: [{k: v for k, v in x.items() if k != "seconds"} for x in looks]
    assert strip(found.looks) == strip(whole.looks)
    assert [(x["step"], x["expert"]) for x in lines(folder, name)] == [
        (s, n) for s in (4, 8, 10) for n in tiny_run.NAMES
    ]


def test_one_trace_serves_all_looks(folder, monkeypatch):
    programs.forget()
    traces, score = [], losses.CompressorLoss.score
    monkeypatch.setattr(losses.CompressorLoss, "score", lambda *a: traces.append(1) or score(*a))
    done = run(
        folder, "traced", steps=9, evaluation={"every": "1 steps"}, train={"experts_by": "vmap"}
    )
    assert len(done.looks) == 9 and len(traces) == 1
    programs.forget()


@pytest.mark.parametrize("keep", [True, False])
def test_the_best_step_stays_beside_the_newest(folder, monkeypatch, keep):
    """Losses by hand: the best of ten is step 3, after which twelve saves follow."""
    losses_of = dict(zip(range(1, 11), (5, 4, 1, 3, 3, 2, 2, 2, 2, 2)))
    look = validation.Validation.look

    def by_hand(self, step, params):
        best = self.best
        look(self, step, params)
        self.looks[-1]["loss"] = losses_of[step]
        return best is None or losses_of[step] < best["loss"]

    monkeypatch.setattr(validation.Validation, "look", by_hand)
    name = f"best{keep}"
    evaluation = {"every": "1 steps", "keep_best": keep}
    with pytest.raises(Interrupted, match="step 6"):
        run(folder, name, evaluation=evaluation, stop=5, train={"checkpoint_every": 0.0})
    done = run(folder, name, evaluation=evaluation, train={"checkpoint_every": 0.0})
    assert done.best["step"] == 3 and done.looks[-1]["step"] == 10
    kept = Checkpointer(folder / name / "checkpoints")
    assert kept.steps() == ([3, 9, 10] if keep else [9, 10])
    assert sorted(int(p.name) for p in kept.folder.iterdir() if p.is_dir()) == kept.steps()
    kept.close()


def test_seconds_until_a_target():
    looks = [
        {"seconds": float(s), "experts": {"a": {"valid_tra": a}, "b": {"valid_tra": b}}}
        for s, a, b in ((10, 0.5, 0.1), (20, 0.9, 0.2), (30, 0.8, 0.3), (40, 0.95, 0.4))
    ]
    assert validation.seconds_to(looks, 0.9) == {"a": 20.0, "b": None}
    assert validation.seconds_to(looks, 0.1) == {"a": 10.0, "b": 10.0}
    assert validation.seconds_to([], 0.1) == {}


@pytest.mark.parametrize(
    ("text", "steps"),
    [("96 tokens", [1, 2, 3, 4]), ("200 tokens", [3, 4]), ("3 steps", [3, 4]), ("99 steps", [4])],
)
def test_when_it_looks(folder, text, steps, request):
    found = run(folder, "when" + text.replace(" ", ""), steps=4, evaluation={"every": text})
    assert [x["step"] for x in found.looks] == steps  # the last step always


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5 hours",
        "0 steps",
        "-5 steps",
        "2.5 tokens",
        "inf seconds",
        "nan seconds",
        "a steps",
        "5  steps",
    ],
)
def test_periods_that_make_no_sense(text):
    with pytest.raises(UserError, match=r"config\.eval\.every=.* '200 steps'"):
        validation_period(text)


def test_periods():
    assert validation_period("2e6 tokens") == (2e6, "tokens")
    assert validation_period("2_000 steps") == (2000, "steps")
    assert validation_period("0.5 seconds") == (0.5, "seconds")


def test_masks_and_predictions_are_scored_as_training_counts_them():
    """`score` beside the loss itself, on short windows of a predictive model."""
    model = dataclasses.replace(small(), predictive=True)
    loss = CompressorLoss(model, TrainConfig(batch=4, steps=1))
    params = jax.jit(loss.init)(jax.random.key(0))
    mask = prefix_mask(model, [10, 1, 4, 7])
    rows = {"tokens": windows(model), "mask": mask}
    value, sums = jax.jit(loss)(params, rows, jnp.float32(22))
    found = jax.jit(loss.score)(params, {**rows, "counted": mask})
    assert found.keys() == sums.keys() and found["tokens"] == 22
    for key in found:
        np.testing.assert_allclose(found[key], sums[key], rtol=1e-5)
    total = (found["nll"] + loss.train.predict_weight * found["predicted_nll"]) / 22
    assert float(value) == pytest.approx(float(total), rel=1e-5)
    fewer = jax.jit(loss.score)(params, {**rows, "counted": mask.at[0].set(False)})
    assert fewer["tokens"] == 12 and fewer["nll"] < found["nll"]


def test_valid_text_without_tokens_is_refused(folder):
    e = tiny_run.experiment(folder, evaluation=EVERY)
    empty = eval_windows(
        load_corpus([f"files:{folder}/digits-valid.txt"], ByteTokenizer(), folder / "cache"),
        12,
        limit=1,
    )
    empty = dataclasses.replace(empty, mask=np.zeros_like(empty.mask))
    with pytest.raises(UserError, match="digits: its valid text has no token"):
        validation.Validation(
            e, CompressorLoss(tiny_run.MODEL, e.train), {"digits": empty}, Clock(e.train, 12, ())
        )


def test_objective_is_the_one_scoring_function(monkeypatch):
    """Whatever `token_scores` says is what a look says."""
    real = objective.token_scores
    monkeypatch.setattr(
        objective, "token_scores", lambda *a: real(*a)._replace(correct=jnp.ones(a[2].shape, bool))
    )
    loss = CompressorLoss(small(), TrainConfig(batch=4, steps=1))
    params = jax.jit(loss.init)(jax.random.key(0))
    tokens = windows(small())
    found = jax.jit(functools.partial(loss.score))(
        params, {"tokens": tokens, "counted": jnp.ones(tokens.shape, bool)}
    )
    assert found["correct"] == tokens.size
