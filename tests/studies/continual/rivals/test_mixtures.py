"""Gaussians of domains that lie apart, and of some that only a mixture tells."""

import numpy as np
import pytest

from cr_jax.studies.continual.rivals.mixtures import Mixtures, SharedCovariance


def cloud(*middles, count=60, seed=0):
    draw = np.random.default_rng([seed, len(middles)])
    return np.concatenate([draw.normal(m, 0.3, (count, 2)) for m in middles])


@pytest.mark.parametrize("kind", [SharedCovariance, Mixtures])
def test_domains_that_lie_apart_are_told(kind):
    router = kind(0)
    middles = [(0, 0), (4, 0), (0, 4)]
    for middle in middles:
        router.add(cloud(middle))
    found = router.scores(np.concatenate([cloud(m, seed=1) for m in middles])).argmax(1)
    assert (found == np.repeat(range(3), 60)).mean() > 0.99


def test_a_domain_of_two_kinds_wants_a_mixture():
    ring, middle = cloud((-4, 0), (4, 0)), cloud((0, 0), count=120)
    right = {}
    for kind in (SharedCovariance, Mixtures):
        router = kind(0)
        router.add(ring)
        router.add(middle)
        right[kind] = (
            router.scores(np.concatenate([ring, middle])).argmax(1) == np.repeat((0, 1), 120)
        ).mean()
    assert right[Mixtures] > 0.99 > 0.8 > right[SharedCovariance]


def test_a_domain_s_own_mixture_is_not_changed_by_those_that_come_later():
    points = cloud((0, 0))
    alone, beside = Mixtures(0), Mixtures(0)
    for router in (alone, beside):
        router.add(points)
    beside.add(cloud((1, 1)))
    np.testing.assert_array_equal(alone.scores(points)[:, 0], beside.scores(points)[:, 0])


def test_a_likelihood_is_a_density():
    router = Mixtures(0)
    router.add(cloud((0, 0), (2, 1), count=100))
    grid = np.stack(np.meshgrid(*[np.linspace(-6, 8, 281)] * 2), -1).reshape(-1, 2)
    assert np.exp(router.scores(grid)).sum() * 0.05**2 == pytest.approx(1, abs=0.01)
