"""The loop: durations, stops, what a workdir remembers."""

import collections
import dataclasses
import json
import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from cr_jax.config import to_dict
from cr_jax.errors import UserError
from cr_jax.parallel.plan import Plan
from cr_jax.training import loop, progress
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.loop import Interrupted
from cr_jax.training.validation import Validation
from cr_jax.training.workdir import same_run


@pytest.fixture(autouse=True)
def texts(tmp_path):
    tiny_run.write(tmp_path)


def lines(folder):
    return [json.loads(x) for x in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def stop_at(step, times=1, sent=signal.SIGINT):
    def on_log(now, values):
        if now == step:
            for _ in range(times):
                os.kill(os.getpid(), sent)

    return on_log


def test_a_run_learns_logs_every_step_and_is_done_at_once_when_called_again(tmp_path):
    e = tiny_run.experiment(tmp_path, steps=30)
    e = dataclasses.replace(e, optimizer=dataclasses.replace(e.optimizer, learning_rate=0.02))
    seen = []
    done = tiny_run.train(e, tmp_path, on_log=lambda step, values: seen.append(step))
    assert (done.step, done.tokens) == (30, 30 * 8 * 12)
    assert seen == list(range(1, 31))
    written = lines(tmp_path)
    assert [(x["step"], x["expert"]) for x in written] == [
        (s, n) for s in range(1, 31) for n in tiny_run.NAMES
    ]
    assert written[-1]["nll"] < 0.7 * written[0]["nll"]
    assert written[-1]["seconds"] <= done.seconds
    assert list((tmp_path / "run").glob("events.*"))
    # The same command again: nothing to do, the same weights.
    again = tiny_run.train(e, tmp_path, on_log=lambda *_: seen.append("again"))
    assert again.step == 30 and tiny_run.same(again.params, done.params)
    assert "again" not in seen and lines(tmp_path) == written
    # A longer run goes on from there.
    longer = dataclasses.replace(e, train=dataclasses.replace(e.train, steps=32))
    assert tiny_run.train(longer, tmp_path).step == 32
    steps = [x["step"] for x in lines(tmp_path) if x["expert"] == "digits"]
    assert steps == list(range(1, 33))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_itself_and_goes_on_bit_for_bit(tmp_path, sent):
    e = tiny_run.experiment(tmp_path, steps=6)
    (tmp_path / "other").mkdir()
    whole = tiny_run.train(tiny_run.experiment(tmp_path, steps=6), tmp_path / "other")
    before = signal.getsignal(sent)  # a background job of a shell starts with SIGINT ignored
    with pytest.raises(Interrupted, match=r"stopped at step \d, saved; run the same command"):
        tiny_run.train(e, tmp_path, on_log=stop_at(2, sent=sent))
    assert signal.getsignal(sent) == before
    checkpoints = Checkpointer(tmp_path / "run" / "checkpoints")
    assert checkpoints.steps() == [3]  # step 2 is read while step 3 is under way
    checkpoints.close()
    done = tiny_run.train(e, tmp_path)
    assert done.step == 6 and tiny_run.same(done.params, whole.params)
    counts = collections.Counter((x["step"], x["expert"]) for x in lines(tmp_path))
    assert set(counts.values()) == {1} and len(counts) == 12
    # Negative control: another seed is another run.
    other = dataclasses.replace(e, seed=1)
    (tmp_path / "seed").mkdir()
    assert not tiny_run.same(tiny_run.train(other, tmp_path / "seed").params, whole.params)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tiny_run.train(tiny_run.experiment(tmp_path), tmp_path, on_log=stop_at(2, times=2))
    assert Checkpointer(tmp_path / "run" / "checkpoints").steps() == []


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_good(tmp_path):
    e = tiny_run.experiment(tmp_path, steps=40, checkpoint_every=0.0)
    good = dataclasses.replace(e, train=dataclasses.replace(e.train, steps=3))
    bad = dataclasses.replace(
        e, optimizer=dataclasses.replace(e.optimizer, learning_rate=1e30, clip=0.0)
    )
    with pytest.raises(UserError, match=r"the loss of digits.* not finite at step \d") as caught:
        tiny_run.train(bad, tmp_path)
    assert "\n" not in str(caught.value) and "learning_rate" in str(caught.value)
    # Step 1's loss is finite, the weights that it leaves are too; step 2's loss is not.
    assert "at step 2;" in str(caught.value)
    kept = Checkpointer(tmp_path / "run" / "checkpoints")
    assert kept.steps() == [1]
    kept.close()
    assert [(x["step"], np.isfinite(x["nll"])) for x in lines(tmp_path)] == [(1, True)] * 2
    (tmp_path / "good").mkdir()
    assert tiny_run.train(good, tmp_path / "good").step == 3  # at a sane rate the run is fine


def spoil(monkeypatch, change):
    """Steps whose outcome goes through `change(number, state, sums)`, inside the program."""
    make = loop.make_train_step

    def spoilt(*arguments):
        step = make(*arguments)
        return lambda state, batch, progress: change(state.step + 1, *step(state, batch, progress))

    monkeypatch.setattr(loop, "make_train_step", spoilt)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_the_step_is_named_between_logged_ones_without_waiting_for_the_next(
    tmp_path, monkeypatch, mode
):
    under_way, read = [], []

    class Trace(loop.Trace):
        def after(self, done, sums):
            under_way.append((done, sums))

    def check_finite(step, sums, names):
        read.append((step, sums, under_way[-1]))
        return progress.check_finite(step, sums, names)

    monkeypatch.setattr(loop, "Trace", Trace)
    monkeypatch.setattr(loop, "check_finite", check_finite)
    spoil(
        monkeypatch,
        lambda number, state, sums: (
            state,
            sums | {"nll": jnp.where(number == 5, jnp.nan, sums["nll"])},
        ),
    )
    e = tiny_run.experiment(tmp_path, steps=90, log_every=40)
    with pytest.raises(UserError, match=r"the loss of digits, .* not finite at step 5;"):
        tiny_run.train(e, tmp_path, mode=mode)
    assert [step for step, *_ in read] == [1, 2, 3, 4, 5]
    for step, sums, (newest, its_sums) in read:
        assert newest == step + 1 and sums is not its_sums
    assert Checkpointer(tmp_path / "run" / "checkpoints").steps() == []


@pytest.mark.parametrize(("field", "mode"), [("params", "jit"), ("opt_state", "pmap")])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path, monkeypatch, field, mode):
    """Though the loss is: it was made before the update."""
    spoil(
        monkeypatch,
        lambda number, state, sums: (
            state.replace(
                **{
                    field: jax.tree.map(
                        lambda x: (
                            x.at[..., -1:].set(jnp.where(number == 3, jnp.nan, x[..., -1:]))
                            if x.dtype == jnp.float32 and x.ndim
                            else x
                        ),
                        getattr(state, field),
                    )
                }
            ),
            sums,
        ),
    )
    e = tiny_run.experiment(tmp_path, steps=9, checkpoint_every=0.0)
    with pytest.raises(UserError, match=r"parameters .* not finite after step 3;") as caught:
        tiny_run.train(e, tmp_path, mode=mode, devices=jax.devices()[:2])
    assert "\n" not in str(caught.value) and "learning_rate" in str(caught.value)
    kept = Checkpointer(tmp_path / "run" / "checkpoints")
    assert kept.steps() == [1, 2]
    kept.close()


def test_a_run_may_last_a_number_of_tokens(tmp_path):
    done = tiny_run.train(tiny_run.experiment(tmp_path, tokens=4 * 96 - 1), tmp_path)
    assert done.step == 4  # the step that passes the number is the last


@pytest.fixture
def clocked(monkeypatch):
    """A clock that goes on by 1 s in a step, 1,000 in the compiler, 50 at a save, 7 at a look."""
    now = [0.0]
    monkeypatch.setattr(
        "cr_jax.training.clock.time", types.SimpleNamespace(perf_counter=lambda: now[0])
    )
    monkeypatch.setattr(
        "cr_jax.training.phases.time", types.SimpleNamespace(perf_counter=lambda: now[0])
    )

    def taking(owner, name, seconds, change=lambda made: made):
        real = getattr(owner, name)

        def slow(*arguments):
            now[0] += seconds
            return change(real(*arguments))

        monkeypatch.setattr(owner, name, slow)

    def one_second(program):
        def run(*arguments):
            now[0] += 1
            return program.run(*arguments)

        return dataclasses.replace(program, run=run)

    taking(Plan, "compile_step", 1000, one_second)
    taking(Plan, "compile_sums", 1000)
    taking(Checkpointer, "save", 50)
    taking(Validation, "look", 7)
    return now


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_seconds_are_those_of_the_steps_alone_also_over_a_stop(tmp_path, clocked, mode):
    e = tiny_run.experiment(
        tmp_path, seconds=10.0, checkpoint_every=2.5, evaluation={"every": "4 seconds"}
    )
    with pytest.raises(Interrupted, match="step 6"):  # step 5 is read while 6 is under way
        tiny_run.train(e, tmp_path, mode=mode, on_log=stop_at(5))
    done = tiny_run.train(e, tmp_path, mode=mode)
    assert (done.step, done.seconds) == (10, 10.0)
    trained = [x for x in lines(tmp_path) if "nll" in x and x["expert"] == "digits"]
    assert [x["step"] for x in trained] == list(range(1, 11))
    # What is read a step later is logged a second later, but before a save or a look, and last.
    assert all(0 <= x["seconds"] - x["step"] <= 1 for x in trained)
    assert [(x["step"], x["seconds"]) for x in done.looks] == [(4, 4.0), (8, 8.0), (10, 10.0)]
    # Two starts.  Saved at 3, 6 (stopped), 9 and, last, at 10; best looks are saved too.
    spent = done.phases
    assert spent["step"] == 10 and spent["compile"] == 4000 and spent["validate"] == 21
    assert spent["checkpoint"] >= 200 and spent["checkpoint"] % 50 == 0
    again = tiny_run.train(e, tmp_path, mode=mode)
    assert (again.step, again.seconds) == (10, 10.0)
    assert again.looks == done.looks and again.phases["compile"] == 4000
    # The record says so; a longer run goes on from there, not from its start.
    longer = dataclasses.replace(e, train=dataclasses.replace(e.train, seconds=12.0))
    more = tiny_run.train(longer, tmp_path, mode=mode)
    assert (more.step, more.seconds) == (12, 12.0)


def test_a_step_that_is_compiled_in_its_call_does_not_count(tmp_path, clocked, monkeypatch):
    """As under pmap of several processes."""
    compile_step = Plan.compile_step
    monkeypatch.setattr(
        Plan,
        "compile_step",
        lambda *arguments: dataclasses.replace(compile_step(*arguments), compiled=False),
    )
    done = tiny_run.train(tiny_run.experiment(tmp_path, steps=5), tmp_path)
    assert (done.step, done.seconds) == (5, 4.0)
    assert (done.phases["step"], done.phases["compile"]) == (4, 1001)


@pytest.mark.parametrize(
    "group,field,value",
    [
        ("optimizer", "learning_rate", 0.5),
        ("train", "batch", 16),
        ("train", "nested", 0.5),
        ("data", "mode", "padded"),
        ("tokenizer", "vocab_size", 300),
        ("", "seed", 3),
        ("model", "d_latent", 8),
        ("names", "", ""),
    ],
    ids=lambda x: str(x),
)
def test_a_workdir_refuses_another_run(tmp_path, finished, group, field, value):
    e, folder = finished
    model = tiny_run.MODEL
    if group == "names":
        e = tiny_run.experiment(folder, steps=2, names=("letters", "digits"))
    elif group == "model":
        model = dataclasses.replace(model, **{field: value})
    elif group:
        part = dataclasses.replace(getattr(e, group), **{field: value})
        e = dataclasses.replace(e, **{group: part})
    else:
        e = dataclasses.replace(e, **{field: value})
    with pytest.raises(UserError, match="new --workdir") as caught:
        tiny_run.train(e, folder, model=model)
    assert "\n" not in str(caught.value)
    if group not in ("names", "model"):
        assert field in str(caught.value)


def test_a_workdir_refuses_other_training_text(finished):
    e, folder = finished
    (folder / "more.txt").write_text("0123 456")
    domains = {
        **e.data.domains,
        "digits": dataclasses.replace(
            e.data.domains["digits"], train=(f"files:{folder}/more.txt",)
        ),
    }
    e = dataclasses.replace(e, data=dataclasses.replace(e.data, domains=domains))
    with pytest.raises(UserError, match=r"data: domains\.digits\.train"):
        tiny_run.train(e, folder)


@pytest.mark.parametrize(
    "change",
    [{"train": {"log_every": 7}}, {"train": {"keep_checkpoints": 1}}, {"eval": {"batch": 2}}],
    ids=str,
)
def test_a_workdir_takes_other_logging_and_evaluation(finished, change):
    e, folder = finished
    for group, fields in change.items():
        e = dataclasses.replace(e, **{group: dataclasses.replace(getattr(e, group), **fields)})
    assert tiny_run.train(e, folder).step == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    tiny_run.write(folder)
    e = tiny_run.experiment(folder, steps=2)
    tiny_run.train(e, folder)
    return e, folder


def test_a_run_does_not_go_on_with_other_text(tmp_path):
    e = tiny_run.experiment(tmp_path, steps=2)
    tiny_run.train(e, tmp_path)
    more = dataclasses.replace(e, train=dataclasses.replace(e.train, steps=3))
    place = tmp_path / "digits-train.txt"
    text = place.read_text()
    place.write_text(text.replace("1", "2"))
    with pytest.raises(UserError, match="training text of digits, or the tokenizer"):
        tiny_run.train(more, tmp_path)
    place.write_text(text)
    assert tiny_run.train(more, tmp_path).step == 3


def test_settings_that_an_older_version_lacked_were_at_their_defaults():
    record = {
        "experiment": to_dict(tiny_run.experiment("x")),
        "model": to_dict(tiny_run.MODEL),
        "experts": ["a"],
        "texts": {"a": "1"},
    }
    older = json.loads(json.dumps(record))
    del older["texts"], older["experiment"]["train"]["max_epochs"], older["model"]["predictive"]
    same_run(older, record)
    older["experiment"]["train"]["predict_weight"] = 0.9
    with pytest.raises(UserError, match="train: predict_weight"):
        same_run(older, record)


@pytest.mark.parametrize(
    ("field", "harmless", "used"),
    [("ema", 0.0, 0.9), ("hidden_final", 0.5, 0.0), ("hidden_weight", 1.0, 0.2)],
)
def test_settings_that_this_version_lacks_must_not_have_mattered(field, harmless, used):
    record = {
        "experiment": to_dict(tiny_run.experiment("x", hidden=0.5)),
        "model": to_dict(tiny_run.MODEL),
        "experts": ["a"],
        "texts": {"a": "1"},
    }
    older = json.loads(json.dumps(record))
    older["experiment"]["train"][field] = harmless
    same_run(older, record)
    older["experiment"]["train"][field] = used
    with pytest.raises(UserError, match=rf"train\.{field}={used}, .* new --workdir") as caught:
        same_run(older, record)
    assert "\n" not in str(caught.value)


def test_latent_queries_of_an_older_version_go_on_as_plain_ones_only():
    record = {
        "experiment": to_dict(tiny_run.experiment("x")),
        "experts": ["a"],
        "texts": {},
        "model": to_dict(dataclasses.replace(tiny_run.MODEL, bottleneck="query")),
    }
    older = json.loads(json.dumps(record))
    del older["model"]["rotary_values"]
    with pytest.raises(UserError, match="model: rotary_values"):
        loop.same_run(older, record)
    record["model"]["rotary_values"] = False
    loop.same_run(older, record)


def test_ctrl_c_in_the_last_step_stops_too(tmp_path):
    e = tiny_run.experiment(tmp_path, steps=3)
    with pytest.raises(Interrupted, match="step 3"):
        tiny_run.train(e, tmp_path, on_log=stop_at(3))
    assert tiny_run.train(e, tmp_path).step == 3
