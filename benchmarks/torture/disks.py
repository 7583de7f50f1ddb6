"""A disk that is full, or refuses to be written, while a checkpoint is saved: one clear line, the
older checkpoint stays whole, and with room again the run goes on as if nothing had been."""

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.torture import runs

STEPS = 16
_CAP_DAC_OVERRIDE = 1  # linux/capability.h
_PR_CAPBSET_DROP = 24  # linux/prctl.h


def run() -> dict:
    """-> {case: {"one_line", "older_intact", "bit_exact"}}; "full" is None where no file system
    may be mounted."""
    with runs.place() as where:
        quiet = where.workdir("quiet")
        if runs.Run(where, quiet, {"train.steps": STEPS}).wait():
            raise RuntimeError("an undisturbed run failed")
        # No file may grow past this: the arrays of a checkpoint do not fit, small files do.
        found = {
            "file_too_large": _case(
                where,
                "large",
                quiet,
                lambda c: runs.limit_file_size(c.child, 8_000),
                lambda c: None,
            ),
            "read_only": _case(
                where,
                "sealed_off",
                quiet,
                lambda c: (c.workdir / "checkpoints").chmod(0o500),
                lambda c: (c.workdir / "checkpoints").chmod(0o700),
            ),
        }
        found["full"] = _on_small_disk(where, quiet)
    return found


def _case(
    where, name: str, quiet: Path, trouble: Callable, relief: Callable, workdir: Path | None = None
) -> dict:
    workdir = workdir or where.workdir(name)
    child = runs.Run(where, workdir, {"train.steps": STEPS}, preexec_fn=_obey_permissions)
    child.until(3)
    trouble(child)
    status = child.wait()
    relief(child)
    good = runs.sealed(workdir)
    again = runs.Run(where, workdir, {"train.steps": STEPS})
    ended = again.wait()
    return {
        "one_line": status == 2 and len(child.complaints()) == 1,
        "said": [x.replace(str(workdir), "WORKDIR") for x in child.complaints()][:4],
        "said_again": again.complaints(),
        "older_intact": bool(good) and not again.complaints(),
        "bit_exact": ended == 0
        and runs.weights(workdir) == runs.weights(quiet)
        and runs.curve(workdir) == runs.curve(quiet),
    }


def _obey_permissions() -> None:
    """In the child: the administrator, too, may write only where permissions say so."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def _on_small_disk(where, quiet: Path) -> dict | None:
    """`_small_disk` in a mount namespace of its own, on a file system of a few megabytes."""
    disk = where.folder / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=16m torture "$1" && shift && exec "$@"'
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        done = subprocess.run(
            [
                "unshare",
                *user,
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                str(disk),
                sys.executable,
                "-m",
                "benchmarks.torture.disks",
                str(disk),
                str(quiet),
            ],
            capture_output=True,
            text=True,
            cwd=runs.ROOT,
            check=False,
        )
    except FileNotFoundError:
        return None
    lines = done.stdout.splitlines()
    if not lines:
        print(done.stderr, file=sys.stderr)
        return None
    return json.loads(lines[-1])


def _small_disk(disk: Path, quiet: Path) -> dict:
    where = runs.Place(quiet.parent)
    workdir = disk / "run"
    workdir.mkdir(parents=True)
    ballast = disk / "ballast"

    def fill(child):
        # Again and again: a checkpoint that is dropped makes room for the next one.
        with ballast.open("wb", buffering=0) as file:
            while child.child.poll() is None:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(1 << 12))
                time.sleep(0.002)

    return _case(where, "", quiet, fill, lambda child: ballast.unlink(), workdir)


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.torture.disks",
        description="The case of a full disk alone; `python -m benchmarks.torture --part disks` "
        "mounts a small one and runs all cases.",
    )
    p.add_argument("disk", type=Path, help="an empty folder on a file system of a few megabytes")
    p.add_argument("quiet", type=Path, help="the workdir of an undisturbed run")
    a = p.parse_args()
    print(json.dumps(_small_disk(a.disk, a.quiet)))
