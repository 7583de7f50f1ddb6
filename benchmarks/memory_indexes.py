"""Indexes of `benchmarks.latent_memory` beside the one that is used, and pages drawn at random."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.memory_keys import rare_tokens
from benchmarks.memory_tasks import Needle, Setting
from cr_jax.modular import memory_index
from cr_jax.modular.memory import Memory
from cr_jax.modular.memory_pages import Reader
from cr_jax.routing.latents import encode


def index_recall(
    setting: Setting,
    kept: Memory,
    stored: Memory,
    needles: Sequence[Needle],
    asked: Sequence[np.ndarray],
) -> dict[str, float]:
    """Share of questions with a window of their line among the four best, index by index.

    kept: the text's latents; stored: its ids.
    """
    readers = {
        "surprising pairs": Reader(setting.bank, kept, setting.sizes),
        "pairs of rare tokens": _ByTokens(setting.bank, stored, setting.sizes),
        "surprising pairs, not weighted by the memory": _Flat(setting.bank, kept, setting.sizes),
    }
    window = kept.model.window
    first, last = (np.array([[at(x) // window] for x in needles]) for at in (_begin, _end))
    share = lambda best: float(((first <= best) & (best <= last)).any(1).mean())
    found = {name: share(reader.best(asked)) for name, reader in readers.items()}
    return found | {"pooled latents": share(_pooled(setting, kept, asked))}


def _begin(x: Needle) -> int:
    return x.start


def _end(x: Needle) -> int:
    return x.answer - 1


class _Flat(Reader):
    """Without weights by the memory itself."""

    weighted = False


class _ByTokens(Reader):
    """Keys and queries by how rare both tokens of a pair are alone."""

    def __init__(self, bank, stored: Memory, sizes):
        mask = np.arange(stored.model.window) < stored.length[:, None].astype(int)
        found = memory_index.features(stored.ids, mask, rare_tokens(bank, stored.ids))
        keys = memory_index.keys_of(found, stored.keys.shape[1])
        super().__init__(bank, dataclasses.replace(stored, keys=keys), sizes)

    def _nats(self, tokens):
        return rare_tokens(self.bank, tokens)


def _pooled(setting: Setting, kept: Memory, asked) -> np.ndarray:
    """The four windows whose mean latent is nearest, by cosine, to the question's by the same
    expert."""
    bank = setting.bank
    z = np.asarray(kept.codes.numbers, np.float32).mean(1)
    z /= np.linalg.norm(z, axis=1, keepdims=True) + 1e-9
    score = np.full((len(asked), len(kept)), -np.inf)
    for label, name in enumerate(kept.writers):
        own = kept.expert == label
        ids = [q[-bank.model.window :] for q in asked]
        texts = [bank.tokenizer.decode(q) or "." for q in ids]
        found = encode(bank, texts, name, setting.sizes)
        first = np.unique(found.document, return_index=True)[1]
        query = found.values[first].mean(1)
        query /= np.linalg.norm(query, axis=1, keepdims=True) + 1e-9
        score[:, own] = query @ z[own].T
    return np.argsort(-score, axis=1)[:, :4]


class Anywhere(Reader):
    """A control: pages drawn at random from what was before."""

    def _best(self, tables: Any, ends: Any, pages: int) -> np.ndarray:
        rng = np.random.default_rng(0)
        out = np.full((len(tables), pages), -1)
        for row, end in zip(out, ends, strict=True):
            some = rng.permutation(int(end))[:pages]
            row[: len(some)] = some
        return out
