"""How the residual and the routing margin change with the place of a token in its window.

The encoder of a code length has read t tokens when it predicts the t-th: with more context every
expert predicts better, the foreign ones too.  By rebuilding no token is predicted.  Windows are cut
anywhere, so that text is alike at every place but for what stands before it.  Not in the paper.
Letters: D domains, E experts, B windows of a domain, L tokens of a window.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.router import score_tokens
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.in_context.answers import BLOCK

PIECES = 8  # of a window, each routed alone
RESAMPLED = 400
RULES = {"bank": "residual", "rebuild": "nll"}


def by_position(
    bank: ExpertBank,
    valid: Mapping[str, Windows],
    test: Mapping[str, Windows],
    sizes: BatchSizes | None = None,
    seed: int = 0,
) -> dict:
    """rule ("bank", "rebuild") -> {
    "own", "rival", "foreign": nats of a token at each place [L], means over domains of equal
    weight, by its own expert, by the expert that is next best on the domain's valid text, and by
    all others;
    "margin": rival - own [L];
    "early", "late": margin in the first and last quarter, the first token left out;
    "late_over_early", with "late_over_early_95": its bootstrap interval over windows; None where
    the first has no margin to shrink;
    "slope", "slope_95": nats/token by which the margin changes when the place doubles;
    "pieces": {"tokens", "right"}: share of pieces of L / 8 tokens that are routed right when each
    is read where it stands in its window;
    "noise": {"early", "late"}: standard deviation of a token's margin}, and "windows" of test.

    `UserError` for fewer than two experts, or windows of fewer than eight tokens.
    """
    names, window = bank.names, bank.model.window
    if len(names) < 2 or window < PIECES:
        raise UserError(
            f"context is measured with two experts or more and windows of {PIECES} tokens or "
            "more; leave the study out"
        )
    rivals = {rule: {} for rule in RULES}
    for e, name in enumerate(names):
        scored = _scored(bank, valid[name], sizes)
        for rule, of in scored.items():
            means = of.mean((1, 2), dtype=np.float64)
            means[e] = np.inf
            rivals[rule][name] = int(means.argmin())
    scored = {name: _scored(bank, test[name], sizes) for name in names}
    found = {
        rule: _curves([scored[n][rule] for n in names], [rivals[rule][n] for n in names], seed)
        for rule in RULES
    }
    return {**found, "windows": sum(s["bank"].shape[1] for s in scored.values())}


def _scored(bank, windows, sizes) -> dict[str, Float[np.ndarray, "E B L"]]:
    """Every expert's nats at every place of full windows."""
    full = windows.take(np.flatnonzero(windows.mask.all(-1)))
    if not len(full):
        raise UserError("a domain has no full window: give more text, or leave the study out")
    parts = [
        score_tokens(bank, full.take(slice(i, i + BLOCK)), sizes)
        for i in range(0, len(full), BLOCK)
    ]
    return {
        rule: np.concatenate([getattr(p, field) for p in parts], 1) for rule, field in RULES.items()
    }


def _curves(nats: Sequence[Float[np.ndarray, "E B L"]], rivals: Sequence[int], seed: int) -> dict:
    own = [n[e].astype(np.float64) for e, n in enumerate(nats)]
    rival = [n[r].astype(np.float64) for n, r in zip(nats, rivals, strict=True)]
    foreign = [np.delete(n, e, 0).mean((0, 1), dtype=np.float64) for e, n in enumerate(nats)]
    margins = [b - a for a, b in zip(own, rival, strict=True)]
    draw = np.random.default_rng(seed)
    again = [
        _summary([m[draw.integers(len(m), size=len(m))] for m in margins]) for _ in range(RESAMPLED)
    ]
    summary: dict = _summary(margins)
    ends = {key: np.percentile([a[key] for a in again], (2.5, 97.5)).tolist() for key in summary}
    if not np.isfinite([summary["late_over_early"], *ends["late_over_early"]]).all():
        summary |= {"late_over_early": None}
        ends |= {"late_over_early": None}
    length = nats[0].shape[-1]
    edges = np.linspace(0, length, PIECES + 1).astype(int)
    pieces = [
        np.mean([np.mean(n[..., a:b].sum(-1).argmin(0) == e) for e, n in enumerate(nats)])
        for a, b in itertools.pairwise(edges)
    ]
    of_domains = lambda parts: np.mean([p.mean(0) for p in parts], 0).tolist()
    first, last = _quarters(length)
    noise = lambda at: float(np.mean([m[:, at].std() for m in margins]))
    return {
        "own": of_domains(own),
        "rival": of_domains(rival),
        "foreign": np.mean(foreign, 0).tolist(),
        "margin": of_domains(margins),
        **summary,
        "late_over_early_95": ends["late_over_early"],
        "slope_95": ends["slope"],
        "pieces": {"tokens": int(edges[1]), "right": [float(p) for p in pieces]},
        "noise": {"early": noise(first), "late": noise(last)},
    }


def _quarters(length: int) -> tuple[slice, slice]:
    return slice(1, length // 4), slice(length - length // 4, length)


def _summary(margins: Sequence[Float[np.ndarray, "B L"]]) -> dict[str, float]:
    """Of one sample of windows; the first token, which no expert has context for, is left out."""
    curve = np.mean([m.mean(0) for m in margins], 0)
    first, last = _quarters(len(curve))
    early, late = float(curve[first].mean()), float(curve[last].mean())
    place = np.log2(np.arange(1, len(curve)) + 1.0)
    slope = float(np.polyfit(place, curve[1:], 1)[0])
    ratio = late / early if early > 0 else math.nan
    return {"early": early, "late": late, "late_over_early": ratio, "slope": slope}
