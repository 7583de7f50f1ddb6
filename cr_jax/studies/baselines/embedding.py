"""Baseline `embedding`: windows as points of a frozen embedding, Gaussians with one covariance.

What it is: latent semantic analysis.  Windows are hashed, IDF-weighted token 1- and 2-gram rows,
projected on the leading singular vectors of all domains' training windows and put on the unit
sphere; each domain is a Gaussian there, all share one covariance, the score is the negated squared
Mahalanobis distance (Lee et al. 2018).  What it is not: the features of a pretrained neural
encoder, which a package without a download cannot ship.  Not in the paper.
"""

from collections.abc import Sequence

import numpy as np

from cr_jax.studies.baselines import hashed_counts
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut

BITS = 17  # columns of the hash
WIDTH = 256  # dimensions of the embedding
RIDGE = 1e-3  # of the mean variance, added to the covariance
_ROUNDS = 4  # of the randomised decomposition
_ROWS = 1024


def fit(text: TrainingText, lengths: Sequence[int], budget: Budget) -> Baseline:
    """`budget.embedding_windows` windows per domain; means and covariance for each length.

    Scores are squared Mahalanobis distances, negated.
    """
    read = [text.windows(e, budget.embedding_windows * text.window) for e in range(len(text.names))]
    label = np.repeat(np.arange(len(read)), [len(tokens) for tokens, _ in read])
    tokens, mask = (np.concatenate(x) for x in zip(*read))
    design = hashed_counts.rows(tokens, mask, BITS)
    seen = np.bincount(design.indices, minlength=1 << BITS)
    rarity = np.log((1 + len(tokens)) / (1 + seen)).astype(np.float32)
    axes = _leading(_weigh(design, rarity), min(WIDTH, len(tokens) - 1), text.seed)

    def embed(tokens, mask):
        parts = [
            _weigh(hashed_counts.rows(tokens[i : i + _ROWS], mask[i : i + _ROWS], BITS), rarity)
            @ axes
            for i in range(0, len(tokens), _ROWS)
        ]
        return _unit(np.concatenate(parts).astype(np.float64))

    gaussians = {}
    for length in lengths:
        points = embed(tokens, cut(mask, length))
        means = np.stack([points[label == e].mean(0) for e in range(len(read))])
        apart = points - means[label]
        covariance = apart.T @ apart / len(apart)
        covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
        gaussians[length] = means @ whiten, whiten

    def predict(tokens, mask, lengths):
        out = []
        for length in lengths:
            means, whiten = gaussians[min(gaussians, key=lambda have: abs(np.log(have / length)))]
            points = embed(tokens, cut(mask, length)) @ whiten
            out.append(
                2 * means @ points.T - np.sum(means**2, 1)[:, None] - np.sum(points**2, 1)[None]
            )
        return np.stack(out)

    return Baseline(
        predict,
        independent=False,
        unit="distance",
        note={"columns": 1 << BITS, "width": axes.shape[1]},
    )


def _weigh(design, rarity):
    """Rows times the inverse document frequency, of length 1 again."""
    weighed = design.copy()
    weighed.data *= rarity[weighed.indices]
    norms = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
    weighed.data /= np.repeat(np.maximum(norms, 1e-9), np.diff(weighed.indptr)).astype(np.float32)
    return weighed


def _unit(points):
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)


def _leading(design, width: int, seed: int):
    """[columns, width] right singular vectors, by randomised subspace iteration (Halko 2011)."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((design.shape[1], width + 16)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(design.T @ np.linalg.qr(design @ basis)[0])
    _, turn = np.linalg.eigh((design @ basis).T @ (design @ basis))
    return (basis @ turn[:, ::-1])[:, :width]
