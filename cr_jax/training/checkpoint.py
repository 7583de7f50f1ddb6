"""Checkpoints that notice damage: Orbax for the arrays, a SHA-256 manifest per step for trust.

WORKDIR/checkpoints/STEP/ is Orbax's; WORKDIR/checkpoints/STEP.json seals it: the hash of every
file, written last and only when all that a restore opens has been opened, so a step without a seal
was never finished.  Orbax alone restores flipped bits without a word.

A save costs its caller a copy of the state to the host; one thread of ours then writes, hashes,
seals and deletes older steps, in that order, through Orbax's synchronous checkpointer.  Orbax's own
asynchronous one ends before the seal, so that thread would be needed beside its two, and on CPU
devices it holds views of buffers that the next step is meant to reuse.  Which steps there are, and
which of them is restored, process 0 decides alone: listings of a shared folder differ and lag.
"""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from cr_jax.errors import UserError, lost_peer, one_line, turning
from cr_jax.host.files import refusal, sha256
from cr_jax.host.inside import Inside
from cr_jax.parallel import processes
from cr_jax.training.orbax_setup import hush_orbax, plain_place
from cr_jax.training.step_files import hash_files, incomplete, numbers, stored_shapes
from cr_jax.training.workdir import check_in_place

SEEN_WITHIN = 60.0  # seconds that a shared folder may take to show what another process sealed


class Checkpointer:
    """Saves and restores (state, data iterator, run record) under one folder.

    One process writes in the background.  Several save synchronously: Orbax lets them wait for
    each other, and a second thread's barriers would cross the collectives of the steps.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).resolve()
        self._keep = keep
        self._current: int | None = None  # the step that the run stands on, once known
        self._writer = (
            None
            if jax.process_count() > 1
            else futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        )
        self._saving: futures.Future | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {folder}: {error.strerror}") from None
        self._inside = Inside.at(self.folder)
        hush_orbax()
        self._place = plain_place(self.folder, self)
        self._orbax = ocp.Checkpointer(ocp.CompositeCheckpointHandler())

    def steps(self) -> list[int]:
        """Sealed steps, oldest first."""
        return numbers(
            name.removesuffix(".json") for name in os.listdir(self.folder) if name.endswith(".json")
        )

    def save(
        self, step: int, state: Any, iterator: dict, record: dict, best: int | None = None
    ) -> None:
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
                self._commit, step, _to_host(_plain(state)), iterator, record, best
            )

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

    def _commit(
        self, step: int, leaves: dict, iterator: dict, record: dict, best: int | None
    ) -> None:
        """Writes one step and seals it, then drops all but the newest `keep` and the best one.

        Steps behind the one that was restored, damaged or never finished, make way first.
        """
        with self._writing(step):
            check_in_place(self._inside)
            self._write(step, leaves, iterator, record)
            if processes.is_first():
                kept = {*self.steps()[-self._keep :], best}
                for old in sorted({*self._stored(), *self.steps()} - kept):
                    self._drop(old)

    def _write(self, step: int, leaves: dict, iterator: dict, record: dict) -> None:
        stands = step - 1 if self._current is None else self._current
        first = processes.is_first()
        if first:
            for lost in sorted({*self._stored(), *self.steps()}):
                if lost > stands:
                    self._drop(lost)
            self._sweep()
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(leaves),
            iterator=ocp.args.JsonSave(iterator),
            record=ocp.args.JsonSave(record),
        )
        try:
            self._orbax.save(self._place / str(step), args=parts)
        except FileExistsError:
            if jax.process_count() > 1:
                raise
            # What failed a moment ago in this process may still make folders behind its back.
            time.sleep(1)
            self._drop(step)
            self._sweep()
            self._orbax.save(self._place / str(step), args=parts)
        if first:
            hashes = hash_files(self.folder / str(step))
            if problem := incomplete(self._place / str(step)):
                raise UserError(
                    f"cannot save step {step} to {self.folder}: {problem} after it was written; "
                    "older checkpoints are whole: check the disk, then run the same command"
                )
            seal = self.folder / f"{step}.json"
            partial = seal.with_suffix(".partial")
            partial.write_text(json.dumps(hashes, indent=0))
            os.replace(partial, seal)
        self._current = step

    def restore(
        self, like: Any, check: Callable[[dict], None] = lambda record: None
    ) -> tuple[int, Any, dict, dict] | None:
        """The newest undamaged step as (step, state, iterator, record); None when there is none.

        like: a state of the same shapes; the values come back as numpy arrays, or, where a leaf is
        a `jax.ShapeDtypeStruct` with a sharding, as an array that lies so: each process then reads
        its own parts.  check(record) may raise before any array is read.  A damaged step, also one
        without a part that is needed, is passed over with one warning line.  Of several processes
        process 0 chooses the step, and all compare its seal before they read.  Raises `UserError`
        when steps exist and all are damaged, when the stored shapes are another model's, and when
        the processes do not see the same step.
        """
        self.wait()
        target = {k: _target(x) for k, x in _plain(like).items()}
        passed: list[int] = []
        while chosen := processes.from_first(lambda: self._newest(passed)):
            step, digest = chosen
            self._compare(step, digest)
            described = self._attempt(
                lambda step=step: (
                    self._read(step, record=ocp.args.JsonRestore())["record"],
                    stored_shapes(self._place / str(step)),
                ),
                step,
                passed,
            )
            if described is None:
                continue
            record, shapes = described
            check(record)
            if shapes != {k: x.shape for k, x in target.items()}:
                raise UserError(
                    f"checkpoint {step} in {self.folder} holds another model than the "
                    "config describes: use a new --workdir"
                )
            stored = self._attempt(
                lambda step=step: self._read(
                    step,
                    state=ocp.args.StandardRestore(target),
                    iterator=ocp.args.JsonRestore(),
                    record=ocp.args.JsonRestore(),
                ),
                step,
                passed,
            )
            if stored is None:
                continue
            state = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(stored["state"]))
            self._current = step
            return step, state, stored["iterator"], stored["record"]
        if processes.from_first(self.steps):
            raise UserError(
                f"every checkpoint in {self.folder} is damaged or cannot be read: check the disk, "
                "or move the folder away to start over"
            )
        return None

    def _newest(self, passed: list[int]) -> tuple[int, str] | None:
        """The newest good step that is not among those passed over, and its seal's SHA-256."""
        for step in reversed(self.steps()):
            if step in passed:
                continue
            if problem := self._damage(step):
                self._pass_over(step, problem, passed)
                continue
            return step, sha256(self.folder / f"{step}.json")
        return None

    def _attempt(self, read: Callable[[], Any], step: int, passed: list[int]) -> Any:
        """What `read()` gives; None where the step cannot be read, which is then passed over."""
        try:
            return read()
        except Exception as error:
            if lost_peer(error) or jax.process_count() > 1:
                raise  # the others may wait for this one in the middle of their reading
            self._pass_over(step, " ".join(str(error).split())[:200], passed)
            return None

    def _pass_over(self, step: int, problem: str, passed: list[int]) -> None:
        logging.warning(
            "checkpoint %d is damaged (%s); trying the one before", step, one_line(problem)
        )
        passed.append(step)

    def _compare(self, step: int, digest: str) -> None:
        """`UserError` on every process unless all of them see the seal that process 0 chose."""
        if jax.process_count() == 1:
            return
        deadline, own = time.monotonic() + SEEN_WITHIN, ""
        while own != digest:
            with contextlib.suppress(UserError):
                own = sha256(self.folder / f"{step}.json")
            if own == digest or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if not processes.all_true(own == digest):
            who = "another process" if own == digest else f"process {jax.process_index()}"
            raise UserError(
                f"{who} does not see checkpoint {step} in {self.folder} as process 0 "
                "does: all must share one folder; wait until it shows the same files "
                "everywhere, then start all processes again"
            )

    def _read(self, step: int, **parts) -> Any:
        return self._orbax.restore(self._place / str(step), args=ocp.args.Composite(**parts))

    def close(self) -> None:
        """Lets the save under way end.

        A failure that nobody has waited for becomes a warning line: something else went wrong
        before, and must be what the user hears of.
        """
        try:
            self.wait()
        except Exception as error:
            logging.warning("%s", one_line(error))
        if self._writer:
            self._writer.shutdown()
        self._orbax.close()

    def _writing(self, step: int) -> turning:
        """Turns the errors of writing into one `UserError`."""

        def told(error: Exception) -> UserError | None:
            reason = refusal(error)
            if reason is None:
                return None
            return UserError(
                f"cannot save step {step} to {self.folder}: {reason}; older checkpoints are "
                "whole: make room there or allow writing, then run the same command"
            )

        return turning(told, Exception)

    def _stored(self) -> list[int]:
        """Steps that have a folder, sealed or not, oldest first."""
        return numbers(os.listdir(self.folder))

    def _drop(self, step: int) -> None:
        """Deletes a step, its seal first; for process 0, before or after all have written."""
        (self.folder / f"{step}.json").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder / str(step))

    def _sweep(self) -> None:
        """Deletes what a save that was cut short left under Orbax's temporary names."""
        for name in os.listdir(self.folder):
            if re.fullmatch(r"[0-9]+\.orbax-checkpoint-tmp.*", name):
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _damage(self, step: int) -> str:
        try:
            sealed = json.loads((self.folder / f"{step}.json").read_text())
        except (ValueError, OSError):
            sealed = None
        if not isinstance(sealed, dict) or not sealed:
            return "its seal cannot be read"
        try:
            hashes = hash_files(self.folder / str(step))
        except (UserError, OSError) as error:
            return str(error)
        for name in sorted(sealed.keys() | hashes.keys()):
            if name not in hashes:
                return f"{name} is missing"
            if sealed.get(name) != hashes[name]:
                return f"{name} has changed"
        return incomplete(self._place / str(step))


def _plain(state: Any) -> dict[str, Any]:
    """A state tree -> {number: leaf}: optimiser states nest tuples that Orbax would rename."""
    return {f"{i:05d}": x for i, x in enumerate(jax.tree.leaves(state))}


def _to_host(leaves: dict[str, Any]) -> dict[str, np.ndarray]:
    """The leaves as numpy arrays that nobody else writes to, complete on return."""
    here = {k: _is_on_host(x) for k, x in leaves.items()}
    for k, x in leaves.items():
        if not here[k]:  # JAX 0.11 would keep a view, and the next step could not reuse the memory
            x.copy_to_host_async()  # all of them are on their way before the first is waited for
    return {k: np.array(x) if here[k] else np.asarray(x) for k, x in leaves.items()}


def _is_on_host(x) -> bool:
    """Whether `np.asarray(x)` may be a view of memory that is not ours."""
    return not isinstance(x, jax.Array) or any(d.platform == "cpu" for d in x.devices())


def _target(x):
    if isinstance(x, jax.ShapeDtypeStruct) and x.sharding is not None:
        return x
    return np.zeros(x.shape, x.dtype)
