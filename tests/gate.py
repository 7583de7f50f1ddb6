"""A checkpoint that is held up while it is written, and a disk that refuses."""

import errno
import os
import threading

from cr_jax.training import checkpoint

PATIENCE = 20.0  # seconds, of tests that fail


class Gate:
    """Holds up the hashing of some steps, between their writing and their seal."""

    def __init__(self, monkeypatch, steps):
        self.reached, self.open, self.hashed = threading.Event(), threading.Event(), []
        self.held = []  # steps whose commit was held up until somebody opened
        hash_files = checkpoint.hash_files

        def hashing(folder):
            step = int(folder.name)
            if step in steps:
                self.reached.set()
                if self.open.wait(PATIENCE):
                    self.held.append(step)
            self.hashed.append(step)
            return hash_files(folder)

        monkeypatch.setattr(checkpoint, "hash_files", hashing)


def refuse(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
