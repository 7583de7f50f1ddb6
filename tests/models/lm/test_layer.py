"""All kinds have the parameters of the plain decoder of the same depth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_long

from cr_jax.config import LmConfig
from cr_jax.models import lm
from cr_jax.models.lm import layer

REPORTED = LmConfig(
    vocab_size=50257, d_model=432, heads=12, d_ff=1280, blocks=8, tie_embeddings=True
)
OTHERS = ("sliding", "tlinformer", "tconstformer", "recurrent")


@pytest.mark.parametrize(("heads", "stages"), [(12, 2), (6, 1)])
def test_the_reported_sizes_have_the_reported_number_of_parameters(heads, stages):
    for kind, chunk in (*((kind, 256) for kind in OTHERS), ("sliding", 0)):
        config = dataclasses.replace(
            REPORTED, kind=kind, heads=heads, stages=stages, chunk=chunk, style="layer_norm"
        )
        assert lm.count_lm_parameters(config) == 40_982_544


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 3}, {"tie_embeddings": False}])
def test_parameters_are_those_of_the_decoder_name_by_name(changes):
    shapes = lambda kind: jax.eval_shape(
        lambda k: lm.init(dataclasses.replace(REPORTED, kind=kind, **changes), k), jax.random.key(0)
    )
    for kind in OTHERS:
        assert shapes(kind) == shapes("decoder")


def test_with_the_same_parameters_everything_seen_is_what_the_decoder_gives():
    plain = tiny_long.of(kind="decoder")
    own = tiny_long.params(plain)
    wanted = jax.jit(lm.make_lm(plain).apply)(own, tiny_long.TOKENS)
    for config in (
        tiny_long.of(kind="sliding", chunk=0),
        tiny_long.of(kind="tlinformer", chunk=32),
    ):
        found = jax.jit(lm.make_lm(config).apply)(own, tiny_long.TOKENS)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_one_query_by_sums_is_one_query(groups):
    draw = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
    q, k, v = array(2, 1, 4, 8), array(2, 9, groups, 8), array(2, 9, groups, 8)
    for lengths in (None, jnp.asarray([1, 7], jnp.int32)):
        over = layer.KeysValues(k, v, lengths)
        wanted, found = layer.one_query(q, over), layer.one_query_by_sums(q, over)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
