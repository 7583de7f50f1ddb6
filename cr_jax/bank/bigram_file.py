"""A scout as a safetensors file of its expert's folder.  Not in the paper."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from cr_jax.bank.parameters import opened
from cr_jax.errors import UserError
from cr_jax.scoring.bigram import MOST, Scout, bits_without_loss, slot_bits


def write(file: Path, scout: Scout) -> None:
    """Stores a scout as safetensors."""
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in scout._asdict().items()}, file)


def read(file: Path, vocab_size: int) -> Scout:
    """What `write` wrote.  `UserError` when it is missing, cut short, or no scout of V tokens."""
    with opened(file) as stored:
        slices = {k: stored.get_slice(k) for k in stored.keys()}  # noqa: SIM118 (not a dict)
        header = {k: (s.get_dtype(), tuple(s.get_shape())) for k, s in slices.items()}
        # Nothing else is read: the header is checked first.
        found = Scout(*map(stored.get_tensor, Scout._fields)) if _is_scout(
            header, vocab_size) else None
    if found is None or not _makes_sense(found):
        raise UserError(f"{file} is no scout of {vocab_size} tokens: store the expert again")
    return found


def _is_scout(header, vocab_size: int) -> bool:
    pairs = header.get("keys", ("", ()))[1]
    return len(pairs) == 1 and pairs[0] <= MOST and header == {
        "keys": ("U32", pairs), "nats": ("F16", pairs),
        "after": ("F16", (vocab_size,)), "alone": ("F16", (vocab_size,))}


def _makes_sense(scout: Scout) -> bool:
    rising = (np.diff(scout.keys.astype(np.int64)) > 0).all()
    finite = all(np.isfinite(x).all() and (x >= 0).all() for x in scout[1:])
    # More bits than this are no hashes, and would be a table of any size.
    return bool(rising and finite
                and bits_without_loss(scout.keys) <= slot_bits(scout.keys.size) + 2)
