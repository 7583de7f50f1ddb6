"""What language models read: all domains in equal parts, own text with a share of all, parts.

Not in the paper.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int64

from cr_jax.data import Corpus, Mixture
from cr_jax.errors import UserError

Texts = Mapping[str, Corpus | Mixture]
# partition(texts, parts) -> the text of each part by its name.
Partition = Callable[[Texts, int], Texts]


def all_domains(texts: Texts) -> Mixture:
    """Every domain equally often."""
    return _mixed([(source, 1.0) for source in texts.values()])


def own_and_all(texts: Texts, name: str, share: float) -> Corpus | Mixture:
    """A domain's own text; `share` of the rows come from all domains, it among them."""
    if not share:
        return texts[name]
    own = [(texts[name], 1.0 - share)] if share < 1 else []
    return _mixed(own + [(source, share / len(texts)) for source in texts.values()])


def random_parts(texts: Texts, parts: int, seed: int) -> dict[str, Mixture]:
    """All domains' documents dealt at random to `parts` parts: "part_00" on.

    A part reads its documents of every domain equally often.  A domain of fewer documents than
    parts is missing in some.  `UserError` where a part would be empty.
    """
    random = np.random.default_rng(seed)
    corpora: list[list[Corpus]] = [[] for _ in range(parts)]
    for source in texts.values():
        pieces: list[list[Corpus]] = [[] for _ in range(parts)]
        for corpus, _ in _weighted(source):
            order = random.permutation(len(corpus.starts) - 1)
            for part in range(parts):
                if len(chosen := np.sort(order[part::parts])):
                    pieces[part].append(some_documents(corpus, chosen))
        random.shuffle(pieces)  # or the first parts would get every domain's odd documents
        for part in range(parts):
            if pieces[part]:
                corpora[part].append(_joined(pieces[part]))
    if not all(corpora):
        count = sum(len(c.starts) - 1 for x in texts.values() for c, _ in _weighted(x))
        raise UserError(
            f"{count:,} documents cannot be dealt to {parts} parts: give more text, or leave "
            "random_split out of config.modular.arms"
        )
    return {f"part_{i:02d}": Mixture(x, [1.0] * len(x)) for i, x in enumerate(corpora)}


def some_documents(corpus: Corpus, chosen: Int64[np.ndarray, " n"]) -> Corpus:
    """A corpus of some of its documents, by their places; its bytes are estimated by tokens."""
    bounds = [(int(corpus.starts[i]), int(corpus.starts[i + 1])) for i in chosen]
    tokens = np.concatenate([corpus.tokens[a:b] for a, b in bounds])
    starts = np.concatenate([[0], np.cumsum([b - a for a, b in bounds])]).astype(np.int64)
    return Corpus(
        tokens,
        starts,
        round(corpus.bytes * len(tokens) / max(1, len(corpus.tokens))),
        corpus.fingerprint,
        [corpus.names[i] for i in chosen],
    )


def _joined(corpora: list[Corpus]) -> Corpus:
    """One corpus of several; the first one's fingerprint."""
    if len(corpora) == 1:
        return corpora[0]
    offsets = np.cumsum([0] + [len(c.tokens) for c in corpora])
    return Corpus(
        np.concatenate([c.tokens for c in corpora]),
        np.concatenate(
            [np.zeros(1, np.int64)] + [c.starts[1:] + o for c, o in zip(corpora, offsets)]
        ),
        sum(c.bytes for c in corpora),
        corpora[0].fingerprint,
        [name for c in corpora for name in c.names],
    )


def _weighted(source: Corpus | Mixture) -> list[tuple[Corpus, float]]:
    """Its corpora with the share of rows that each gets."""
    if isinstance(source, Corpus):
        return [(source, 1.0)]
    weights = np.array(
        [len(c.tokens) for c in source.corpora] if source.weights is None else source.weights, float
    )
    return list(zip(source.corpora, (weights / weights.sum()).tolist(), strict=True))


def _mixed(sources: list[tuple[Corpus | Mixture, float]]) -> Mixture:
    """One mixture; a corpus that comes twice gets both shares."""
    shares: dict[int, list] = {}
    for source, weight in sources:
        for corpus, share in _weighted(source):
            entry = shares.setdefault(id(corpus), [corpus, 0.0])
            entry[1] += weight * share
    return Mixture([c for c, _ in shares.values()], [w for _, w in shares.values()])
