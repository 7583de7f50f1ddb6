"""Checkpoints that notice damage: Orbax for the arrays, a SHA-256 manifest per step for trust.

WORKDIR/checkpoints/STEP/ is Orbax's; WORKDIR/checkpoints/STEP.json seals it: the hash of every
file, written last, so a step without a seal was never finished.  Orbax alone restores flipped
bits without a word.

A save costs its caller a copy of the state to the host; one thread of ours then writes, hashes,
seals and deletes older steps, in that order, through Orbax's synchronous manager.  Orbax's own
asynchronous one ends before the seal, so that thread would be needed beside its two, and on CPU
devices it holds views of buffers that the next step is meant to reuse.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging as py_logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from cr_jax.errors import UserError, lost_peer

# What a disk says that is full or closed to us.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
               errno.EIO)


class Checkpointer:
    """Saves and restores (state, data iterator, run record) under one folder.

    One process writes in the background.  Several save synchronously: Orbax lets them wait for
    each other, and a second thread's barriers would cross the collectives of the steps.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).resolve()
        self._keep = keep
        self._current: int | None = None  # the step that the run stands on, once known
        self._writer = None if jax.process_count() > 1 else futures.ThreadPoolExecutor(
            1, thread_name_prefix="checkpoint")
        self._saving: futures.Future | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {folder}: {error.strerror}") from None
        _hush_orbax()
        self._manager = ocp.CheckpointManager(
            self.folder, options=ocp.CheckpointManagerOptions(
                enable_async_checkpointing=False, create=True))

    def steps(self) -> list[int]:
        """Sealed steps, oldest first."""
        return sorted(int(p.stem) for p in self.folder.glob("*.json") if p.stem.isdigit())

    def save(self, step: int, state: Any, iterator: dict, record: dict,
             best: int | None = None) -> None:
        """Copies the state to the host; what follows goes on in the background, see `wait`.

        iterator: the data iterator's state; record: the run's settings and progress; best: a step
        that stays beside the newest ones.  All may change, and the state be donated, once this
        returns; the copy lives until the step is sealed.  First waits for the save before, so
        there is never more than one copy, and raises what `wait` raises.  Of several processes
        all must call it, and it returns when the step is sealed.
        """
        self.wait()
        if step == self._current:
            return
        iterator, record = json.loads(json.dumps([iterator, record]))
        if self._writer is None:
            self._commit(step, _plain(state), iterator, record, best)
        else:
            self._saving = self._writer.submit(
                self._commit, step, _to_host(_plain(state)), iterator, record, best)

    def wait(self) -> None:
        """Until the step that was saved last is sealed.

        Raises `UserError` when the disk was full or refused; older steps are as they were.
        """
        if self._saving is not None:
            futures.wait([self._saving])  # may be interrupted: then it is still under way
            saving, self._saving = self._saving, None
            saving.result()

    def check(self) -> None:
        """Raises what `wait` would raise if the save has failed already; never waits."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def _commit(self, step: int, leaves: dict, iterator: dict, record: dict,
                best: int | None) -> None:
        """Writes one step and seals it, then drops all but the newest `keep` and the best one.

        Steps behind the one that was restored, damaged or never finished, make way first.
        """
        with self._writing(step):
            self._write(step, leaves, iterator, record)
            for old in self._stored()[:-self._keep]:
                if old != best:
                    self._drop(old)

    def _write(self, step: int, leaves: dict, iterator: dict, record: dict) -> None:
        stands = step - 1 if self._current is None else self._current
        for lost in sorted({*self._stored(), *self.steps()}):
            if lost > stands:
                self._drop(lost)
        self._manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(leaves),
            iterator=ocp.args.JsonSave(iterator),
            record=ocp.args.JsonSave(record)))
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            seal = self.folder / f"{step}.json"
            partial = seal.with_suffix(".partial")
            partial.write_text(json.dumps(hash_files(self.folder / str(step)), indent=0))
            os.replace(partial, seal)
        self._current = step

    def restore(
        self, like: Any, check: Callable[[dict], None] = lambda record: None
    ) -> tuple[int, Any, dict, dict] | None:
        """The newest undamaged step as (step, state, iterator, record); None when there is none.

        like: a state of the same shapes; the values come back as numpy arrays, or, where a leaf is
        a `jax.ShapeDtypeStruct` with a sharding, as an array that lies so: each process then reads
        its own parts.  check(record) may raise before any array is read.  A damaged step is passed
        over with one warning line.  Raises `UserError` when steps exist and all are damaged, or
        when the stored shapes are another model's.
        """
        self.wait()
        steps = self.steps()
        for step in reversed(steps):
            problem = self._damage(step)
            if problem:
                logging.warning("checkpoint %d is damaged (%s); trying the one before", step,
                                problem)
                continue
            check(self._manager.restore(step, args=ocp.args.Composite(
                record=ocp.args.JsonRestore()))["record"])
            target = {k: _target(x) for k, x in _plain(like).items()}
            try:
                found = self._manager.restore(step, args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target),
                    iterator=ocp.args.JsonRestore(), record=ocp.args.JsonRestore()))
            except (ValueError, KeyError) as error:
                if lost_peer(error):
                    raise
                raise UserError(
                    f"checkpoint {step} in {self.folder} holds another model than the config "
                    "describes: use a new --workdir") from error
            # Orbax hands out what is stored, whatever shape it was asked for.
            stored = {k: x.shape for k, x in found["state"].items()}
            if stored != {k: x.shape for k, x in target.items()}:
                raise UserError(f"checkpoint {step} in {self.folder} holds another model than the "
                                "config describes: use a new --workdir")
            state = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(found["state"]))
            self._current = step
            return step, state, found["iterator"], found["record"]
        if steps:
            raise UserError(f"every checkpoint in {self.folder} is damaged; move the folder away "
                            "to start over")
        return None

    def close(self) -> None:
        """Lets the save under way end.

        A failure that nobody has waited for becomes a warning line: something else went wrong
        before, and must be what the user hears of.
        """
        try:
            self.wait()
        except Exception as error:
            logging.warning("%s", error)
        if self._writer:
            self._writer.shutdown()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Turns the errors of writing into one `UserError`."""
        try:
            yield
        except Exception as error:
            reason = _refusal(error)
            if reason is None:
                raise
            raise UserError(
                f"cannot save step {step} to {self.folder}: {reason}; older checkpoints are "
                "whole: make room there or allow writing, then run the same command") from error

    def _stored(self) -> list[int]:
        """Steps that Orbax knows, sealed or not, oldest first; the same list in every process."""
        return sorted(self._manager.all_steps())

    def _drop(self, step: int) -> None:
        """Deletes a step, its seal first; every process must take part."""
        if jax.process_index() == 0:
            (self.folder / f"{step}.json").unlink(missing_ok=True)
        if step in self._stored():
            self._manager.delete(step)

    def _damage(self, step: int) -> str:
        try:
            sealed = json.loads((self.folder / f"{step}.json").read_text())
        except (ValueError, OSError):
            sealed = None
        if not isinstance(sealed, dict) or not sealed:
            return "its seal cannot be read"
        found = hash_files(self.folder / str(step))
        for name in sorted(sealed.keys() | found.keys()):
            if name not in found:
                return f"{name} is missing"
            if sealed.get(name) != found[name]:
                return f"{name} has changed"
        return ""


def hash_files(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `folder`."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(
                    file, "sha256").hexdigest()
    return found


@functools.cache
def _hush_orbax() -> None:
    """One failed save, which is also raised, would otherwise be told in dozens of tracebacks.

    By Orbax's log and threads, by asyncio of the tasks that Orbax forgot, and by TensorStore, which
    calls back an event loop that is closed by then.
    """
    py_logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    py_logging.getLogger("asyncio").addFilter(
        lambda record: "orbax" not in record.getMessage())
    of_thread, ignored = threading.excepthook, sys.unraisablehook

    def tell_of_thread(failed):
        if not type(failed.thread).__module__.startswith("orbax."):
            of_thread(failed)

    def tell_ignored(failed):
        if str(failed.exc_value) != "Event loop is closed":
            ignored(failed)

    threading.excepthook, sys.unraisablehook = tell_of_thread, tell_ignored


def _refusal(error: BaseException | None) -> str | None:
    """What the disk said, if it did: Python's words, or TensorStore's within its long ones."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return os.strerror(error.errno)
        for code in DISK_ERRORS:
            if os.strerror(code) in str(error):
                return os.strerror(code)
        error = error.__cause__ or error.__context__
    return None


def _plain(state: Any) -> dict[str, Any]:
    """A state tree -> {number: leaf}: optimiser states nest tuples that Orbax would rename."""
    return {f"{i:05d}": x for i, x in enumerate(jax.tree.leaves(state))}


def _to_host(leaves: dict[str, Any]) -> dict[str, np.ndarray]:
    """The leaves as numpy arrays that nobody else writes to, complete on return."""
    for x in leaves.values():
        if isinstance(x, jax.Array):
            x.copy_to_host_async()  # all of them are on their way before the first is waited for
    return {k: np.array(x) if _is_on_host(x) else np.asarray(x) for k, x in leaves.items()}


def _is_on_host(x) -> bool:
    """Whether `np.asarray(x)` may be a view of memory that is not ours."""
    return not isinstance(x, jax.Array) or any(d.platform == "cpu" for d in x.devices())


def _target(x):
    if isinstance(x, jax.ShapeDtypeStruct) and x.sharding is not None:
        return x
    return np.zeros(x.shape, x.dtype)
