"""Spectra and probes of known clouds of points."""

import numpy as np
import pytest

from cr_jax.studies import geometry


def cloud(seed=0, rows=4000, width=6):
    return np.random.default_rng(seed).normal(size=(rows, width))


def test_explained_variance_of_known_spectra():
    even = geometry.explained_variance(cloud())
    np.testing.assert_allclose(even, np.arange(1, 7) / 6, atol=0.03)
    line = cloud(1)[:, :1] * np.array([[3.0, 4.0, 0.0]])
    np.testing.assert_allclose(geometry.explained_variance(line), 1.0, atol=1e-9)
    # Variances 16, 4, 1, 1 along rotated axes, far from the origin.
    turn, _ = np.linalg.qr(cloud(2, 4, 4))
    found = geometry.explained_variance(100 + cloud(3, 20_000, 4) * np.array([[4, 2, 1, 1]]) @ turn)
    np.testing.assert_allclose(found, [16 / 22, 20 / 22, 21 / 22, 1], atol=0.02)


def test_explained_variance_equals_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    z = cloud(4, 50, 5) @ cloud(5, 5, 5)
    ratio = decomposition.PCA().fit(z).explained_variance_ratio_
    np.testing.assert_allclose(geometry.explained_variance(z), np.cumsum(ratio), atol=1e-9)


def test_explained_variance_of_a_single_point_is_a_number():
    assert np.isfinite(geometry.explained_variance(np.ones((3, 2)))).all()


def test_the_probe_finds_what_is_linearly_separable():
    z = cloud(6, 600)
    apart = {"a": z[:200], "b": z[200:400] + 8, "c": z[400:] - np.array([[0, 9, 0, 0, 0, 0]])}
    assert geometry.linear_probe(apart) == 1.0


def test_the_probe_is_at_chance_on_random_labels():
    """Negative control: the same cloud under three names; also with more numbers than windows."""
    z = cloud(7, 1200)
    same = {name: z[i::3] for i, name in enumerate("abc")}
    assert abs(geometry.linear_probe(same) - 1 / 3) < 0.08  # 600 windows: sd 0.02
    wide = cloud(8, 300, 400)
    assert abs(geometry.linear_probe({n: wide[i::3] for i, n in enumerate("abc")}) - 1 / 3) < 0.15


def test_the_probe_does_not_see_what_is_not_linear():
    """Negative control: a ring around a blob is separable, but not by a plane."""
    random = np.random.default_rng(9)
    angle = random.uniform(0, 2 * np.pi, 400)
    ring = 5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert geometry.linear_probe({"ring": ring, "blob": random.normal(0, 0.1, (400, 2))}) < 0.8


@pytest.mark.parametrize("rows", [12, 60])
def test_the_map_keeps_islands_apart(rows):
    z = np.concatenate([cloud(10, rows), cloud(11, rows) + 50])
    points, method = geometry.flat_map(z, seed=0)
    assert points.shape == (2 * rows, 2) and method in ("t-SNE", "PCA")
    a, b = points[:rows], points[rows:]
    inside = max(np.linalg.norm(x - x.mean(0), axis=1).mean() for x in (a, b))
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > inside


def test_the_map_without_scikit_learn_is_pca(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    z = cloud(12, 100, 3) * np.array([[5, 2, 0.1]])
    points, method = geometry.flat_map(z, seed=0)
    assert method == "PCA"
    variance = geometry.explained_variance(z)
    assert points.var(0).sum() / z.var(0).sum() == pytest.approx(variance[1], rel=1e-6)
