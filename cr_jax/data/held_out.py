"""Text without a validation split: some of its documents are held out.  Not in the paper."""

import hashlib
from collections.abc import Sequence

import numpy as np

from cr_jax.data.corpus import Corpus
from cr_jax.data.tokenizers import Tokenizer
from cr_jax.errors import UserError

SHARE = 0.1  # of the documents


def hold_out(
    corpora: Sequence[Corpus], tokenizer: Tokenizer, share: float = SHARE
) -> tuple[list[Corpus], Corpus]:
    """-> (each corpus without what is held out, all that is held out as one corpus).

    A share of the documents, at least one: those with the lowest SHA-256 of their tokens, so that
    equal documents stay together and the choice does not depend on names or order.  `UserError`
    where nothing would be left on one side.
    """
    marks = [_marks(corpus) for corpus in corpora]
    kinds = sorted({mark for own in marks for mark in own})
    last = kinds[max(1, round(share * len(kinds))) - 1]
    held = [np.array([mark <= last for mark in own]) for own in marks]
    if any(own.all() for own in held):
        raise UserError(
            f"too little text to hold some out ({len(kinds)} different documents, and one is never "
            "cut in two): give validation text of its own, or more"
        )
    rests = [_some(c, ~own, tokenizer) for c, own in zip(corpora, held, strict=True)]
    out = [_some(c, own, tokenizer) for c, own in zip(corpora, held, strict=True) if own.any()]
    return rests, _joined(out)


def _marks(corpus: Corpus) -> list[bytes]:
    """Of each document, by its tokens."""
    bounds = zip(corpus.starts[:-1], corpus.starts[1:], strict=True)
    return [hashlib.sha256(corpus.tokens[a:b].tobytes()).digest() for a, b in bounds]


def _some(corpus: Corpus, which: np.ndarray, tokenizer: Tokenizer) -> Corpus:
    sizes = np.diff(corpus.starts)
    tokens = corpus.tokens[np.repeat(which, sizes)]
    chosen = np.flatnonzero(which)
    digest = hashlib.sha256(corpus.fingerprint.encode() + chosen.astype("<i8").tobytes())
    return Corpus(
        tokens,
        np.concatenate([[0], np.cumsum(sizes[which])]).astype(np.int64),
        len(tokenizer.to_bytes(tokens)),
        digest.hexdigest(),
        [corpus.names[i] for i in chosen],
    )


def _joined(corpora: Sequence[Corpus]) -> Corpus:
    if len(corpora) == 1:
        return corpora[0]
    sizes = np.concatenate([np.diff(c.starts) for c in corpora])
    return Corpus(
        np.concatenate([c.tokens for c in corpora]),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        sum(c.bytes for c in corpora),
        hashlib.sha256("".join(c.fingerprint for c in corpora).encode()).hexdigest(),
        [name for c in corpora for name in c.names],
    )
