"""The expert of a domain that was found, trained on the domain's documents alone.

They and the checkpoints lie in the buffer, so the same call goes on after a stop.  Not in the
paper.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from cr_jax.bank.files import CannotWrite
from cr_jax.continual import search
from cr_jax.continual.buffer import TRAINING, Buffer
from cr_jax.continual.journal import Event, cannot_write
from cr_jax.errors import UserError
from cr_jax.experiment.new_experts import NewExperts, train_new
from cr_jax.host.files import DISK_ERRORS
from cr_jax.host.inside import NotInside
from cr_jax.host.locks import Busy


class CannotTrain(UserError):
    """These documents make no expert of this name, and would not at the next start either."""


def train_expert(
    bank: Path, buffer: Buffer, found: Event, tokens: Mapping[str, int], say: Callable[[str], None]
) -> None:
    """Trains, calibrates and mounts the expert of a `found` event.

    tokens: of each of its documents.  `CannotTrain` for too little text or a name that is taken;
    another `UserError` where the disk or another process is in the way; `training.loop.Interrupted`
    as `train_new`.
    """
    name = found["expert"]
    train, valid = search.split({key: tokens[key] for key in found["ids"]})
    texts = lambda keys: (buffer.text(key) for key in keys)
    new = NewExperts(
        {name: [f"jsonl:{buffer.write_found(name, texts(train))}#text"]},
        {name: [f"jsonl:{buffer.write_found(name, texts(valid), 'valid')}#text"]},
        steps=found["steps"],
        start="" if found["start"] == "noise" else found["start"],
    )
    workdir = buffer.path / TRAINING / name
    try:
        train_new(bank, new, workdir, say)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise cannot_write(error.filename or workdir, error) from error
    except UserError as error:
        if _passes(error):
            raise
        raise CannotTrain(str(error)) from error


def _passes(error: UserError) -> bool:
    """Whether the same call may do better later: the disk or another process was in the way."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (CannotWrite, Busy, NotInside, OSError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
