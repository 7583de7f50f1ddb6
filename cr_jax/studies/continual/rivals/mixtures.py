"""Gaussians of embedded windows, one domain after another: no gate is trained.

Both keep numbers of a domain and none of its text.  Letters: C domains so far, N points, D their
width, K Gaussians of a domain.  Not in the paper.
"""

import numpy as np
from jaxtyping import Float

RIDGE = 1e-2  # of the mean variance, added to each
KINDS = 5  # Gaussians of a domain
ROUNDS = 25

Points = Float[np.ndarray, "N D"]


class SharedCovariance:
    """A mean per domain and one covariance, the mean of all domains' so far (Hayes and Kanan 2020,
    arXiv 1909.01520); scores are squared Mahalanobis distances, negated."""

    def __init__(self, seed: int = 0):
        self.means: list[np.ndarray] = []
        self.scatter: np.ndarray | float = 0.0

    def add(self, points: Points) -> None:
        self.means.append(points.mean(0))
        apart = points - self.means[-1]
        self.scatter = self.scatter + apart.T @ apart / len(points)

    def scores(self, points: Points) -> Float[np.ndarray, "N C"]:
        covariance = self.scatter / len(self.means)
        width = len(covariance)
        covariance = covariance + RIDGE * np.trace(covariance) / width * np.eye(width)
        whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
        x, means = points @ whiten, np.stack(self.means) @ whiten
        return 2 * x @ means.T - np.sum(means**2, 1)[None] - np.sum(x**2, 1)[:, None]


class Mixtures:
    """Of each domain a mixture of `KINDS` diagonal Gaussians, by expectation-maximisation; scores
    are log-likelihoods."""

    def __init__(self, seed: int = 0):
        self.draw = np.random.default_rng(seed)
        self.fitted: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, points: Points) -> None:
        kinds = min(KINDS, len(points))
        floor = RIDGE * points.var(0).mean() + 1e-12
        means = points[self.draw.choice(len(points), kinds, replace=False)]
        variance = np.tile(points.var(0) + floor, (kinds, 1))
        share = np.full(kinds, 1 / kinds)
        for _ in range(ROUNDS):
            logs = _logs(points, means, variance, share)
            of = np.exp(logs - logs.max(1, keepdims=True))
            of /= of.sum(1, keepdims=True)
            total = of.sum(0) + 1e-9
            share, means = total / total.sum(), of.T @ points / total[:, None]
            variance = of.T @ points**2 / total[:, None] - means**2
            variance = np.maximum(variance, 0) + floor
        self.fitted.append((means, variance, share))

    def scores(self, points: Points) -> Float[np.ndarray, "N C"]:
        return np.stack([np.logaddexp.reduce(_logs(points, *f), 1) for f in self.fitted], 1)


def _logs(points, means, variance, share):
    """log share_k N(point; mean_k, variance_k): [N, K]"""
    scaled = points**2 @ (1 / variance).T - 2 * points @ (means / variance).T
    constant = (means**2 / variance + np.log(variance)).sum(1) - 2 * np.log(share)
    return -0.5 * (scaled + constant[None] + points.shape[1] * np.log(2 * np.pi))
