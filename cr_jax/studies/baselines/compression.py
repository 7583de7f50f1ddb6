"""Baselines `ppm` and `zstd`: how few bytes a window takes given a sample of the domain's text.

ppm: the code length of a byte-wise PPM method C compressor that has read the sample, contexts of up
to five bytes, all orders mixed (no exclusion), not learning from the window itself: computed from
exact counts, nothing is packed.  zstd: a real compressor, with the end of the sample as its raw
dictionary.  Both after Benedetto et al. 2002 and Teahan & Harper 2003; not in the paper.
"""

import re
from collections.abc import Sequence

import numpy as np
import zstandard
from jaxtyping import Bool, Int64, Integer, UInt8

from cr_jax.data import Tokenizer
from cr_jax.studies.baselines.backoff import Backoff, log_probabilities
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut

ORDER = 6  # bytes: the last and up to five before it
LEVEL = 19  # of zstd
_WINDOWS = 512  # whose n-grams are sorted at once


def fit_ppm(text: TrainingText, lengths: Sequence[int], budget: Budget) -> Baseline:
    """Counts of `budget.sample_bytes` per domain; scores are mean nats per byte, negated."""
    bytes_of = ByteTable(text.tokenizer)
    models = [
        Backoff(
            *bytes_of.flat(*_sample(text, e, budget.sample_bytes))[:2],
            order=ORDER,
            bits=8,
            alphabet=256,
        )
        for e in range(len(text.names))
    ]

    def predict(tokens, mask, lengths):
        parts = []
        for i in range(0, len(tokens), _WINDOWS):
            some = mask[i : i + _WINDOWS]
            symbols, place, ends = bytes_of.flat(tokens[i : i + _WINDOWS], some)
            sums = np.cumsum(
                np.pad(log_probabilities(models, symbols, place), ((0, 0), (1, 0))), axis=1
            )
            parts.append(
                np.stack(
                    [
                        (sums[:, stop] - sums[:, ends[:, 0]])
                        / np.maximum(stop - ends[:, 0], 1)[None]
                        for stop in (_stops(ends, some, length) for length in lengths)
                    ]
                )
            )
        return np.concatenate(parts, axis=-1)

    return Baseline(
        predict,
        independent=True,
        unit="nats/byte",
        note={
            "ngrams": sum(m.size for m in models),
            "order": ORDER,
            "sample_bytes": budget.sample_bytes,
        },
    )


def fit_zstd(text: TrainingText, lengths: Sequence[int], budget: Budget) -> Baseline:
    """`budget.dictionary_bytes` per domain; scores are compressed bytes per byte, negated."""
    bytes_of = ByteTable(text.tokenizer)
    packers = []
    for e in range(len(text.names)):
        symbols = bytes_of.flat(*_sample(text, e, budget.dictionary_bytes))[0]
        dictionary = zstandard.ZstdCompressionDict(
            symbols[-budget.dictionary_bytes :].tobytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        dictionary.precompute_compress(level=LEVEL)
        packers.append(
            zstandard.ZstdCompressor(
                dict_data=dictionary, write_checksum=False, write_content_size=False
            )
        )

    def predict(tokens, mask, lengths):
        symbols, _, ends = bytes_of.flat(tokens, mask)
        data = symbols.tobytes()
        out = np.empty((len(lengths), len(packers), len(tokens)))
        for k, length in enumerate(lengths):
            for n, (start, stop) in enumerate(zip(ends[:, 0], _stops(ends, mask, length))):
                part = data[start:stop]
                out[k, :, n] = [-len(p.compress(part)) / max(1, len(part)) for p in packers]
        return out

    return Baseline(
        predict,
        independent=True,
        unit="bytes/byte",
        note={"level": LEVEL, "dictionary_bytes": budget.dictionary_bytes},
    )


class ByteTable:
    """The UTF-8 bytes behind every token id."""

    def __init__(self, tokenizer: Tokenizer):
        pieces = tokenizer.pieces(np.arange(tokenizer.vocab_size))
        table = [_bytes(p, int(n)) for p, n in zip(pieces, tokenizer.token_bytes)]
        self._all = np.frombuffer(b"".join(table), np.uint8)
        self._lengths = np.array([len(b) for b in table], np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths

    def flat(
        self, tokens: Integer[np.ndarray, "N L"], mask: Bool[np.ndarray, "N L"]
    ) -> tuple[UInt8[np.ndarray, " T"], Int64[np.ndarray, " T"], Int64[np.ndarray, "N L1"]]:
        """(bytes of all windows in one row, position in the window, ends [N, L + 1]).

        The bytes of a window's first l tokens are ends[n, 0]:ends[n, l].
        """
        lengths = np.where(mask, self._lengths[tokens], 0)
        after = np.cumsum(lengths).reshape(lengths.shape)
        begin = after[:, :1] - lengths[:, :1]
        ends = np.concatenate([begin, after], axis=1)
        counts = lengths.ravel()
        row = np.arange(counts.sum())
        inside = row - np.repeat(after.ravel() - counts, counts)
        symbols = self._all[np.repeat(self._starts[tokens].ravel(), counts) + inside]
        return symbols, row - np.repeat(begin[:, 0], lengths.sum(1)), ends


def _bytes(piece: str, length: int) -> bytes:
    """The bytes of an id as `Tokenizer.pieces` shows it; `length` tells text from <0xE2>, <end>."""
    if not length:
        return b""
    data = piece.encode("utf-8")
    return (
        data
        if len(data) == length
        else bytes(int(code, 16) for code in re.findall("<0x(..)>", piece))
    )


def _sample(text: TrainingText, domain: int, size: int):
    """Windows with about `size` bytes: no token is longer than ten bytes on average."""
    tokens, mask = text.windows(domain)
    bytes_in = np.cumsum(np.sum(text.tokenizer.token_bytes[tokens] * mask, axis=1))
    rows = 1 + int(np.searchsorted(bytes_in, size or bytes_in[-1]))
    return tokens[:rows], mask[:rows]


def _stops(ends, mask, length: int):
    """Where the bytes of each window's first `length` real tokens end."""
    return np.take_along_axis(ends, cut(mask, length).sum(1)[:, None], axis=1)[:, 0]
