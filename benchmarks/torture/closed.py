"""Standard streams that are closed or full, in every combination, under many commands.

One process forks before JAX starts: each call has real descriptors of its own.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.torture import runs

CLOSED = [c for n in range(4) for c in itertools.combinations(range(3), n)]
FULL = ("full 1", "full 2", "full 1 2")  # /dev/full in their place
COMMANDS: dict[str, tuple[str, ...]] = {
    "list": ("bank", "list", "--bank", "bank"),
    "json": ("bank", "list", "--json", "--bank", "bank"),
    "verify": ("bank", "verify", "--bank", "bank"),
    "help": ("--help",),
    "version": ("--version",),
    "help of a command": ("bank", "fit-cascade", "--help"),
    "no bank": ("bank", "list", "--bank", "none"),
    "no expert": ("bank", "remove", "--bank", "bank", "e9"),
    "no file": ("route", "--bank", "bank", "none.txt"),
    "standard input": ("route", "--bank", "bank", "-"),
    "usage": ("what",),
    "no config": ("tokenize", "--config", "none.py", "--out", "tokens"),
    "no source": ("modular", "partition", "--parts", "2", "--out", "parts", "files:none"),
    "no text": ("bank", "fit-cascade", "--bank", "bank", "--valid", "e0=files:none"),
    "no language model": ("perplexity", "--bank", "bare", "text"),
}
ANSWERED = ("list", "json", "verify", "help", "version", "help of a command")
_SCRIPT = """
import json, os, sys
from cr_jax.cli import main
answers = []
for name, argv, closed in json.load(sys.stdin):
    if not (pid := os.fork()):
        for number, file in ((1, "out"), (2, "err")):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in [1, 2] if isinstance(closed, str) else []:
            if str(number) in closed:
                os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        for number in [] if isinstance(closed, str) else closed:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        try:
            status = main(argv)
        except BaseException:
            status = 98
        for stream in (sys.stdout, sys.stderr):
            try:
                stream and stream.flush()
            except OSError:
                status = 97
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    answers.append([status, open("out").read(), open("err").read()])
print(json.dumps(answers))
"""


def combinations() -> list[tuple[str, tuple[int, ...] | str]]:
    """(command, what is closed or full)."""
    return list(itertools.product(COMMANDS, [*CLOSED, *FULL]))


def run(folder: Path, chosen: Sequence[tuple[str, tuple[int, ...] | str]]) -> list[tuple]:
    """-> per combination (status, what was wrong).  folder: holds `bank`, `bare` and `text`."""
    whole = {name: (name, ()) for name, _ in chosen}
    asked = [*whole.values(), *chosen]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps([[name, COMMANDS[name], closed] for name, closed in asked]),
        cwd=folder,
        env=runs.environment() | {"XDG_CACHE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=runs.PATIENCE * 4,
    )
    if done.returncode:
        raise RuntimeError(f"the calls with closed streams ended: {done.stderr[-2000:]}")
    answers = json.loads(done.stdout)
    said = {name: out for name, (_, out, _) in zip(whole, answers)}
    return [
        (answer[0], wrong(name, closed, said[name], *answer))
        for (name, closed), answer in list(zip(asked, answers, strict=True))[len(whole) :]
    ]


def wrong(name: str, closed, whole: str, status: int, out: str, err: str) -> list[str]:
    """What was wrong with one call; whole: what the command prints with all streams open."""
    lost = lambda number: number in closed if isinstance(closed, tuple) else str(number) in closed
    good = name in ANSWERED and not lost(1)
    found = []
    if status != (0 if good else 2):
        found.append(f"{name}, {closed}: status {status}")
    if "Traceback" in err or "Traceback" in out:
        found.append(f"{name}, {closed}: a traceback")
    if out != (whole if good else ""):
        found.append(f"{name}, {closed}: printed {out[:80]!r}")
    if err.count("\n") != (0 if good or lost(2) else 1):
        found.append(f"{name}, {closed}: {err.count(chr(10))} lines on stderr")
    return found
