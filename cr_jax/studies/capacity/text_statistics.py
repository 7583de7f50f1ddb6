"""What a window says of itself, without any expert: how far it can be squeezed, how it repeats."""

import lzma
import math
import zlib

import numpy as np
from jaxtyping import Float

from cr_jax.data.tokenizers.token_table import Tokenizer
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError

NEAR = 8  # tokens back that a repetition is looked for
_COMPRESSORS = {
    "zlib": lambda data: zlib.compress(data, 9, -15),  # no header: it would count in a window
    "lzma": lambda data: lzma.compress(
        data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}]
    ),
}


def complexity(
    tokenizer: Tokenizer, windows: Windows, compressor: str = "zlib"
) -> Float[np.ndarray, " N"]:
    """Size of each window's text after a general-purpose compressor, in nats/token.

    compressor: "zlib" or "lzma".  A text that such a compressor shrinks to little is easy for a
    reason that is no domain's.  Not in the paper; compare arXiv 1909.11480 for images.
    """
    if compressor not in _COMPRESSORS:
        raise UserError(f"compressor {compressor!r} is unknown; use {' or '.join(_COMPRESSORS)}")
    squeeze, nats = _COMPRESSORS[compressor], np.empty(len(windows))
    for i, (tokens, mask) in enumerate(zip(windows.tokens, windows.mask, strict=True)):
        data = tokenizer.decode(tokens[mask]).encode("utf-8", "replace")
        nats[i] = 8 * math.log(2) * len(squeeze(data)) / max(1, mask.sum())
    return nats


def repetition(windows: Windows) -> Float[np.ndarray, "N 2"]:
    """Log of the share of distinct tokens, and the share of tokens that one of the 8 before equals.

    Digits, tables and repeated tokens are cheap for any expert that knows the characters; own text
    seldom repeats like that.  Not in the paper.
    """
    tokens, mask = windows.tokens, windows.mask
    count = np.maximum(1, mask.sum(1))
    ordered = np.sort(np.where(mask, tokens, -1), 1)
    new = np.diff(ordered, axis=1, prepend=-2) != 0
    distinct = (new & (ordered >= 0)).sum(1)
    again = np.zeros(tokens.shape, bool)
    for back in range(1, min(NEAR, tokens.shape[1] - 1) + 1):
        again[:, back:] |= tokens[:, back:] == tokens[:, :-back]
    return np.stack([np.log(np.maximum(1, distinct) / count), (again & mask).sum(1) / count], 1)
