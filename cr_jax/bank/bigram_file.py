"""A bigram model as a safetensors file of its expert's folder.  Not in the paper."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from cr_jax.bank.headers import HEADER_MOST, read_arrays, read_header
from cr_jax.errors import UserError
from cr_jax.scoring.bigram_model import EXACT, MOST, BigramModel, bits_without_loss, slot_bits

_PAIR = 10  # bytes of a key, its nats and its high bits


def dumps(bigram: BigramModel) -> bytes:
    """A bigram model as a safetensors file; `high` is left out where it is empty."""
    fields = {k: v for k, v in bigram._asdict().items() if k != "high" or v.size}
    return safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in fields.items()})


def most_bytes(vocab_size: int) -> int:
    """What such a file of V tokens may hold at most."""
    return HEADER_MOST + _PAIR * MOST + 4 * vocab_size


def loads(data: bytes, vocab_size: int, where: Path) -> BigramModel:
    """What `dumps` wrote.  `UserError` when it is cut short, or not of V tokens."""
    header = {k: (x.dtype, x.shape) for k, x in read_header(data, len(data), where).items()}
    found = None
    if _is_bigram_file(header, vocab_size):
        arrays = read_arrays(data, where)
        found = BigramModel(**arrays)
    if found is None or not _makes_sense(found):
        raise UserError(
            f"{where} is no bigram model of {vocab_size} tokens: store the expert again"
        )
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
            **({"high": ("U32", shape)} if "high" in header and vocab_size > EXACT else {}),
        }
    )


def _makes_sense(bigram: BigramModel) -> bool:
    rising = (np.diff(bigram.keys.astype(np.int64)) > 0).all()
    finite = all(np.isfinite(x).all() and (x >= 0).all() for x in bigram[1:4])
    # More bits than this are no hashes, and would be a table of any size.
    return bool(
        rising and finite and bits_without_loss(bigram.keys) <= slot_bits(bigram.keys.size) + 2
    )
