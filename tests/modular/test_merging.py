"""One model by the mean of experts' weights: whose shares, and what it predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny_bank
from tiny_lms import TINY, stacked

from cr_jax.modular import merging, score

TOKENS = np.random.default_rng(0).integers(0, 29, (7, 10)).astype(np.uint16)

NATS = np.array([[4.0, 9.0, np.inf], [6.0, 9.0, np.inf], [5.0, np.nan, np.inf]], np.float32)


def test_shares_are_the_tempered_posterior_of_the_nearest():
    found = np.asarray(merging.posterior(NATS, 0.5))
    weights = np.exp(-0.5 * NATS[:, 0])
    np.testing.assert_allclose(found[0], weights / weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(found[1], [0.5, 0.5, 0])  # no number, no share
    assert not found[2].any()  # nobody can speak
    two = np.asarray(merging.posterior(NATS, 0.5, keep=2))[0]
    np.testing.assert_allclose(two, [*(weights[[0]] / weights[[0, 2]].sum()), 0, two[2]], rtol=1e-6)
    assert two.sum() == np.float32(1)
    tiny_bank.refuses(lambda: merging.posterior(NATS, 1.0, keep=0), "keep=0")


def test_an_infinite_temper_is_the_nearest_expert_alone():
    shares = np.asarray(merging.posterior(NATS[:, :2], np.inf))
    np.testing.assert_array_equal(shares[0], [1, 0, 0])
    params = stacked(3)
    first = np.zeros((7, 3), np.float32)
    first[:, 0] = 1
    first[4] = [0, 0, 1]
    found = merging.merged_nats(TINY, params, first, TOKENS, rows=4)
    alone = score.token_nats(TINY, params, TOKENS)
    wanted = alone[0].copy()
    wanted[4] = alone[2, 4]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_each_text_is_spoken_by_the_mean_of_its_own_shares():
    params, rng = stacked(3), np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(3), 7).astype(np.float32)
    found = merging.merged_nats(TINY, params, shares, TOKENS, rows=3)
    for b in (0, 5):
        mean = jax.tree.map(lambda x, b=b: np.tensordot(shares[b], np.asarray(x), 1), params)
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], mean)
        np.testing.assert_allclose(
            found[b], score.token_nats(TINY, one, TOKENS[b : b + 1])[0, 0], atol=1e-5
        )
        same = merging.merged(params, shares[b])
        for x, y in zip(jax.tree.leaves(same), jax.tree.leaves(mean), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    # Negative control: shares decide.
    other = merging.merged_nats(TINY, params, shares[::-1].copy(), TOKENS, rows=3)
    assert np.abs(other[0] - found[0]).max() > 1e-3


def test_ids_beyond_the_vocabulary_are_refused():
    shares = np.full((7, 3), 1 / 3, np.float32)
    tiny_bank.refuses(
        lambda: merging.merged_nats(TINY, stacked(3), shares, TOKENS + 29), "token ids"
    )
