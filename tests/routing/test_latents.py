"""Latents of many texts: there and back, and residuals as one array."""

import dataclasses
import time

import numpy as np
import pytest
from tiny_bank import TEXT, TINY, in_memory, refuses, trained_bank, windows

from cr_jax import router
from cr_jax.errors import UserError
from cr_jax.routing import chosen
from cr_jax.routing.latents import decode, encode, residual_matrix
from cr_jax.routing.reconstruct import reconstruct
from cr_jax.routing.scored_documents import score_documents
from cr_jax.scoring.batching import BatchSizes

SIZES = BatchSizes(2, 4, 64)
TEXTS = ["abcdefghij" * 5, "q", "qrstuvwxyzabc" * 3]


def test_decoding_latents_is_reconstructing_the_text():
    bank = trained_bank()
    latents = encode(bank, TEXTS, "e0", SIZES)
    assert latents.values.shape == (4 + 1 + 3, TINY.latents, TINY.d_latent)
    assert latents.document.tolist() == [0] * 4 + [1] + [2] * 3
    assert latents.tokens.tolist() == [16, 16, 16, 2, 1, 16, 16, 7]
    back = decode(bank, latents, "e0", SIZES)
    for text, found in zip(TEXTS, back, strict=True):
        parts = list(reconstruct(bank, "e0", text, SIZES))
        rebuilt = np.concatenate([p.rebuilt for p in parts])
        assert (found.tokens == rebuilt).all() and len(found.confidence) == len(text)
        assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert back[0].text[:20] == TEXTS[0][:20] and back[0].confidence.mean() > 0.5
    other = decode(bank, latents, "e1", SIZES)  # latents are their expert's alone
    assert other[0].text[:20] != TEXTS[0][:20]


def test_residuals_of_many_are_those_of_each():
    bank = in_memory(3)
    found = residual_matrix(bank, [*TEXTS, TEXT], SIZES)
    assert found.shape == (4, 3)
    for row, text in zip(found, [*TEXTS, TEXT], strict=True):
        alone = router.route(bank, text, sizes=SIZES).residuals
        assert row == pytest.approx(list(alone.values()), rel=1e-5)


def test_after_an_error_nothing_more_is_scored(monkeypatch):
    begun, begin = [], chosen.Scorer.begin

    def recorded(self, *args, **more):
        wait = begin(self, *args, **more)
        begun.extend(self._begun)
        return wait

    def broken(*args, **more):
        time.sleep(0.01)
        raise UserError("broken")

    monkeypatch.setattr(chosen.Scorer, "begin", recorded)
    monkeypatch.setattr(chosen.router, "score_bank", broken)
    bank = in_memory(2)
    refuses(lambda: residual_matrix(bank, [TEXT] * 99, SIZES), "broken")
    assert any(job.cancelled() for job in begun)
    begun.clear()
    some = windows(90)
    own = dataclasses.replace(some, document=np.arange(90))
    refuses(lambda: score_documents(bank, {"e0": own}, SIZES), "broken")
    assert any(job.cancelled() for job in begun)


def test_what_is_no_list_of_texts_or_not_of_the_bank():
    bank = in_memory(2)
    refuses(lambda: encode(bank, TEXT, "e0"), "list of texts")
    refuses(lambda: encode(bank, [], "e0"), "empty")
    refuses(lambda: residual_matrix(bank, ["text", ""]), "empty")
    refuses(lambda: encode(bank, [TEXT], "nope"), "nope", "e0, e1")
    latents = encode(bank, [TEXT[:20]], "e0", SIZES)
    odd = latents._replace(values=latents.values[:, :2])
    refuses(lambda: decode(bank, odd, "e0"), "4 latents of 16")
