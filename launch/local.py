#!/usr/bin/env python3
"""Trains on one machine with several processes: on CPUs, or one process per GPU.

Everything that is not an option below goes to main.py.  The lines of process 0 appear here; the
others write to WORKDIR/processes/I.log.  When one fails, all are ended.  Ctrl-C asks all to
save themselves and stop; a second one ends them at once.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = "launch/local.py --processes=2 --config=configs/quickstart.py --workdir=runs/two"
GRACE = 5.0  # seconds that the others have for their own last words after one has failed
TAIL = 5  # lines shown of a failed process
LOST = 75  # status of a process that ends because another one is gone


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, that of the first process that failed, or 2 for bad flags."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"example: {EXAMPLE}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="how many (default: one per GPU; without GPUs 2)",
    )
    parser.add_argument(
        "--on",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="auto: GPUs when nvidia-smi lists any",
    )
    parser.add_argument("--port", type=int, default=0, help="of process 0 (default: a free one)")
    parser.add_argument("--workdir", required=True, help="as main.py's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, do nothing")
    args, rest = parser.parse_known_args(argv)
    gpus = [] if args.on == "cpu" else visible_gpus()
    if args.on == "gpu" and not gpus:
        return _refuse("no GPU found by nvidia-smi; use --on=cpu")
    count = args.processes or len(gpus) or 2
    if count < 1:
        return _refuse(f"--processes={args.processes} must be 1 or more")
    if gpus and count > len(gpus):
        return _refuse(f"--processes={count} is more than the {len(gpus)} GPUs; use one each")
    if not any(a == "--config" or a.startswith("--config=") for a in rest):
        return _refuse("--config=FILE is missing; it goes to main.py")
    port = args.port or _free_port()
    starts = []
    for i in range(count):
        settings = {"CUDA_VISIBLE_DEVICES": gpus[i]} if gpus else {"JAX_PLATFORMS": "cpu"}
        command = [
            sys.executable,
            str(ROOT / "main.py"),
            f"--workdir={args.workdir}",
            *rest,
            f"--coordinator=localhost:{port}",
            f"--processes={count}",
            f"--process={i}",
        ]
        starts.append((settings, command))
    if args.dry_run:
        for settings, command in starts:
            print(
                " ".join(
                    [*(f"{k}={shlex.quote(v)}" for k, v in settings.items()), shlex.join(command)]
                )
            )
        return 0
    checked = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--check", f"--workdir={args.workdir}", *rest],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if checked.returncode:  # main.py has said why
        return checked.returncode
    try:
        logs = Path(args.workdir).expanduser() / "processes"
        logs.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        return _refuse(
            f"--workdir={args.workdir} cannot be written ({reason}); choose a folder that you own"
        )
    return _watch(starts, logs)


def visible_gpus() -> list[str]:
    """The GPUs to share out: CUDA_VISIBLE_DEVICES when it is set, else all by number."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [g.strip() for g in chosen.split(",") if g.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [
        str(i)
        for i, line in enumerate(x for x in listed.stdout.splitlines() if x.startswith("GPU "))
    ]


def _watch(starts: list[tuple[dict[str, str], list[str]]], logs: Path) -> int:
    stops: list[int] = []
    old = {
        s: signal.signal(s, lambda n, frame: stops.append(n))
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    running: dict[int, subprocess.Popen] = {}
    try:
        for i, (settings, command) in enumerate(starts):
            # Sessions of their own: Ctrl-C reaches the processes through us, once.
            with (logs / f"{i}.log").open("wb") if i else open(os.devnull, "wb") as log:
                running[i] = subprocess.Popen(
                    command,
                    env={**os.environ, **settings},
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=log if i else None,
                    stderr=log if i else None,
                )
        return _until_all_ended(running, logs, stops)
    finally:
        for process in running.values():
            if process.poll() is None:
                # SIGTERM would not do: JAX's preemption service swallows it.
                process.kill()
            process.wait()
        for number, handler in old.items():
            signal.signal(number, handler)


def _until_all_ended(running: dict[int, subprocess.Popen], logs: Path, stops: list[int]) -> int:
    asked, first, deadline = 0, None, float("inf")
    while True:
        ended = {i: p.poll() for i, p in running.items() if p.poll() is not None}
        failed = {i: status for i, status in ended.items() if status}
        if failed and first is None:
            # Not one of those that ended because of it in the same tenth of a second.
            first = min(failed.items(), key=lambda x: x[1] == LOST)
            deadline = time.monotonic() + GRACE
        if len(ended) == len(running) or time.monotonic() > deadline:
            break
        if len(stops) > asked:
            asked = len(stops)
            if asked > 1:
                first = first or (0, 130)
                break
            for process in running.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.1)
    if first is None:
        return 0
    number, status = first
    if not asked:
        # A shell's form for a process that a signal ended.
        print(f"process {number} ended with status {status}; all are ended", file=sys.stderr)
        if number:
            print(_tail(logs / f"{number}.log"), file=sys.stderr)
    return status if status > 0 else 128 - status


def _tail(path: Path) -> str:
    lines = path.read_text("utf-8", "replace").splitlines()
    # The reason stands above the stack trace that JAX adds when its peers vanish.
    told = [x for x in lines if x.startswith("error: ")] or lines
    return "\n".join(f"  {line[:200]}" for line in told[-TAIL:]) + f"\n  (all of it: {path})"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
