"""New domains among kept documents: clusters that are large enough, and which experts are near.

Not in the paper.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from cr_jax.bank import ExpertBank
from cr_jax.continual import duplicates
from cr_jax.continual.discover import separate
from cr_jax.data.tokenizers.token_table import encode_many
from cr_jax.errors import UserError
from cr_jax.routing.many import ManyRouter
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ready import bigram_bank
from cr_jax.scoring.bigram_lookup import BigramLookup
from cr_jax.scoring.bigram_model import BigramModel

TOKENS = 20_000  # of a domain that gets an expert, by default
DOCUMENTS = 8  # of it, at least
SAVED = 0.1  # nats/token that its documents save by each other, at least
MOST_TOKENS = 2_000_000  # of what is looked at; the newest documents
EPOCHS, LEAST_STEPS, MOST_STEPS, BATCH = 16, 100, 1000, 16
HELD_OUT = 0.2  # of its tokens, in whole documents, on which its expert is calibrated
MOST_HELD_OUT = 0.4  # of them
LEAST_WINDOWS = 4  # that the tokens asked for must fill: less can be neither trained nor calibrated
JUDGED = 32  # documents by which the nearest expert is chosen


@dataclasses.dataclass(frozen=True)
class Nearness(duplicates.Nearness):
    """With the limits that judged it, for the journal."""

    new_from: float = duplicates.NEW
    known_below: float = duplicates.KNOWN


@dataclasses.dataclass(frozen=True)
class Domain:
    """ids: keys of its documents; saved: nats/token by each other; nearest: the expert with the
    lowest residual on them."""

    ids: tuple[str, ...]
    tokens: int
    saved: float
    nearness: Nearness
    nearest: str

    def facts(self) -> dict[str, Any]:
        """For the journal."""
        near = self.nearness
        return {
            "ids": list(self.ids),
            "tokens": self.tokens,
            "saved": self.saved,
            "near": near.expert,
            "gain": near.gain,
            "loss": near.loss,
            "distance": near.distance,
            "new_from": near.new_from,
            "known_below": near.known_below,
        }


def newest(tokens: Mapping[str, int]) -> list[str]:
    """Which documents are looked at: the newest that have `MOST_TOKENS` together.

    tokens: of each, by key, oldest first; so are the keys that are given back.
    """
    found, size = list[str](), 0
    for key in reversed(tokens):
        if size + tokens[key] <= MOST_TOKENS:
            found.append(key)
            size += tokens[key]
    return found[::-1]


def domains(bank: ExpertBank, texts: Mapping[str, str], tokens: int) -> list[Domain]:
    """What a heap of documents holds, the largest first; the same for the same documents.

    texts: by key, oldest first.  `UserError` where an expert has no bigram model.
    """
    models = bigrams(bank)
    ids = _encoded(bank, texts)
    keys, documents = list(ids), list(ids.values())
    lookup = BigramLookup(models)
    sums, known = [], []  # nats by every expert, and of each token by the nearest one
    for x in documents:
        cost = lookup.token_nats(x[1:], int(x[0]))  # [T - 1, E], too much to keep
        sums.append(cost.sum(0))
        known.append(_column(cost, int(sums[-1].argmin())))
    found = []
    for cluster in separate(documents, known, bank.tokenizer.vocab_size):
        if cluster.tokens < tokens or len(cluster.members) < DOCUMENTS or cluster.saved < SAVED:
            continue
        own = [documents[i] for i in cluster.members]
        e = int(sum(sums[i] for i in cluster.members).argmin())
        by_one = [
            known[i]
            if sums[i].argmin() == e
            else _column(lookup.token_nats(documents[i][1:], int(documents[i][0])), e)
            for i in cluster.members
        ]
        near = duplicates.nearness(bank.names[e], models[e], own, by_one)
        members = tuple(keys[i] for i in cluster.members)
        nearest = _nearest(bank, [texts[key] for key in members[:JUDGED]])
        found.append(
            Domain(
                members,
                cluster.tokens,
                cluster.saved,
                Nearness(near.expert, near.gain, near.loss),
                nearest,
            )
        )
    return found


def bigrams(bank: ExpertBank) -> Sequence[BigramModel]:
    """Of the experts, in the bank's order.  `UserError` where one has none."""
    if found := bigram_bank(bank).bigrams:
        return found
    raise UserError(
        "the bank has experts without a bigram model, by which new domains are found: train them "
        "again"
    )


def steps(tokens: int, window: int) -> int:
    """Of training on so much text: `EPOCHS` times all of it, within limits."""
    return int(np.clip(EPOCHS * tokens / (window * BATCH), LEAST_STEPS, MOST_STEPS))


def split(tokens: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """A domain's documents: (to train on, to calibrate on).  tokens: of each, by key.

    Held out are those with the lowest hashes until they have `HELD_OUT` of the tokens, but none
    with which they would have more than `MOST_HELD_OUT`: most of the text is to train on.
    """
    valid, size, every = set(), 0, sum(tokens.values())
    for key in sorted(tokens):
        if size < HELD_OUT * every and size + tokens[key] <= MOST_HELD_OUT * every:
            valid.add(key)
            size += tokens[key]
    return [i for i in tokens if i not in valid], [i for i in tokens if i in valid]


def _encoded(bank: ExpertBank, texts: Mapping[str, str]) -> dict[str, Integer[np.ndarray, " _"]]:
    encoded = zip(texts, encode_many(bank.tokenizer, list(texts.values())), strict=True)
    return {key: ids for key, ids in encoded if len(ids) > 1}


def _column(cost: Float[np.ndarray, "T E"], e: int) -> Float[np.ndarray, " T"]:
    return cost[:, e].astype(np.float64)


def _nearest(bank: ExpertBank, texts: list[str]) -> str:
    """The expert with the lowest mean residual, nats/token."""
    routes = ManyRouter.of_bank(bank, RouteOptions(alpha=0), exact=True).route(texts)
    total = sum(
        r.tokens * np.array([r.residuals[n] for n in bank.names])
        for r in routes
        if not isinstance(r, UserError)
    )
    return bank.names[int(np.argmin(total))]
