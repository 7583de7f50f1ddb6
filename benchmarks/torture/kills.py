"""kill -9 at random moments, SIGTERM, two runs in one workdir: nothing is lost."""

import random
import signal
import time

from benchmarks.torture import runs


def run(kills: int, terms: int, steps: int = 400, seed: int = 0) -> dict:
    """-> figures: kills, resumed, bit_exact and where the kills fell.

    kills: how many times a run is killed with SIGKILL; terms: how many with SIGTERM; steps: of each
    run, every one of them saved, in the background.  A run that ends before all kills are spent
    is compared, and the next one begins.
    """
    with runs.place() as where:
        found = {
            **_killed(where, kills, steps, random.Random(seed)),
            "sigterm": _asked_to_stop(where, terms, random.Random(seed + 1)),
            "lock": _locked(where),
        }
    return found


def _killed(where, kills: int, steps: int, chance: random.Random) -> dict:
    settings = {"train.steps": steps}
    quiet = where.workdir("quiet")
    began = time.monotonic()
    child = runs.Run(where, quiet, settings)
    child.until(1)
    start = time.monotonic() - began  # also fills the compile cache: longer than later ones
    _ended_well(child)
    figures = {
        "kills": 0,
        "resumed": 0,
        "bit_exact": True,
        "kills_before_training": 0,
        "kills_inside_a_save": 0,
        "kills_with_steps_beyond_the_save": 0,
        "runs": 0,
        "failures": [],
    }
    while figures["kills"] < kills:
        workdir = where.workdir(f"killed{figures['runs']}")
        figures["runs"] += 1
        while True:
            last = runs.newest(workdir)
            child = runs.Run(where, workdir, settings)
            ended = child.wait() if figures["kills"] == kills else _kill(child, last, start, chance)
            if ended is not None:
                break
            figures["kills"] += 1
            figures["resumed"] += runs.newest(workdir) >= last  # else the start lost a step
            figures["kills_before_training"] += runs.newest(workdir) == last
            undone = runs.unfinished(workdir)
            figures["kills_inside_a_save"] += bool(undone)
            figures["kills_with_steps_beyond_the_save"] += bool(undone) and (
                runs.logged(workdir) > max(int(name.partition(".")[0]) for name in undone)
            )
        if ended:  # a restart failed by itself
            figures["resumed"] -= 1
            figures["failures"] += child.last_lines(3)
        figures["bit_exact"] &= ended == 0 and runs.same(workdir, quiet)
    return figures


def _kill(child: runs.Run, last: int, start: float, chance: random.Random) -> int | None:
    """Kills at a random moment: one time in four of the start, else of training and saving.

    -> None, or the exit status of a child that ended before.
    """
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0, start))
    else:
        child.until(last + 1)
        time.sleep(chance.uniform(0, 1))
    if child.child.poll() is not None:
        return child.wait()
    child.kill()
    return None


def _asked_to_stop(where, count: int, chance: random.Random) -> dict:
    """SIGTERM at random moments of training; nothing is saved but by the signal."""
    settings = {"train.steps": 300, "train.checkpoint_every": 1e9}
    quiet, workdir = where.workdir("unasked"), where.workdir("asked")
    _finish(where, quiet, settings)
    figures = {"signals": 0, "saved": 0, "steps_lost": 0, "bit_exact": False}
    for _ in range(count):
        last, child = runs.newest(workdir), runs.Run(where, workdir, settings)
        _until_line(child, last + 1)
        time.sleep(chance.uniform(0, 0.1))
        child.child.send_signal(signal.SIGTERM)
        ended = child.wait()
        if ended == 0:
            break
        figures["signals"] += 1
        saved, lines = runs.newest(workdir), runs.curve(workdir)
        figures["saved"] += ended == 130 and saved > last
        figures["steps_lost"] += abs(lines[-1][0] - saved)  # trained and logged, not saved
    _finish(where, workdir, settings)
    # Every step was trained once and only once: the curve has no gap and no step twice.
    figures["bit_exact"] = runs.same(workdir, quiet)
    return figures


def _locked(where) -> dict:
    """A second run in the same workdir is refused; the first one does not notice."""
    workdir, settings = where.workdir("shared"), {"train.steps": 100}
    first = runs.Run(where, workdir, settings)
    first.until(1)
    second = runs.Run(where, workdir, settings)
    refused = second.wait() == 2 and len(second.complaints()) == 1 == len(second.lines())
    return {
        "second_run_refused": refused and "another run" in second.lines()[0],
        "first_run_finished": first.wait() == 0,
    }


def _finish(where, workdir, settings) -> None:
    _ended_well(runs.Run(where, workdir, settings))


def _ended_well(child) -> None:
    if child.wait():
        raise RuntimeError(f"an undisturbed run failed: {child.last_lines(3)}")


def _until_line(child: runs.Run, step: int) -> None:
    """Waits until the child has logged that step."""
    end = time.monotonic() + runs.PATIENCE
    path = child.workdir / "metrics.jsonl"
    while not (path.exists() and any(x[0] >= step for x in runs.curve(child.workdir))):
        if child.child.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"step {step} was not logged: {child.last_lines(3)}")
        time.sleep(0.01)
