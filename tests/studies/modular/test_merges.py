"""Merged models are chosen by a prefix, with a temper that validation text chooses."""

import dataclasses

import numpy as np
from tiny_lms import TINY, stacked

from cr_jax.data.windows import Windows
from cr_jax.modular.score import token_nats
from cr_jax.studies.modular import merges
from cr_jax.studies.modular.nats import DomainNats

PREFIX, PARAMS = 4, stacked(3)
MODELS = merges.Merged(TINY, PARAMS, rows=6)


def domain(seed, rows=6):
    tokens = np.random.default_rng(seed).integers(0, 29, (rows, 12)).astype(np.int32)
    return measured(tokens)


def measured(tokens):
    mask = np.ones(tokens.shape, bool)
    nats = token_nats(TINY, PARAMS, tokens)
    windows = Windows(tokens, mask, np.arange(len(tokens)))
    return windows, DomainNats(mask, np.ones_like(tokens), nats, nats[0])


def test_valid_chooses_the_temper_with_the_fewest_nats(monkeypatch):
    monkeypatch.setattr(merges, "TEMPERS", (0.3,))
    pairs = {n: domain(s) for s, n in enumerate("ab")}
    windows, nats = ({n: pair[i] for n, pair in pairs.items()} for i in (0, 1))
    (rule,) = merges.fit(MODELS, windows, nats, (PREFIX,)).values()
    by_hand = {
        temper: np.mean(
            [MODELS.nats(windows[n], nats[n], PREFIX, temper)[:, PREFIX:].mean() for n in nats]
        )
        for temper in (0.3, np.inf)
    }
    assert rule["temper"] == min(by_hand, key=by_hand.__getitem__)
    np.testing.assert_allclose(rule["valid_nll"], min(by_hand.values()), rtol=1e-5)
    nearest = [
        d.experts[d.experts[:, :, :PREFIX].sum(-1).argmin(0), np.arange(6), PREFIX:].mean()
        for d in nats.values()
    ]
    np.testing.assert_allclose(rule["nearest_nll"], np.mean(nearest), rtol=1e-4)


def test_later_tokens_choose_nothing():
    windows, d = domain(5)
    tokens = windows.tokens.copy()
    tokens[:, 8:] = (tokens[:, 8:] + 1) % 29
    other, e = measured(tokens)
    rules = {PREFIX: {"temper": 0.3}}
    before, after = (
        merges.with_merged(MODELS, {"a": w}, {"a": x}, rules)["a"].merged[PREFIX]
        for w, x in ((windows, d), (other, e))
    )
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert np.abs(before[:, 8:] - after[:, 8:]).max() > 0.01
    # Negative control: the prefix does choose.
    swapped = dataclasses.replace(d, experts=d.experts[::-1])
    another = MODELS.nats(windows, swapped, PREFIX, 0.3)
    assert np.abs(another[:, :8] - before[:, :8]).max() > 0.01
