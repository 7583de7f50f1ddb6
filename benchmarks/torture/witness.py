"""main.py, watched: notes which windows training draws and what a checkpoint gives back.

    TORTURE_NOTES=FILE TORTURE_STOP=STEP python benchmarks/torture/witness.py FLAGS OF MAIN.PY

Asks itself to stop, with SIGTERM, when it has drawn the batch of step STEP (0: never).
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from absl import app

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from cr_jax.cli import train


class Drawn:
    """A data iterator that writes down the SHA-256 of each row it hands out."""

    def __init__(self, iterator, notes, stop: int):
        self._iterator, self._notes, self._stop = iterator, notes, stop

    def __next__(self):
        step = self._iterator.get_state()["next_index"]
        batch = next(self._iterator)
        rows = np.moveaxis(batch["tokens"], 1, 0)  # [b, E, L]
        self._notes.write({"step": step, "rows": [_hash(row) for row in rows]})
        if step + 1 == self._stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    def __getattr__(self, name):
        return getattr(self._iterator, name)


class Notes:
    def __init__(self, path: str):
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def watch(notes: Notes, stop: int) -> None:
    """Puts the witnesses in the places that `experiment.compressors` and the loop look up."""
    import jax

    from cr_jax.experiment import compressors
    from cr_jax.training import loop

    make = compressors.train_iterator
    compressors.train_iterator = lambda *a, **k: Drawn(make(*a, **k), notes, stop)

    def digest(state):
        leaves = jax.tree.leaves(state)
        seen = lambda x: x.is_fully_addressable or x.is_fully_replicated
        if not all(seen(x) for x in leaves if isinstance(x, jax.Array)):
            return None  # of several processes none sees all of it
        return _hash(*(np.asarray(x) for x in leaves))

    class Checkpointer(loop.Checkpointer):
        def save(self, step, state, *others):
            super().save(step, state, *others)
            notes.write({"saved": step, "digest": digest(state)})

        def restore(self, *arguments):
            found = super().restore(*arguments)
            if found:
                notes.write({"restored": found[0], "digest": digest(found[1])})
            return found

    loop.Checkpointer = Checkpointer


def _hash(*arrays) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def start(argv):
    watch(Notes(os.environ["TORTURE_NOTES"]), int(os.environ.get("TORTURE_STOP", "0")))
    train.main(argv)


if __name__ == "__main__":
    train.define_flags()
    app.run(start, flags_parser=train.parse)
