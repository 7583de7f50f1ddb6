"""Runs of two processes: one is killed, or both, or one freezes, or one is asked to stop.

However one process goes, the other must end by itself, say so in one line, and leave a workdir from
which both go on bit for bit.
"""

import concurrent.futures
import random
import re
import signal
import subprocess
import time

from benchmarks.torture import runs

COUNT = 2  # more of them on two cores would only wait longer
BOUND = 150.0  # seconds in which the other must end; a heartbeat of 100 s notices the slowest
LOST, REFUSED, STOPPED = 75, 2, 130  # exit statuses of docs/launch.md


def run(kills: int, terms: int, steps: int = 240, frozen: bool = True, seed: int = 0) -> dict:
    """-> figures: kills, resumed, bit_exact, whether the others ended, with how many lines.

    kills: one in three ends both processes at once, the others one of them; terms: how often one
    process alone gets SIGTERM; frozen: whether process 0 of one more run stands still until the
    other gives up, which takes two minutes beside the kills; steps: of each run.
    """
    with runs.place() as where, concurrent.futures.ThreadPoolExecutor(1) as beside:
        settings = {"train.steps": steps}
        quiet = where.workdir("quiet")
        began = time.monotonic()
        group = Group(where, quiet, settings)
        group.until(1)
        start = time.monotonic() - began  # also fills the compile cache: longer than later ones
        _ended_well(group)
        ice = beside.submit(_frozen, where, settings, quiet) if frozen else None
        found = _killed(where, settings, quiet, kills, start, random.Random(seed))
        found["sigterm"] = _asked_to_stop(where, settings, quiet, terms, random.Random(seed + 1))
        found["frozen"] = ice.result() if ice else None
    return found


def good(found: dict) -> bool:
    """Whether these figures keep every promise."""
    sigterm, frozen = found["sigterm"], found["frozen"]
    return (
        found["kills"] == found["resumed"]
        and found["bit_exact"]
        and not found["failures"]
        and found["kills_of_one"] == found["others_ended"] == found["others_told_in_one_line"]
        and sigterm["signals"] == sigterm["saved"] > 0 == sigterm["steps_lost"]
        and sigterm["bit_exact"]
        and (
            frozen is None
            or all(frozen[k] for k in ("other_ended", "one_line", "woken_one_ended", "bit_exact"))
        )
    )


class Group:
    """All processes of one run, started together in `workdir`."""

    def __init__(self, where, workdir, settings):
        self.workdir, self.newest = workdir, runs.newest(workdir)
        self.children = [
            runs.Run(where, workdir, settings, arguments=[*flags, "--connect_seconds=60"])
            for flags in runs.joined(COUNT)
        ]

    def until(self, step: int) -> bool:
        """Waits until a step of at least `step` is sealed; False when the run ended before."""
        return self.children[0].until(step)

    def until_logged(self, step: int) -> None:
        """Waits until step `step` is in the metrics."""
        end = time.monotonic() + runs.PATIENCE
        while runs.logged(self.workdir) < step:
            if self.ended() or time.monotonic() > end:
                raise RuntimeError(f"step {step} was not logged: {self.last_lines()}")
            time.sleep(0.01)

    def ended(self) -> bool:
        """Whether some process has ended."""
        return any(c.child.poll() is not None for c in self.children)

    def wait(self) -> list[int]:
        return [c.wait() for c in self.children]

    def went_on_from(self) -> int | None:
        """The step that this start goes on from, as process 0 says; None before it has."""
        told = [re.match(r"\d+ steps, at step (\d+)", x) for x in self.children[0].lines()]
        return next((int(x[1]) for x in told if x), None)

    def last_lines(self) -> list[str]:
        return [line for c in self.children for line in c.last_lines(3)]


def outlived(child: runs.Run) -> dict:
    """Waits for a process whose peer is gone: did it end, how late, with what status and words?

    The words are for people when there is one line of ours, no traceback of Python and none when
    it had finished.
    """
    began = time.monotonic()
    try:
        status = child.child.wait(BOUND)
    except subprocess.TimeoutExpired:
        child.kill()
        return {"ended": False, "one_line": False, "status": None, "seconds": BOUND}
    seconds = time.monotonic() - began
    child.wait()
    said = child.lines()
    errors = [x for x in said if x.startswith("error: ")]
    one_line = not any(x.startswith("Traceback") for x in said) and (
        (status in (LOST, REFUSED) and len(errors) == 1) or (status == 0 and not errors)
    )
    return {"ended": True, "one_line": one_line, "status": status, "seconds": seconds}


def _killed(where, settings, quiet, kills: int, start: float, chance: random.Random) -> dict:
    found = {
        "kills": 0,
        "kills_of_one": 0,
        "kills_of_process_0": 0,
        "resumed": 0,
        "bit_exact": True,
        "others_ended": 0,
        "others_told_in_one_line": 0,
        "longest_seconds_to_end": 0.0,
        "statuses_of_others": {},
        "kills_before_training": 0,
        "kills_inside_a_save": 0,
        "runs": 0,
        "failures": [],
    }
    while found["kills"] < kills:
        workdir, waiting, status = where.workdir(f"killed{found['runs']}"), 0, None
        found["runs"] += 1
        while status is None:
            group = Group(where, workdir, settings)
            if found["kills"] < kills:
                _moment(group, start, chance)
            if group.ended() or found["kills"] == kills:
                status = group.wait()
            else:
                _kill(group, found, chance)
            at = group.went_on_from()
            if at == group.newest or (status and not any(status)):
                found["resumed"] += waiting
                waiting = 0
            elif at is not None:
                found["failures"].append(f"went on from {at}, saved was {group.newest}")
            waiting += status is None
            found["failures"] += [
                x for c in group.children for x in c.lines() if "damaged" in x or "Traceback" in x
            ]
        if any(status):
            found["failures"] += [f"ended with {status}", *group.last_lines()]
        found["bit_exact"] &= not any(status) and runs.same(workdir, quiet)
    found["longest_seconds_to_end"] = round(found["longest_seconds_to_end"], 1)
    return found


def _moment(group: Group, start: float, chance: random.Random) -> None:
    """A random moment: one time in four of the start, else of training and saving."""
    if chance.random() < 0.25:
        time.sleep(chance.uniform(0, start))
    else:
        group.until(group.newest + 1)
        time.sleep(chance.uniform(0, 1))


def _kill(group: Group, found: dict, chance: random.Random) -> None:
    found["kills"] += 1
    if found["kills"] % 3 == 0:
        for child in group.children:
            child.kill()
    else:
        victim = chance.randrange(COUNT)
        group.children[victim].kill()
        left = outlived(group.children[1 - victim])
        found["kills_of_one"] += 1
        found["kills_of_process_0"] += victim == 0
        found["others_ended"] += left["ended"]
        found["others_told_in_one_line"] += left["one_line"]
        found["longest_seconds_to_end"] = max(found["longest_seconds_to_end"], left["seconds"])
        statuses, status = found["statuses_of_others"], str(left["status"])
        statuses[status] = statuses.get(status, 0) + 1
        if not left["one_line"]:
            found["failures"] += group.children[1 - victim].last_lines(8)
    found["kills_before_training"] += runs.newest(group.workdir) == group.newest
    found["kills_inside_a_save"] += bool(runs.unfinished(group.workdir))


def _asked_to_stop(where, settings, quiet, count: int, chance: random.Random) -> dict:
    """SIGTERM to one process at random moments of training; nothing is saved but by the signal."""
    settings, workdir = {**settings, "train.checkpoint_every": 1e9}, where.workdir("asked")
    found = {"signals": 0, "saved": 0, "steps_lost": 0, "bit_exact": False}
    for _ in range(count):
        group = Group(where, workdir, settings)
        group.until_logged(group.newest + 1)
        time.sleep(chance.uniform(0, 0.1))
        chance.choice(group.children).child.send_signal(signal.SIGTERM)
        status = group.wait()
        if not any(status):
            break
        found["signals"] += 1
        saved = runs.newest(workdir)
        found["saved"] += status == [STOPPED] * COUNT and saved > group.newest
        found["steps_lost"] += abs(runs.logged(workdir) - saved)  # trained and logged, not saved
    _ended_well(Group(where, workdir, settings))
    # Every step was trained once and only once: the curve has no gap and no step twice.
    found["bit_exact"] = runs.same(workdir, quiet)
    return found


def _frozen(where, settings, quiet) -> dict:
    """Process 0 stands still with its connections open, as behind a broken network; then wakes."""
    workdir = where.workdir("frozen")
    group = Group(where, workdir, settings)
    group.until(1)
    asleep, other = group.children
    asleep.child.send_signal(signal.SIGSTOP)
    left = outlived(other)
    asleep.child.send_signal(signal.SIGCONT)
    woken = outlived(asleep)
    _ended_well(Group(where, workdir, settings))
    return {
        "other_ended": left["ended"],
        "seconds": round(left["seconds"]),
        "one_line": left["one_line"] and woken["one_line"],
        "woken_one_ended": woken["ended"],
        "statuses": [woken["status"], left["status"]],
        "bit_exact": runs.same(workdir, quiet),
    }


def _ended_well(group: Group) -> None:
    if any(group.wait()):
        raise RuntimeError(f"an undisturbed run failed: {group.last_lines()}")
