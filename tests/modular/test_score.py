"""nats by many models are those of each alone, whatever the batch, and of the past only."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import lm
from cr_jax.modular import score
from cr_jax.scoring import bigram

TINY = LmConfig(vocab_size=29, d_model=16, heads=2, d_ff=24, blocks=1, dtype="float32")
TOKENS = np.random.default_rng(0).integers(0, 29, (7, 10)).astype(np.uint16)


def models(count=3, config=TINY):
    """Parameters whose heads answer: a fresh head is zero, and all its answers are alike."""
    keys = jax.random.split(jax.random.key(0), count)
    made = jax.jit(jax.vmap(lambda k: lm.init(config, k)))(keys)
    if not config.tie_embeddings:
        kernel = made["params"]["head"]
        made["params"]["head"] = jax.random.normal(jax.random.key(1), kernel.shape)
    return made


def plain(params, expert, config=TINY):
    own = jax.tree.map(lambda x: x[expert], params)
    states = jax.jit(lm.make_lm(config).apply)(own, jnp.asarray(TOKENS, jnp.int32))
    logits = np.asarray(states @ lm.head(config, own), np.float64)
    log_z = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return log_z - np.take_along_axis(logits, TOKENS[..., None].astype(int), -1)[..., 0]


@pytest.mark.parametrize("tied", [False, True])
def test_nats_are_those_of_each_model_alone(tied):
    config = dataclasses.replace(TINY, tie_embeddings=tied)
    params = models(config=config)
    found = score.token_nats(config, params, TOKENS, chunk=20, rows=4)
    assert found.shape == (3, 7, 10) and found.dtype == np.float32
    for e in range(3):
        np.testing.assert_allclose(found[e], plain(params, e, config), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_batches_change_nothing():
    params = models()
    found = [score.token_nats(TINY, params, TOKENS, rows=r) for r in (1, 3, 7, 16)]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)
    assert score.token_nats(TINY, params, TOKENS[:0]).shape == (3, 0, 10)


def test_a_token_s_nats_depend_on_it_and_those_before():
    params, other = models(), TOKENS.copy()
    other[:, 6] = (other[:, 6] + 3) % 29
    a, b = (score.token_nats(TINY, params, t, rows=8) for t in (TOKENS, other))
    assert np.array_equal(a[..., :6], b[..., :6])
    assert (np.abs(a - b)[..., 6:].max((0, 1)) > 1e-3).all()


def test_single_models_are_stacked():
    params = models()
    ones = [jax.tree.map(lambda x, e=e: x[e], params) for e in (2, 0)]
    found = score.token_nats(TINY, score.stacked(ones), TOKENS)
    whole = score.token_nats(TINY, params, TOKENS)
    np.testing.assert_allclose(found, whole[[2, 0]], atol=1e-5)


def test_bigram_models_are_read_in_batches_too():
    rng = np.random.default_rng(0)
    counted = [
        bigram.count(rng.integers(0, 29, (5, 40)), np.ones((5, 40), bool), 29) for _ in range(2)
    ]
    table = bigram.table(counted)
    whole = np.asarray(bigram.residuals(table, TOKENS.astype(np.int32), np.ones((7, 10), bool)))
    for rows in (3, 7, 100):
        found = bigram.bigram_nats(table, TOKENS, rows)
        assert found.shape == (2, 7, 10)
        np.testing.assert_allclose(found.sum(-1), whole, rtol=1e-4)


def test_ids_of_another_vocabulary_are_refused():
    with pytest.raises(UserError, match=r"must lie in \[0, 29\)"):
        score.token_nats(TINY, models(), TOKENS + 20)
