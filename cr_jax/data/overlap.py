"""How much held-out text also stands in training text: whole documents, and windows of tokens.

Documents are compared by a hash of all their tokens.  Windows are compared wherever they stand: the
consecutive windows of each held-out document against every run of as many tokens in the training
text, by 64-bit hashes that roll over it; two different windows get the same hash once in 10^19
pairs.  Not in the paper.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Integer, UInt64

from cr_jax.data.corpus import Corpus

WINDOW = 64  # tokens, a power of two
MOST = 1 << 28  # training tokens that are looked at; of more, evenly spread blocks
_BLOCK = 1 << 16  # tokens hashed at once: what is computed stays in the processor's cache
_ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)
_SHIFT = np.uint64(29)


def overlap(
    train: Mapping[str, Sequence[Corpus]],
    held_out: Mapping[str, Mapping[str, Corpus]],
    most: int = MOST,
) -> dict[str, dict[str, dict[str, float]]]:
    """What of each domain's held-out text stands in its training text.

    train: a domain's training text.  held_out: its splits; those of a domain without training text
    are looked for in that of all others.  -> domain -> split -> {"documents": so many are there
    whole, "of_documents", "windows": so many of its windows are, "of_windows", "share_read": of
    the training text for windows, below 1 where all domains have more than `most` tokens}.  Windows
    are `WINDOW` consecutive tokens of a document; a rest at its end counts for none.
    """
    wanted = {(n, s): _Wanted(c) for n, splits in held_out.items() for s, c in splits.items()}
    total = sum(len(corpus.tokens) for corpora in train.values() for corpus in corpora)
    step = max(1, -(-total // most))
    for name, corpora in train.items():
        own = [w for (n, _), w in wanted.items() if n == name or n not in train]
        if own:
            _look(own, corpora, step)
    return {
        n: {s: {**wanted[n, s].counts(), "share_read": 1 / step} for s in splits}
        for n, splits in held_out.items()
    }


def lines(
    counts: Mapping[str, Mapping[str, Mapping[str, float]]], trained: Collection[str]
) -> Iterator[str]:
    """One line for each domain that has any overlap; trained: the domains with training text."""
    for name, splits in counts.items():
        said = [
            f"{c['documents']:,} of {c['of_documents']:,} {split} documents "
            f"({_percent(c)} of their windows of {WINDOW} tokens)"
            for split, c in splits.items()
            if c["documents"] or c["windows"]
        ]
        if said:
            share = min(c["share_read"] for c in splits.values())
            yield (
                f"note: {name}: {' and '.join(said)} are also in "
                f"{'its' if name in trained else 'the'} training text"
                + ("" if share >= 1 else f", of which {share:.0%} was looked at")
                + "; figures on them are not those of new text"
            )


def _percent(c: Mapping[str, float]) -> str:
    return f"{100 * c['windows'] / c['of_windows'] if c['of_windows'] else 0:.3g} %"


class _Wanted:
    """The documents and windows of a held-out corpus, and which of them were found."""

    def __init__(self, corpus: Corpus):
        sizes = np.diff(corpus.starts) - 1  # without end_id
        self.documents: dict[bytes, list[int]] = {}
        for i, digest in _digests(corpus, np.flatnonzero(sizes > 0)):
            self.documents.setdefault(digest, []).append(i)
        self.sizes = np.unique(sizes[sizes > 0])
        self.of_documents = int((sizes > 0).sum())
        counts = sizes // WINDOW
        document = np.repeat(np.arange(len(sizes)), counts)
        place = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = corpus.starts[:-1][document] + place * WINDOW
        hashes = [
            _hash_rows(corpus.tokens[starts[i : i + 1024, None] + np.arange(WINDOW)])
            for i in range(0, len(starts), 1024)
        ]
        self.hashes, self.times = np.unique(
            np.concatenate([np.zeros(0, np.uint64), *hashes]), return_counts=True
        )
        self.found = np.zeros(len(self.hashes), bool)
        self.whole: set[int] = set()

    def counts(self) -> dict[str, float]:
        return {
            "documents": len(self.whole),
            "of_documents": self.of_documents,
            "windows": int(self.times[self.found].sum()),
            "of_windows": int(self.times.sum()),
        }


def _look(wanted: Sequence[_Wanted], corpora: Sequence[Corpus], step: int) -> None:
    """Marks what stands in `corpora`, whose windows are looked for in every `step`th block."""
    sizes = np.unique(np.concatenate([w.sizes for w in wanted]))
    hashes = np.unique(np.concatenate([w.hashes for w in wanted]))
    found, few, number = np.zeros(len(hashes), bool), _Few(hashes), 0
    for corpus in corpora:
        alike = np.flatnonzero(np.isin(np.diff(corpus.starts) - 1, sizes))
        for _, digest in _digests(corpus, alike):
            for w in wanted:
                w.whole.update(w.documents.get(digest, ()))
        for start in range(0, len(corpus.tokens), _BLOCK):
            if number % step == 0:
                # So many more that every run is whole in the block where it begins.
                part = np.asarray(corpus.tokens[start : start + _BLOCK + WINDOW - 1])
                found[np.searchsorted(hashes, few.members(_hash_runs(part)))] = True
            number += 1
    for w in wanted:
        w.found |= found[np.searchsorted(hashes, w.hashes)]


class _Few:
    """A set of hashes that tells quickly what is not in it."""

    def __init__(self, hashes: UInt64[np.ndarray, " n"]):
        bits = max(16, int(16 * max(1, len(hashes))).bit_length())
        self._hashes, self._shift = hashes, np.uint64(64 - bits)
        self._may = np.zeros(1 << bits, bool)
        self._may[hashes >> self._shift] = True

    def members(self, hashes: UInt64[np.ndarray, " m"]) -> UInt64[np.ndarray, " k"]:
        """Those of `hashes` that are in the set."""
        some = hashes[self._may[hashes >> self._shift]]
        if not len(some):
            return some
        at = np.minimum(np.searchsorted(self._hashes, some), len(self._hashes) - 1)
        return some[self._hashes[at] == some]


def _digests(corpus: Corpus, documents: Integer[np.ndarray, " n"]) -> Iterator[tuple[int, bytes]]:
    for i in documents.tolist():
        tokens = corpus.tokens[corpus.starts[i] : corpus.starts[i + 1] - 1]
        yield i, hashlib.blake2b(np.ascontiguousarray(tokens), digest_size=16).digest()


def _hash_rows(tokens: Integer[np.ndarray, "n L"]) -> UInt64[np.ndarray, " n"]:
    """A hash of each row: pairs of tokens, pairs of pairs, and so on."""
    h = _first(tokens)
    while h.shape[1] > 1:
        h = _join(h[:, 0::2], h[:, 1::2])
    return h[:, 0]


def _hash_runs(tokens: Integer[np.ndarray, " T"]) -> UInt64[np.ndarray, " runs"]:
    """The same hash of every run of `WINDOW` tokens."""
    h, width = _first(tokens), 1
    while width < WINDOW and len(h) > width:
        h, width = _join(h[:-width], h[width:]), 2 * width
    return h if width == WINDOW else h[:0]


def _first(tokens):
    h = (tokens.astype(np.uint64) + np.uint64(1)) * _ODD[0]
    return h ^ (h >> _SHIFT)


def _join(left, right):
    h = left * _ODD[1]
    h += right
    h *= _ODD[0]
    h ^= h >> _SHIFT
    return h
