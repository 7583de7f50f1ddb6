"""Every file operation of a change fails once: the old state or the new one must be there after it.

A checkpoint is saved, an expert is added to a bank or removed from it, and the bank of a run takes
the old one's place.  `failing.c`, loaded in front of the C library, lets the N-th operation on the
files below fail, for N from 1 to the last, with EIO, ENOSPC and ESTALE, and once all from the N-th
on.  Then the same change is made again on a good disk.
"""

import collections
import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.torture import runs

ERRORS = (errno.EIO, errno.ENOSPC, errno.ESTALE)
ALL = 1 << 40  # operations
SOURCE = Path(__file__).with_name("failing.c")


def run(stride: int = 1) -> dict | None:
    """-> {"operations", "recovered", "by": {change: the same}, "first_failures"}.

    stride: only each so many-th operation fails.  None where there is no C compiler.
    """
    if not compiler():
        return None
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        library = built(Path(place))
        done = subprocess.run(
            [sys.executable, "-m", __name__, place, str(library), str(stride)],
            cwd=runs.ROOT,
            env=runs.environment() | {"LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the changes could not be made: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compiler() -> str | None:
    """Of C, where there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def built(folder: Path) -> Path:
    """The library that lets operations fail."""
    library = folder / "failing.so"
    subprocess.run(
        [compiler(), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True
    )
    return library


class Change(NamedTuple):
    """prepare: puts the old state there; change: makes it the new one; state: which of "old", "new"
    is there, or what is wrong."""

    prepare: Callable[[], None]
    change: Callable[[], None]
    state: Callable[[], str]


def tortured(changes: dict[str, Change], library: Path, root: Path, stride: int) -> dict:
    """The figures of `run`; in the process into which the library was loaded."""
    shim = ctypes.CDLL(str(library))
    shim.failing_arm.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_long)
    shim.failing_count.restype = ctypes.c_long
    shim.failing_root(os.fsencode(root))
    by, failures = {}, []
    for name, change in changes.items():
        found: collections.Counter = collections.Counter()
        for number, error, last in _cases(change, shim, stride):
            change.prepare()
            shim.failing_arm(number, error, last)
            raised = _raised(change.change)
            hit = shim.failing_count() >= number
            shim.failing_arm(0, 0, -1)
            wrong = _judged(change, raised)
            if hit:
                found["operations"] += 1
                found["recovered"] += not wrong
            if wrong:
                kind = f"{name}: {os.strerror(error)} at operation {number}" + "+" * (last == ALL)
                failures.append(f"{kind}: {wrong}"[:400])
        by[name] = dict(found)
    total = lambda key: sum(each[key] for each in by.values())
    return {
        "operations": total("operations"),
        "recovered": total("recovered"),
        "by": by,
        "first_failures": failures[:20],
    }


def _cases(change: Change, shim, stride: int) -> Iterator[tuple[int, int, int]]:
    change.prepare()
    shim.failing_arm(0, 0, -1)
    change.change()
    for number in range(1, shim.failing_count() + 1, stride):
        for error in ERRORS:
            yield number, error, number
        yield number, errno.EIO, ALL


def _raised(call: Callable[[], None]) -> BaseException | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _judged(change: Change, raised: BaseException | None) -> str:
    """What is wrong after a change that failed, or ""."""
    from cr_jax.errors import UserError

    if raised is not None and not isinstance(raised, UserError | OSError):
        return f"{type(raised).__name__}: {raised}"
    found = change.state()
    if found not in ("old", "new"):
        return f"neither the old state nor the new one: {found}"
    if raised is None and found == "old":
        return "no error, and the old state"
    if found == "old":
        again = _raised(change.change)
        if again is not None or change.state() != "new":
            return f"the change could not be made again: {again or change.state()}"
    return ""


def all_changes(root: Path) -> dict[str, Change]:
    """Of a checkpoint and of banks below `root`."""
    return {"save": _save(root), **_of_banks(root)}


def _save(root: Path) -> Change:
    import numpy as np

    from cr_jax.training.checkpoint import Checkpointer

    folder, kept = root / "checkpoints", root.parent / "kept-checkpoints"
    state = lambda step: {"w": np.full(64, step, np.float32)}

    def save(step: int) -> None:
        writer = Checkpointer(folder, 2)
        try:
            writer.restore(state(0))
            writer.save(step, state(step), {"next_index": step}, {"step": step})
            writer.wait()
        finally:
            writer.close()

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if kept.exists():
            shutil.copytree(kept, folder)
            return
        save(1)
        shutil.copytree(folder, kept)

    def found() -> str:
        reader = Checkpointer(folder, 2)
        try:
            restored = reader.restore(state(0))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            reader.close()
        if restored is None:
            return "nothing"
        step, held, iterator, record = restored
        whole = (held["w"] == step).all() and iterator["next_index"] == record["step"] == step
        return {1: "old", 2: "new"}.get(step, "another step") if whole else "mixed parts"

    return Change(prepare, lambda: save(2), found)


def _of_banks(root: Path) -> dict[str, Change]:
    from benchmarks.torture.fuzz import make_bank
    from cr_jax.bank import ExpertBank, import_expert
    from cr_jax.bank.changes import take
    from cr_jax.bank.creation import put_in_place, recover
    from cr_jax.bank.files import BankFolder

    bank, kept, other = root / "run" / "bank", root.parent / "kept-bank", root.parent / "other"
    partial, say = bank.with_name("bank.partial"), lambda line: None
    make_bank(kept, 2)
    make_bank(other, 3)

    def prepare() -> None:
        shutil.rmtree(bank.parent, ignore_errors=True)
        shutil.copytree(kept, bank)

    def ending() -> None:
        recover(bank, say)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(other, partial)  # as if the run had written it
        keep = lambda added, name: take(BankFolder(partial), added.folder, name)
        put_in_place(partial, bank, keep, say)

    def state(new: set[str], again: Callable[[], None] = lambda: None) -> Callable[[], str]:
        def found() -> str:
            try:
                again()
                loaded = ExpertBank.load(bank)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            names = set(loaded.names)
            return "new" if names == new else "old" if names == {"e0", "e1"} else str(names)

        return found

    return {
        "bank add": Change(
            prepare,
            lambda: import_expert(bank, other / "experts" / "e2", "e2", say),
            state({"e0", "e1", "e2"}),
        ),
        "bank remove": Change(
            prepare, lambda: ExpertBank.load(bank).remove("e1") and None, state({"e0"})
        ),
        "end of a run": Change(
            prepare, ending, state({"e0", "e1", "e2"}, lambda: recover(bank, say))
        ),
    }


if __name__ == "__main__":
    folder, shim_file, every = sys.argv[1:]
    below = Path(folder).resolve() / "below"
    below.mkdir()
    print(json.dumps(tortured(all_changes(below), Path(shim_file), below, int(every))), flush=True)
    os._exit(0)  # threads of a checkpoint library may wait for ever for what failed
