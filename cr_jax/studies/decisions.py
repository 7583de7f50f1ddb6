"""Study `decisions`: is there a better way to decide from per-token scores than their sum?

Not in the paper, whose rule is the lowest mean.  A statistic makes one number of a window's token
scores by each expert; the ranking may take off a share of what is usual for the expert and add a
penalty for what is not.  All is chosen on validation windows.

    nats [E, B, L] -> summaries -> {statistic: [E, N]} -> run
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.router import score_tokens
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.common import MOST_WINDOWS, at_least, percent
from cr_jax.studies.interface import Context, Section, Study

BLOCK = 64  # windows whose per-token scores stand in memory at once
SUM = "sum"
TRIMMED = (0.02, 0.1)  # shares of the dearest tokens that are left out
POWERS = (0.5, 0.7)
GAPS = (1.0, 2.0, 3.0, 4.0, 6.0)  # nats
OFFSET_SHARES = (0.0, 0.25, 0.5)
TYPICALITY_WEIGHTS = (0.0, 1.0, 2.0, 4.0)

Summary = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _mean(x, mask):
    return np.where(mask, x, 0).sum(-1) / mask.sum(-1)


def _trimmed(share: float) -> Summary:
    def of(nats, mask):
        kept = np.ceil((1 - share) * mask.sum(-1))[:, None]
        ordered = np.sort(np.where(mask, nats, np.inf), -1)
        return _mean(ordered, np.arange(mask.shape[1]) < kept)

    return of


def _gap(most: float) -> Summary:
    return lambda nats, mask: _mean(np.minimum(nats - nats.min(0), most), mask)


def _tempered(power: float) -> Summary:
    return lambda nats, mask: _mean(np.maximum(0, nats) ** power, mask)


# sum: mean nats/token.  trimmed: without the dearest tokens of each expert.  tempered: mean of
# nats**power.  gap: mean of how far an expert is behind the best at each token, nats, at most so
# much: an expert that fails on a few tokens is not lost by them.
STATISTICS: dict[str, Summary] = {
    SUM: _mean,
    **{f"trimmed_{share:g}": _trimmed(share) for share in TRIMMED},
    **{f"tempered_{power:g}": _tempered(power) for power in POWERS},
    **{f"gap_{most:g}": _gap(most) for most in GAPS},
}


def summaries(
    nats: Float[np.ndarray, "E B L"], mask: Bool[np.ndarray, "B L"]
) -> dict[str, Float[np.ndarray, "E B"]]:
    """Every statistic of windows; what stands at padding is not read."""
    nats = np.where(mask, np.asarray(nats, np.float32), np.float32(0))
    return {name: of(nats, mask) for name, of in STATISTICS.items()}


def measure(score: Callable[[Windows], np.ndarray], windows: Windows) -> dict[str, np.ndarray]:
    """score: nats of every token by every expert [E, B, L].  -> `summaries` [E, N]."""
    parts = []
    for start in range(0, len(windows), BLOCK):
        block = windows.take(slice(start, start + BLOCK))
        parts.append(summaries(score(block), block.mask))
    return {name: np.concatenate([p[name] for p in parts], -1) for name in STATISTICS}


def run(
    names: Sequence[str],
    valid: Mapping[str, Mapping[str, np.ndarray]],
    test: Mapping[str, Mapping[str, np.ndarray]],
) -> dict:
    """-> {"statistics": {name: {"offset_share", "typicality_weight", "valid", "test",
    "per_domain"}}, "plain": {"valid", "test"}, "chosen", "confusion", "chance"}.

    valid, test: domain -> statistic -> [E, N].  Accuracies are means over domains.  Each statistic
    is ranked with the offset share and the typicality weight that are best on valid (on a tie the
    smaller), and `chosen` is the statistic that is best there; plain: the sum without either.
    confusion: where chosen sends test windows that it sends wrong.  `UserError`: no two domains, or
    one that has no windows.
    """
    if len(names) < 2 or any(n not in valid or n not in test for n in names):
        raise UserError("decisions need validation and test windows of two domains or more")
    found = {s: _best_form(names, valid, test, s) for s in STATISTICS}
    chosen = max(found, key=lambda s: found[s]["valid"])
    plain = _Form(names, valid, SUM, 0.0, 0.0)
    form = found[chosen]
    winners = _Form(names, valid, chosen, form["offset_share"], form["typicality_weight"]).winners(
        test
    )
    confusion = {}
    for e, name in enumerate(names):
        others, counts = np.unique(winners[name][winners[name] != e], return_counts=True)
        if others.size:
            confusion[name] = {names[o]: int(c) for o, c in zip(others, counts, strict=True)}
    return {
        "statistics": found,
        "plain": {"valid": plain.accuracy(valid)[0], "test": plain.accuracy(test)[0]},
        "chosen": chosen,
        "confusion": confusion,
        "chance": 1 / len(names),
    }


def _best_form(names, valid, test, statistic: str) -> dict:
    forms = [
        _Form(names, valid, statistic, share, weight)
        for share, weight in itertools.product(OFFSET_SHARES, TYPICALITY_WEIGHTS)
    ]
    best = max(forms, key=lambda form: form.accuracy(valid)[0])
    accuracy, per_domain = best.accuracy(test)
    return {
        "offset_share": best.share,
        "typicality_weight": best.weight,
        "valid": best.accuracy(valid)[0],
        "test": accuracy,
        "per_domain": per_domain,
    }


class _Form:
    """x - share * own median + weight * max(0, x - own 95th percentile), of one statistic x."""

    def __init__(self, names, valid, statistic: str, share: float, weight: float):
        self.names, self.statistic, self.share, self.weight = names, statistic, share, weight
        own = [np.quantile(valid[n][statistic][e], [0.5, 0.95]) for e, n in enumerate(names)]
        self.middle, self.high = np.array(own).T[..., None]

    def winners(self, domains) -> dict[str, np.ndarray]:
        out = {}
        for name in self.names:
            x = domains[name][self.statistic]
            above = np.maximum(0, x - self.high)
            out[name] = (x - self.share * self.middle + self.weight * above).argmin(0)
        return out

    def accuracy(self, domains) -> tuple[float, dict[str, float]]:
        won = self.winners(domains)
        right = {n: float(np.mean(won[n] == e)) for e, n in enumerate(self.names)}
        return float(np.mean(list(right.values()))), right


def of_context(context: Context) -> dict:
    """-> {"decisions": ...} of the run's validation and test windows, each scored once."""
    bank, settings = context.bank, context.experiment.eval
    sizes = BatchSizes.of(settings)
    score = lambda block: score_tokens(bank, block, sizes, seen=False).residual
    valid, test = (
        {n: measure(score, of[n].spread(MOST_WINDOWS)) for n in bank.names}
        for of in (context.text.valid, context.own_test)
    )
    return {"decisions": run(bank.names, valid, test)}


def section(report: dict) -> Section:
    found = report["decisions"]
    plain = found["plain"]
    return Section(
        "Decisions from the scores of tokens",
        ("statistic", "offset share", "typicality weight", "right on valid", "right on test"),
        [
            ("sum, the paper's rule", "0", "0", percent(plain["valid"]), percent(plain["test"])),
            *(
                (
                    name,
                    f"{of['offset_share']:g}",
                    f"{of['typicality_weight']:g}",
                    percent(of["valid"]),
                    percent(of["test"]),
                )
                for name, of in found["statistics"].items()
            ),
        ],
        "Each row makes one number of the scores of a window's tokens; offset share and typicality "
        "weight are the best on validation windows.",
        "no statistic routes more test windows right than the sum.",
        f"chosen on validation windows: {found['chosen']}.",
    )


STUDY = Study("decisions", of_context, section, at_least(2))
