"""What a run tells of itself: banner, where the time goes, a trace, what it hangs in."""

import dataclasses
import json
import re
import threading

import jax
import numpy as np
import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.config import TrainConfig
from cr_jax.errors import UserError
from cr_jax.parallel import plan as parallel
from cr_jax.training import banner, progress, watchdog
from cr_jax.training.clock import Clock
from cr_jax.training.loop import Job
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.phases import PHASES, Phases, shares
from cr_jax.training.trace import Trace


@pytest.fixture
def tick(monkeypatch):
    """Phases' clock, set by hand."""
    now = [0.0]
    monkeypatch.setattr("cr_jax.training.phases.time.perf_counter", lambda: now[0])
    return now


def test_every_second_belongs_to_one_phase(tick):
    phases = Phases()
    for seconds, name in ((1, "data"), (2, "step"), (4, "checkpoint"), (8, "step")):
        tick[0] += seconds
        phases.enter(name)
    assert {k: v for k, v in phases.news().items() if v} == {
        "start": 1,
        "data": 2,
        "step": 4,
        "checkpoint": 8,
    }
    tick[0] += 16
    assert phases.news()["step"] == 16 and phases.seconds()["step"] == 20
    assert sum(phases.seconds().values()) == tick[0]
    assert shares(phases.seconds()) == ("step 64.5 %, checkpoint 25.8 %, data 6.5 %, start 3.2 %")


def test_a_run_says_what_it_will_do_and_where_the_time_went(tmp_path):
    tiny_run.write(tmp_path)
    e, said = tiny_run.experiment(tmp_path, steps=3, checkpoint_every=0.0), []
    done = tiny_run.train(e, tmp_path, devices=jax.devices()[:4], fsdp=2, say=said.append)
    layout, chosen, length, time = said
    assert layout.startswith(
        "jit over data 2 x fsdp 2 x expert 1; 96 tokens per step and expert, 192 in all"
    )
    assert re.search(r"[\d.]+ MiB per device \([\d.]+ MiB of it the state\)", layout)
    assert chosen == "float32, attention xla, row kernels xla (no GPU)"
    assert length == "3 steps, at step 0: the time left shows after the first steps"
    assert re.fullmatch(r"time: (\w+ [\d.]+ %(, |$))+", time) and "compile" in time
    assert done.phases.keys() == PHASES.keys() and done.phases["checkpoint"] > 0
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["seconds_step"] > 0 and line["seconds_data"] >= 0
    # Saved after step 2 and step 3; the line of step 3 is the first after a save.
    saved = {x["step"]: x["seconds_checkpoint"] for x in lines}
    assert saved[1] == 0 < saved[3]
    # Called again there is nothing to do, and that is said.
    again = []
    tiny_run.train(e, tmp_path, say=again.append)
    assert again == ["training was complete at step 3; nothing to train"]


@pytest.mark.parametrize(
    "train,elapsed,step,kind,words",
    [
        ({"seconds": 90.0}, 0, 0, "cpu", "90 seconds, at step 0: 90 s left"),
        ({"seconds": 7200.0}, 1800.0, 5, "cpu", "7,200 seconds, at step 5: 90 min left"),
        (
            {"steps": 100},
            600.0,
            20,
            "cpu",
            "100 steps, at step 20: 40 min left at the speed so far",
        ),
        (
            {"tokens": 10**12},
            0,
            0,
            "NVIDIA H100 80GB HBM3",
            "1,000,000,000,000 tokens, at step 0: .* if it reaches 40% of the chip's peak",
        ),
        ({"steps": 100}, 0, 0, "cpu", "after the first steps"),
    ],
    ids=range(5),
)
def test_the_time_that_is_known_before_the_first_step(
    monkeypatch, train, elapsed, step, kind, words
):
    peak = banner.peak_flops
    monkeypatch.setattr(banner, "peak_flops", lambda device: peak(kind))
    train = TrainConfig(batch=8, **train)
    plan = parallel.make_plan("jit", 2, 8, 1, jax.devices()[:1])
    clock = Clock(train, 12, (), elapsed=elapsed)
    found = banner.lines(plan, None, CompressorLoss(tiny_run.MODEL, train), train, clock, step)
    assert re.search(words, found[2]) and "per device" not in found[0]


def test_text_that_will_be_read_too_often_is_named():
    sizes = {"logs": 900, "wiki": 1_001, "none": 0}
    repeats = lambda train, positions=sizes: banner.repeats(sizes, positions, train, 10)
    found = repeats(TrainConfig(batch=10, steps=100))
    assert len(found) == 1 and found[0].startswith("logs: its 900 tokens will be read 11 times")
    assert repeats(TrainConfig(batch=10, tokens=10_000)) == found
    assert not repeats(TrainConfig(batch=10, seconds=1e9))
    limited = repeats(TrainConfig(batch=10, steps=100, max_epochs=4.0))
    assert [x.partition(": it has")[0] for x in limited] == [
        "logs: learns for 36% of the run: then it has read its 900 tokens 4 times "
        "(config.train.max_epochs)",
        "wiki: learns for 40% of the run: then it has read its 1,001 tokens 4 times "
        "(config.train.max_epochs)",
    ]
    # Windows that are half padding read a text half as often.
    assert not repeats(TrainConfig(batch=10, steps=100), {n: 2.0 * k for n, k in sizes.items()})


def test_the_time_by_the_chips_peak():
    """3e15 operations at 40 % of 1e15 a second are 7.5 s."""
    assert banner._span(3e15 / (banner.USUAL_MFU * 1e15)) == "8 s"
    assert [banner._span(s) for s in (119, 120, 7199, 7200)] == [
        "119 s",
        "2 min",
        "120 min",
        "2.0 h",
    ]


class Recorder:
    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(jax.profiler, "start_trace", lambda f: self.calls.append("start"))
        monkeypatch.setattr(jax.profiler, "stop_trace", lambda: self.calls.append("stop"))


@pytest.mark.parametrize(
    "steps,first,last,expected",
    [
        ((2, 4), 0, 6, {2: "start", 4: "stop"}),
        ((0, 1), 0, 6, {0: "start", 1: "stop"}),
        ((2, 4), 3, 6, {3: "start", 4: "stop"}),  # goes on from a checkpoint
        ((2, 4), 5, 6, {}),
        (None, 0, 6, {}),
        ((4, 9), 0, 6, {4: "start", "end": "stop"}),
    ],
)
def test_a_trace_covers_its_steps(monkeypatch, tmp_path, steps, first, last, expected):
    recorder, found = Recorder(monkeypatch), {}
    trace = Trace(steps, tmp_path)
    for done in range(first, last):
        trace.before(done)
        if recorder.calls:
            found[done] = recorder.calls.pop()
        trace.after(done + 1, ())
        if recorder.calls:
            found[done + 1] = recorder.calls.pop()
    trace.close()
    if recorder.calls:
        found["end"] = recorder.calls.pop()
    assert found == expected


def test_a_real_trace_is_written(tmp_path):
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path, steps=3, profile="1:2")
    tiny_run.train(e, tmp_path)
    assert [p for p in (tmp_path / "run" / "trace").rglob("*.xplane.pb") if p.stat().st_size > 1000]


@pytest.mark.parametrize("text", ["5", "5:", ":5", "5:5", "9:3", "-1:4", "a:b", "1:2:3", "1.5:2"])
def test_steps_to_trace_that_make_no_sense(text):
    with pytest.raises(UserError, match=r"config\.train\.profile=.* A:B"):
        settings.profile_steps(text)


class Heard(list):
    """Lines of the watchdog, and an event for each."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.event = threading.Event()
        monkeypatch.setattr(watchdog.tqdm, "write", lambda line, file: self.hear(line))

    def hear(self, line):
        self.append(line)
        self.event.set()


@pytest.mark.parametrize("phase", ["data", "step", "checkpoint", "others"])
def test_a_hang_is_named_once_and_the_run_goes_on(monkeypatch, tmp_path, phase):
    heard, phases = Heard(monkeypatch), Phases()
    with watchdog.Watchdog(0.02, phases, tmp_path / "hang.txt", step=6) as dog:
        dog.finished(7)
        phases.enter(phase)
        assert heard.event.wait(30)
        heard.event.clear()
        assert not heard.event.wait(0.1)  # once for a step
        dog.finished(8)
        assert heard.event.wait(30)
    assert heard[0] == (
        f"no step has finished for 0.02 s: step 8 waits for {PHASES[phase]}; "
        f"its stacks are in {tmp_path / 'hang.txt'}"
    )
    assert len(heard) == 2 and "step 9" in heard[1]
    stacks = (tmp_path / "hang.txt").read_text()
    assert "test_a_hang_is_named_once" in stacks and f"step 8, {phase}" in stacks


def test_a_watchdog_that_is_off_or_not_needed_is_silent(monkeypatch, tmp_path):
    heard = Heard(monkeypatch)
    for seconds in (0, 3600.0):
        with watchdog.Watchdog(seconds, Phases(), tmp_path / "hang.txt") as dog:
            assert dog._thread.is_alive() == bool(seconds)
        assert not dog._thread.is_alive()
    assert not heard and not (tmp_path / "hang.txt").exists()


def test_a_place_that_cannot_be_written_does_not_silence_it(monkeypatch, tmp_path):
    heard = Heard(monkeypatch)
    with watchdog.Watchdog(0.02, Phases(), tmp_path / "no" / "hang.txt"):
        assert heard.event.wait(30)
    assert "cannot be written" in heard[0]


def test_a_run_that_waits_for_its_data_says_so(monkeypatch, tmp_path):
    """The loop itself, held up in its third batch until the watchdog has spoken."""
    heard = Heard(monkeypatch)
    tiny_run.write(tmp_path)
    make = tiny_run.train_iterator

    class Slow:
        def __init__(self, inner):
            self.inner, self.drawn = inner, 0
            self.get_state = inner.get_state

        def __next__(self):
            self.drawn += 1
            if self.drawn == 3:
                heard.clear()  # compilation may have taken its time, too
                heard.event.clear()
                assert heard.event.wait(60)
            return next(self.inner)

    monkeypatch.setattr(tiny_run, "train_iterator", lambda *a, **k: Slow(make(*a, **k)))
    e = tiny_run.experiment(tmp_path, steps=4)
    e = dataclasses.replace(e, train=dataclasses.replace(e.train, watchdog=0.3))
    assert tiny_run.train(e, tmp_path).step == 4
    assert any("step 3 waits for the next batch" in line for line in heard)
    assert "__next__" in (tmp_path / "run" / "hang.txt").read_text()


class Bar:
    """Stands in for tqdm: hears the text and how far it is."""

    def __init__(self, n=0.0):
        self.n, self.said = n, []

    def set_description_str(self, text, refresh):
        self.said.append(text)

    def update(self, by):
        self.n += by


def test_the_time_left_is_that_of_this_start_after_a_resume(monkeypatch):
    """60 of 100 steps were done in 600 s elsewhere; here four more take 8 s and a pause 4 s."""
    now = [50.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    train = TrainConfig(batch=8, steps=100)
    clock, bar = Clock(train, 12, (), elapsed=600.0), Bar(60.0)
    e = settings.Experiment(train=train)
    job = Job(e, CompressorLoss(tiny_run.MODEL, train), ("a",), iter)
    log = progress.Progress(job, clock, Phases(), None, bar, None)
    log.start(60)
    clock.start()
    now[0] += 8
    clock.pause()
    now[0] += 4
    log(
        64,
        {k: np.ones(1) for k in ("nll", "correct", "tokens", "windows", "exact", "gradient_norm")},
        np.array([0.5]),
    )
    # 4 % took 12 s of this start: 36 % are left.
    assert bar.said[-1].startswith("10:08 passed, 01:48 left, step 64, TRA 100.00%, ")
    assert "48 tokens/s" in bar.said[-1]  # four steps of 96 tokens in 8 s
    assert bar.n == pytest.approx(64)
    look = {"step": 64, "seconds": 608.0, "experts": {"a": {"valid_nll": 1.0, "valid_tra": 0.9947}}}
    log.validated(look)
    assert bar.said[-1].endswith(", valid 99.47%")
