"""What a run's studies found, kept in its workdir as each of them ends.

A run that was stopped in its third study goes on with the third, and one that is asked for another
study makes that one alone.  Not in the paper.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import cr_jax
from cr_jax import config as settings
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.host.files import FORMAT
from cr_jax.host.inside import Inside
from cr_jax.report.text import plain
from cr_jax.studies.interface import Context, Found, Study

FOLDER = "studies"  # of a workdir


class KeptStudies:
    """The finished studies of one run, WORKDIR/studies/NAME.json; what `registry.run` asks.

    One is taken again only where settings, validation and test text, the bank and all code are
    those that it was made with; any other file gives way.
    """

    def __init__(self, workdir: Inside, context: Context):
        self.workdir, self.context = workdir, context

    def get(self, study: Study) -> Found | None:
        """What the study found before, as report.json says it; None where it is to be made."""
        try:
            with self.workdir.folder(FOLDER) as folder:
                raw = folder.read_sealed(f"{study.name}.json")
            if raw["made_of"] == self._made_of(study):
                return Found(raw["part"], raw["section"])
        except (UserError, KeyError):
            pass  # none there, or not one of ours
        return None

    def put(self, study: Study, found: Found) -> None:
        """Keeps it, whole or not at all.  `OSError` where the folder cannot be written."""
        if (made_of := self._made_of(study)) is None:
            return
        there = self.workdir.is_folder(FOLDER)
        with (self.workdir.folder if there else self.workdir.new_folder)(FOLDER) as folder:
            raw = {"format": FORMAT, "made_of": made_of, **found._asdict()}
            folder.write_sealed(f"{study.name}.json", plain(raw))

    def _made_of(self, study: Study) -> str | None:
        """A hash of all that the result follows from; None where its code is in no
        file, or the bank in no folder."""
        if self.context.bank.folder is None:
            return None
        try:
            own = Path(inspect.getfile(study.run)).read_bytes()
        except (OSError, TypeError):
            return None
        return _hash([study.name.encode(), own, self._inputs.encode()])

    @functools.cached_property
    def _inputs(self) -> str:
        c = self.context
        made_by = {k: v for k, v in settings.to_dict(c.experiment).items() if k != "studies"}
        texts = [(split, getattr(c.text, split)) for split in ("valid", "test", "valid_documents")]
        return _hash(
            [
                json.dumps(made_by, sort_keys=True).encode(),
                *(p.read_bytes() for p in sorted(c.bank.folder.glob("*.json"))),
                *(f"{s} {n} {_of(w)}".encode() for s, of in texts for n, w in sorted(of.items())),
                *_code(),
            ]
        )


def _of(windows: Windows) -> str:
    return _hash(np.ascontiguousarray(x).tobytes() for x in (windows.tokens, windows.mask))


def _code() -> Iterable[bytes]:
    for path in sorted(Path(cr_jax.__file__).parent.rglob("*.py")):
        yield path.read_bytes()


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
