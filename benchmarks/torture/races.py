"""Readers beside writers: a bank is loaded again and again while other processes add and remove
experts and put other banks in its place.

No load may fail, and no expert that was said to be added may be lost.
"""

import collections
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.torture import runs

ADDERS = 2
PATIENCE = 120.0


def run(loads: int) -> dict:
    """-> {"loads", "false_messages", "lost_experts", "changes", "messages"}."""
    from benchmarks.torture.fuzz import make_bank
    from cr_jax.bank import ExpertBank
    from cr_jax.bank.files import BankFolder
    from cr_jax.errors import UserError

    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        folder = Path(place)
        make_bank(folder / "bank", 2)
        messages: collections.Counter = collections.Counter()
        read = (
            lambda: ExpertBank.load(folder / "bank"),
            lambda: ExpertBank.load(folder / "bank", verify=False, lms=False),
            lambda: [messages.update([x]) for x in BankFolder(folder / "bank").verify()],
        )
        with _writers(folder) as writers:
            for number in range(loads):
                try:
                    read[number % len(read)]()
                except UserError as error:
                    messages[str(error)] += 1
        said = [line for out in writers for line in out]
        names = set(BankFolder(folder / "bank").names)
        added = {x.removeprefix("added ") for x in said if x.startswith("added ")}
        gone = {x.removeprefix("removed ") for x in said if x.startswith("removed ")}
        return {
            "loads": loads,
            "false_messages": sum(messages.values()),
            "lost_experts": len(added - gone - names),
            "changes": len(said),
            "messages": [m.replace(place, "FOLDER")[:200] for m, _ in messages.most_common(5)],
        }


@contextlib.contextmanager
def _writers(folder: Path) -> Iterator[list[list[str]]]:
    """Processes that change the bank as fast as they can; what they said, at the end."""
    said: list[list[str]] = []
    stop = folder / "stop"
    kinds = ["replace", *(f"add{i}" for i in range(ADDERS))]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.torture.races", str(folder), kind],
            cwd=runs.ROOT,
            env=runs.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in kinds
    ]
    try:
        for child in started:
            child.stdout.readline()  # it has begun
        yield said
        stop.touch()
        for child in started:
            out = child.communicate(timeout=PATIENCE)[0].splitlines()
            if child.returncode:
                raise RuntimeError(f"a writer failed: {out[-1:]}")
            said.append(out)
    finally:
        for child in started:
            child.kill()
            child.wait()


def write(folder: Path, kind: str) -> None:
    """One writer: until there is a file `stop` it changes the bank and says what it did."""
    from cr_jax.bank import ExpertBank, import_expert
    from cr_jax.bank.changes import take
    from cr_jax.bank.creation import put_in_place, recover
    from cr_jax.bank.files import BankFolder

    bank, pristine = folder / "bank", folder / f"pristine-{kind}"
    shutil.copytree(bank, pristine)
    print("begun", flush=True)
    number = 0
    while not (folder / "stop").exists():
        number += 1
        if kind == "replace":  # as at the end of a run
            new = folder / "bank.partial"
            shutil.copytree(pristine, new)
            recover(bank, print)
            keep = lambda files, name, new=new: take(BankFolder(new), files.folder, name)
            put_in_place(new, bank, keep, print)
            print("replaced", flush=True)
            time.sleep(0.05)  # a run would train
            continue
        name = f"{kind}x{number % 5}"
        if name in BankFolder(bank).names:
            ExpertBank.load(bank, [name]).remove(name)
            print(f"removed {name}", flush=True)
        import_expert(bank, pristine / "experts" / "e0", name)
        print(f"added {name}", flush=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
