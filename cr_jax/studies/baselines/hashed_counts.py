"""Windows as sparse rows of hashed token 1- and 2-gram weights."""

import numpy as np
from jaxtyping import Bool, Integer
from scipy import sparse

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth's multiplicative hashing)


def rows(tokens: Integer[np.ndarray, "N L"], mask: Bool[np.ndarray, "N L"], bits: int):
    """Windows -> scipy CSR [N, 2^bits], float32: sqrt of the counts, each row of length 1.

    Real tokens count alone and in pairs of neighbours; different n-grams may share a column.
    """
    ids = tokens.astype(np.uint64)
    pair = mask[:, 1:] & mask[:, :-1]
    first = (ids + np.uint64(1)) * _MIX
    second = ((ids[:, :-1] + np.uint64(1)) * _MIX ^ (ids[:, 1:] + np.uint64(1))) * _MIX
    width = np.uint64(64 - bits)
    columns = np.concatenate([first >> width, second >> width], axis=1).astype(np.int32)
    kept = np.concatenate([mask, pair], axis=1)
    columns = np.sort(np.where(kept, columns, np.int32(2**31 - 1)), axis=1)
    kept = columns < 2**31 - 1
    new = kept.copy()
    new[:, 1:] &= columns[:, 1:] != columns[:, :-1]
    # Runs of equal columns: a run starts where `new` is and lasts until the next start.
    start = np.flatnonzero(new[kept])
    counts = np.diff(np.r_[start, kept.sum()])
    matrix = sparse.csr_matrix(
        (
            np.sqrt(counts).astype(np.float32),
            columns[new],
            np.r_[0, np.cumsum(new.sum(1))].astype(np.int32),
        ),
        (len(tokens), 1 << bits),
    )
    norms = np.sqrt(np.maximum(kept.sum(1), 1)).astype(np.float32)  # sum of squares = tokens
    matrix.data /= np.repeat(norms, np.diff(matrix.indptr))
    return matrix
