"""The causal language model: it sees the past only, all of it, and scores every token."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import SMALL, small, windows

from cr_jax import models
from cr_jax.models import layers, objective

L = SMALL.window


@functools.cache
def fresh(tied=False):
    """Parameters with a head that answers, unlike the zeros it starts from."""
    config = small(tie_embeddings=tied)
    params = jax.jit(models.init_lm, static_argnums=0)(config, jax.random.key(0))
    if not tied:
        head = params["params"]["head"]
        params["params"]["head"] = jax.random.normal(jax.random.key(1), head.shape)
    return params


@functools.partial(jax.jit, static_argnums=0)
def states(config, params, tokens):
    return models.CausalLm(config).apply(params, tokens)


@pytest.mark.parametrize("place", [0, 3, L - 1])
def test_a_token_changes_later_states_only(place):
    tokens = windows(SMALL)
    other = tokens.at[:, place].set((tokens[:, place] + 5) % SMALL.vocab_size)
    a, b = (np.asarray(states(SMALL, fresh(), t)) for t in (tokens, other))
    assert np.array_equal(a[:, : place + 1], b[:, : place + 1])
    changed = np.abs(a - b)[:, place + 1 :].max((0, 2)) if place < L - 1 else np.ones(1)
    assert (changed > 1e-4).all()  # every later position saw it


def test_gradient_of_a_state_reaches_all_earlier_inputs_and_no_later_one():
    layer = layers.Stack(SMALL, 2, causal=True)
    x = jax.random.normal(jax.random.key(0), (1, L, SMALL.d_model))
    positions = jnp.arange(L)
    params = jax.jit(layer.init)(jax.random.key(1), x, positions)
    both = jax.jit(
        jax.jacrev(
            lambda x, causal: jnp.sum(
                layers.Stack(SMALL, 2, causal=causal).apply(params, x, positions)[0], -1
            ),
            argnums=0,
        ),
        static_argnums=1,
    )
    reach = lambda causal: np.abs(np.asarray(both(x, causal))[:, 0]).max(-1) > 0  # [out, in]
    assert np.array_equal(reach(True), np.tri(L, dtype=bool))
    assert reach(False).all()  # the default stays bidirectional


@pytest.mark.parametrize("kernel", ["xla", "cudnn"])
@pytest.mark.parametrize("causal", [True, False])
def test_both_attention_kernels_are_told(monkeypatch, kernel, causal):
    told = []

    def attention(q, k, v, **options):
        told.append(options)
        return v

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    monkeypatch.setattr(layers, "attention_kernel", lambda config: config.attention)  # no GPU here
    config = small(attention=kernel)
    x = jnp.zeros((2, L, config.d_model))
    layers.Attention(config, causal=causal).init(
        jax.random.key(0), x, jnp.arange(L), jnp.array([3, L])
    )
    assert told[0]["is_causal"] is causal and told[0]["implementation"] == kernel
    assert (told[0]["query_seq_lengths"] is None) == (kernel == "xla")


def test_a_prefix_is_scored_as_in_the_whole_window():
    tokens = windows(SMALL)
    whole = np.asarray(states(SMALL, fresh(), tokens))
    np.testing.assert_allclose(
        np.asarray(states(SMALL, fresh(), tokens[:, :4])), whole[:, :4], rtol=1e-4, atol=1e-5
    )


def test_it_starts_at_the_uniform_distribution():
    params = jax.jit(models.init_lm, static_argnums=0)(SMALL, jax.random.key(0))
    tokens = windows(SMALL)
    nll = objective.token_scores(
        states(SMALL, params, tokens), models.head(SMALL, params), tokens
    ).nll
    np.testing.assert_allclose(np.asarray(nll), math.log(SMALL.vocab_size), rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_as_large_as_a_compressor_without_its_bottleneck(tied):
    # d=256, 3+3 blocks, 32,768 pieces: the bank's size.
    config = small(
        tie_embeddings=tied,
        vocab_size=32768,
        window=512,
        latents=8,
        d_model=256,
        d_latent=384,
        heads=4,
        d_ff=768,
        encoder_blocks=3,
        decoder_blocks=3,
        fold_channels=64,
    )
    lm, expert = models.count_lm_parameters(config), models.count_parameters(config)
    assert 0.7 < lm / expert <= 1
