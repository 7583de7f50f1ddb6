"""The first k latents are a code of k latents: of the study, and of the text that is shown."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank

from cr_jax import models
from cr_jax.config import Experiment
from cr_jax.errors import UserError
from cr_jax.routing.reconstruct import reconstruct
from cr_jax.studies import nested_latents

MODEL = dataclasses.replace(tiny_bank.TINY, bottleneck="fourier_query")


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.in_memory(2, MODEL)


@pytest.fixture(scope="module")
def windows():
    return tiny_bank.windows(9)


@functools.partial(jax.jit, static_argnames="method")
def apply(params, *arguments, method):
    return models.Autoencoder(MODEL).apply(params, *arguments, method=method)


@pytest.mark.parametrize("k", [1, 3, 4])
def test_of_k_latents_the_others_numbers_are_not_read(bank, windows, k):
    found = nested_latents.run(bank, {"e1": windows}, [k])["nested_latents"]
    params = bank.expert_params("e1")
    tokens, mask = map(jnp.asarray, (windows.tokens, windows.mask))
    z = apply(params, tokens, mask, method="encode")
    log_p = {}
    for rest in (0.0, 1e3):  # what the other latents hold changes nothing at rate k
        cut = np.array(z)
        cut[:, k:] = rest
        h = apply(params, jnp.asarray(cut), mask, jnp.full(len(cut), k), method="decode")
        logits = np.asarray(h @ models.head(MODEL, params), np.float64)
        log_p[rest] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_array_equal(log_p[0.0], log_p[1e3])
    right = (log_p[0.0].argmax(-1) == windows.tokens) & windows.mask
    nats = -np.take_along_axis(log_p[0.0], windows.tokens[..., None], -1)[..., 0]
    assert found["tra"]["e1"] == [pytest.approx(right.sum() / windows.mask.sum())]
    assert found["nll"]["e1"] == [pytest.approx(nats[windows.mask].mean(), rel=1e-5)]


def test_all_latents_are_the_usual_rebuilding_and_one_is_another(bank, windows):
    text = tiny_bank.TEXT
    usual, all_four, one = (
        np.concatenate([part.nll for part in reconstruct(bank, "e0", text, latents=k)])
        for k in (0, 4, 1)
    )
    np.testing.assert_allclose(all_four, usual, rtol=1e-6)
    assert np.abs(one - usual).max() > 1e-3


def test_latents_that_hold_a_slice_each_are_refused(bank):
    for form in ("query", "fold"):
        model = dataclasses.replace(MODEL, bottleneck=form)
        with pytest.raises(UserError, match="bottleneck=fourier_query"):
            nested_latents.check(Experiment(model=model))
        models.check_latents(model, 0)
    nested_latents.check(Experiment(model=MODEL))
    with pytest.raises(UserError, match=r"\[1, 4\], got 5"):
        list(reconstruct(bank, "e0", tiny_bank.TEXT, latents=5))


def test_numbers_of_latents():
    assert nested_latents.numbers(8) == (1, 2, 4, 8)
    assert nested_latents.numbers(1) == (1,)
