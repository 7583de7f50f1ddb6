"""The adapter changes nothing before training, nor without a past, and reads the past alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lms
from tiny_bank import refuses

from cr_jax.models import lm
from cr_jax.models.lm import latent_reader

CONFIG, M, DZ = tiny_lms.TINY, 3, 5
AGES = np.array([[0, -1, -2], [2, 1, 0]])[None]  # two segments of a text, three windows


@functools.cache
def setting():
    """(decoder, fresh adapter, one whose every number is drawn, tokens, z)."""
    rng = np.random.default_rng(0)
    fresh = jax.jit(lambda key: latent_reader.init(CONFIG, M, DZ, key))(jax.random.key(0))
    drawn = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), fresh)
    tokens = rng.integers(0, CONFIG.vocab_size, (2, 12)).astype(np.int32)
    z = rng.normal(size=(2, 3, M, DZ)).astype(np.float32)
    return tiny_lms.one(tiny_lms.stacked(1), 0), fresh, drawn, tokens, z


@jax.jit
def states(reader, z, ages):
    params, _, _, tokens, _ = setting()
    params, tokens = jax.tree.map(jnp.asarray, (params, tokens))
    return latent_reader.states(CONFIG, params, reader, tokens, z, ages)


def test_an_untrained_adapter_and_an_empty_past_change_nothing():
    params, fresh, drawn, tokens, z = setting()
    found = states(fresh, z, AGES)
    apart = jnp.asarray(tokens).reshape(4, 6)
    plain = lm.make_lm(CONFIG).apply(params, apart).reshape(found.shape)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    assert (states(fresh, z + 1, AGES) == found).all()
    assert (states(drawn, z, 0 * AGES) == states(fresh, z, 0 * AGES)).all()
    assert np.abs(states(drawn, z, AGES) - found)[:, 6:].max() > 0.1  # a negative control


def test_only_the_gate_learns_at_first_and_all_of_it_later():
    _, fresh, drawn, _, z = setting()
    weights = np.random.default_rng(1).normal(size=(2, 12, CONFIG.d_model)).astype(np.float32)
    grad = jax.grad(lambda reader: jnp.sum(weights * states(reader, z, AGES)))
    largest = lambda reader: {k: np.abs(v).max() for k, v in grad(reader)["params"].items()}
    first, later = largest(fresh), largest(drawn)
    assert first.pop("gate") > 0 and not any(first.values())
    assert all(later.values())


def test_no_segment_reads_a_window_that_is_not_past():
    _, _, drawn, _, z = setting()

    def reached(ages, segment):
        """Which windows' latents the states of a segment depend on."""
        part = lambda z: jnp.sum(states(drawn, z, ages)[:, 6 * segment : 6 * segment + 6] ** 3)
        return (np.abs(jax.grad(part)(jnp.asarray(z))).max((0, 2, 3)) > 0).tolist()

    assert reached(AGES, 0) == [False, False, False]
    assert reached(AGES, 1) == [True, True, False]
    assert reached(AGES + 1, 1) == [True, True, True]  # a negative control: a leak is seen


def test_ages_are_told_apart_near_by_and_roughly_far_away():
    found = np.asarray(latent_reader.bucket(jnp.arange(1, 100_000)))
    assert found[:8].tolist() == list(range(8)) and (np.diff(found) >= 0).all()
    assert found[-1] == latent_reader.AGES - 1 == found.max()
    assert [int((found == found[n - 1]).sum()) for n in (4, 16, 64)] == [1, 4, 13]
    _, _, drawn, _, z = setting()
    older = np.where(AGES > 0, AGES + 1, AGES)
    assert np.abs(states(drawn, z, older) - states(drawn, z, AGES)).max() > 1e-3


def test_its_work_is_counted_by_its_matrices():
    each, project = latent_reader.forward_flops(CONFIG, M, DZ, 10)
    n, d = CONFIG.blocks, CONFIG.d_model
    assert each == 2 * n * (2 * d * d + 2 * 31 * d) and project == 2 * M * (DZ * d + n * 2 * d * d)


@pytest.mark.parametrize("kind", ["sliding", "tconstformer"])
def test_another_kind_is_refused_in_one_line(kind):
    config = dataclasses.replace(CONFIG, kind=kind)
    refuses(lambda: latent_reader.make_reader(config, M, DZ), "decoder", kind)
