"""Study `geometry`: what the latents look like.

Claim (paper, latent geometry): domains form islands in z, are linearly separable there, and
about 200 of 512 principal components hold 95 % of the variance on the expert's own domain.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows

MAP_WINDOWS = 120  # per domain in the picture
PROBE_RIDGE = 1e-2


def run(bank: ExpertBank, domains: Mapping[str, Windows], seed: int = 0) -> dict:
    """-> {"geometry": ...}: explained variance and components for 95 % per expert (its own domain,
    one sample per latent vector), a linear probe and a 2-D map of all domains in the latents of
    the first expert, as the paper maps code and wiki in the code expert's.
    """
    own = [d for d in domains if d in bank.names]
    variance = {
        d: explained_variance(latents(bank, d, domains[d]).reshape(-1, bank.model.d_latent))
        for d in own
    }
    first = bank.names[0]
    # Shuffled, so that the probe's two halves hold the same documents' windows in no order.
    rng = np.random.default_rng(seed)
    z = {
        d: rng.permutation(latents(bank, first, w).reshape(len(w), -1)) for d, w in domains.items()
    }
    points, method = flat_map(np.concatenate([x[:MAP_WINDOWS] for x in z.values()]), seed)
    return {
        "geometry": {
            "expert": first,
            "points": points.round(4).tolist(),
            "labels": [d for d, x in z.items() for _ in range(len(x[:MAP_WINDOWS]))],
            "method": method,
            "explained_variance": {d: v.tolist() for d, v in variance.items()},
            "components_95": {d: int(np.searchsorted(v, 0.95) + 1) for d, v in variance.items()},
            "d_latent_total": bank.model.d_latent,
            "linear_probe_accuracy": linear_probe({d: z[d] for d in own}),
        }
    }


def latents(bank: ExpertBank, expert: str, windows: Windows) -> Float[np.ndarray, "N M Dz"]:
    """One expert's z of each window, float32."""
    net = models.Autoencoder(bank.model)
    encode = jax.jit(lambda p, t, m: net.apply(p, t, m, method="encode").astype(jnp.float32))
    params, rows = bank.expert_params(expert), 128
    out = []
    for i in range(0, len(windows), rows):
        tokens, mask = windows.tokens[i : i + rows], windows.mask[i : i + rows]
        fill = rows - len(tokens)
        z = encode(
            params,
            np.pad(tokens, ((0, fill), (0, 0))),
            np.pad(mask, ((0, fill), (0, 0)), constant_values=True),
        )
        out.append(np.asarray(z)[: rows - fill])
    return np.concatenate(out)


def explained_variance(z: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " D"]:
    """Cumulative share of the variance held by the first 1, 2, ... principal components."""
    centred = z - z.mean(0)
    values = np.linalg.eigvalsh(centred.T @ centred)[::-1].clip(0)
    return np.cumsum(values) / max(values.sum(), 1e-12)


def linear_probe(z: Mapping[str, Float[np.ndarray, "N D"]]) -> float:
    """Accuracy of a ridge classifier on the second half of each domain, fitted on the first.

    Mean over domains.  Chance is 1 / number of domains.  NaN without a domain of two windows.
    """
    if all(len(x) < 2 for x in z.values()):
        return float("nan")
    fit = np.concatenate([x[: len(x) // 2] for x in z.values()])
    label = np.repeat(np.arange(len(z)), [len(x) // 2 for x in z.values()])
    mean, scale = fit.mean(0), fit.std() + 1e-9
    design = np.concatenate([(fit - mean) / scale, np.ones((len(fit), 1))], 1)
    gram = design.T @ design + PROBE_RIDGE * len(fit) * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design.T @ np.eye(len(z))[label])
    right = []
    for i, x in enumerate(z.values()):
        held = np.concatenate(
            [(x[len(x) // 2 :] - mean) / scale, np.ones((len(x) - len(x) // 2, 1))], 1
        )
        right.append(np.mean((held @ weights).argmax(1) == i))
    return float(np.mean(right))


def flat_map(z: Float[np.ndarray, "N D"], seed: int) -> tuple[Float[np.ndarray, "N 2"], str]:
    """Two coordinates per window and their method: t-SNE (the paper's), PCA without sklearn or
    where there are too few windows or dimensions for it.
    """
    centred = z - z.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    if len(z) < 4 or len(axes) < 2:
        flat = centred @ axes[:2].T
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))), "PCA"
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        return centred @ axes[:2].T, "PCA"
    flat = centred @ axes[:50].T
    perplexity = min(30.0, max(2.0, len(z) / 4))
    # One thread: OpenMP's wait for each other by spinning, minutes when a core is busy elsewhere.
    with threadpool_limits(1):
        picture = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(flat)
    return picture, "t-SNE"
