"""A bigram model as a safetensors file of its expert's folder.  Not in the paper."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from cr_jax.bank.headers import opened
from cr_jax.errors import UserError
from cr_jax.files import give_usual_mode
from cr_jax.scoring.bigram import MOST, BigramModel, bits_without_loss, slot_bits


def write(file: Path, bigram: BigramModel) -> None:
    """Stores a bigram model as safetensors."""
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in bigram._asdict().items()}, file
    )
    give_usual_mode(file)  # the library makes it for its owner alone


def read(file: Path, vocab_size: int) -> BigramModel:
    """What `write` wrote.  `UserError` when it is missing, cut short, or not of V tokens."""
    with opened(file) as stored:
        slices = {k: stored.get_slice(k) for k in stored.keys()}  # noqa: SIM118 (not a dict)
        header = {k: (s.get_dtype(), tuple(s.get_shape())) for k, s in slices.items()}
        # Nothing else is read: the header is checked first.
        found = (
            BigramModel(*map(stored.get_tensor, BigramModel._fields))
            if _is_bigram_file(header, vocab_size)
            else None
        )
    if found is None or not _makes_sense(found):
        raise UserError(f"{file} is no bigram model of {vocab_size} tokens: store the expert again")
    return found


def _is_bigram_file(header, vocab_size: int) -> bool:
    shape = header.get("keys", ("", ()))[1]
    return (
        len(shape) == 1
        and shape[0] <= MOST
        and header
        == {
            "keys": ("U32", shape),
            "nats": ("F16", shape),
            "after": ("F16", (vocab_size,)),
            "alone": ("F16", (vocab_size,)),
        }
    )


def _makes_sense(bigram: BigramModel) -> bool:
    rising = (np.diff(bigram.keys.astype(np.int64)) > 0).all()
    finite = all(np.isfinite(x).all() and (x >= 0).all() for x in bigram[1:])
    # More bits than this are no hashes, and would be a table of any size.
    return bool(
        rising and finite and bits_without_loss(bigram.keys) <= slot_bits(bigram.keys.size) + 2
    )
