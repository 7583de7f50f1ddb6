"""The figures of every arm, all over the same tokens.

    {domain: DomainNats}, Plan, {models: Facts} -> table -> results

mean_ppl_vs_dense = exp(mean over domains of nll_arm - nll_dense), nll in nats/token: 0.86 is a
perplexity 14 % below the dense model's, every domain weighing the same.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.modular.candidates import (
    affordable_margin,
    calibrated_margin,
    prefix_means,
    scheduling_flops,
)
from cr_jax.modular.schedule import prefix_nats
from cr_jax.studies.modular.arms import ARMS, Arm, Plan, kept_by_bigrams, mixture
from cr_jax.studies.modular.nats import DomainNats, Facts

PREFIXES = (16, 32, 64, 128, 256)
DIGITS = 6  # of a figure
AFFORDABLE = 0.02  # share of one model's operations on a window that deciding may cost


@dataclasses.dataclass(frozen=True)
class Cell:
    """Sums of one arm on one domain."""

    nats: float
    tokens: int
    bytes: int

    @property
    def nll(self) -> float:
        """nats/token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(1, self.bytes)


Row = Mapping[str, Cell]  # one arm on every domain


def table(
    domains: Mapping[str, DomainNats],
    plan: Plan,
    facts: Mapping[str, Facts],
    prefixes: Sequence[int] = PREFIXES,
    arms: Iterable[Arm] = ARMS,
) -> dict:
    """-> {"arms", "prefix"}.

    "arms": over all tokens of the windows; an arm that decides by a prefix comes once per prefix,
    NAME_16, ..., and the seed speaks its prefix.  "prefix": {"16": {"after", "mixture_first",
    "agreement"}, ...}: all arms over the tokens after the prefix; those that decide by it over all
    tokens, the mixture of all speaking the prefix; and how often they choose the label's expert.
    plan.prefix is of no account.  `UserError` without a domain, or where a prefix leaves no token.
    """
    if not domains:
        raise UserError("no domain has windows to score language models on")
    arms = tuple(arms)
    whole = {name: d.mask for name, d in domains.items()}
    rows: dict[str, Row] = {}
    by_prefix: dict[str, dict] = {}
    said = {a.name: _spoken(a, domains, plan) for a in arms if not a.by_prefix}
    spoken = {name: nats for name, nats in said.items() if nats}
    mixtures = {name: mixture(d, plan) for name, d in domains.items()}
    plain = {name: _row(nats, domains, whole) for name, nats in spoken.items()}
    for prefix in prefixes:
        here = dataclasses.replace(plan, prefix=prefix)
        after = {name: _after(d.mask, prefix) for name, d in domains.items()}
        if short := [name for name, mask in after.items() if not mask.any()]:
            raise UserError(f"{short[0]}: no window has more than {prefix} tokens; ask for less")
        late = {name: _row(nats, domains, after) for name, nats in spoken.items()}
        mixed: dict[str, Row] = {}
        agreement = {}
        for arm in arms:
            if not arm.by_prefix or not (nats := _spoken(arm, domains, here)):
                continue
            late[arm.name] = _row(nats, domains, after)
            rows[f"{arm.name}_{prefix}"] = _row(nats, domains, whole)
            first = {n: np.where(after[n], nats[n], mixtures[n]) for n in domains}
            mixed[arm.name] = _row(first, domains, whole)
            if arm.choose and arm.models == "experts":
                agreement[arm.name] = _agreement(arm, domains, here)
        by_prefix[str(prefix)] = {
            "after": _figures(late, arms, facts),
            "mixture_first": _figures({**mixed, **_base(plain)}, arms, facts),
            "agreement": {k: v for k, v in agreement.items() if v},
        }
    return {"arms": _figures({**plain, **rows}, arms, facts), "prefix": by_prefix}


def scheduling(
    domains: Mapping[str, DomainNats], plan: Plan, config: LmConfig, prefixes: Sequence[int]
) -> dict:
    """What deciding by bigram candidates costs, by prefix: {"16": {"margin", "mean_candidates",
    "agreement", "flops_share"}}; agreement: with the choice by all language models."""
    out = {}
    for prefix in prefixes:
        if prefix not in plan.margins or any(d.bigrams is None for d in domains.values()):
            continue
        here, agree, kept = dataclasses.replace(plan, prefix=prefix), [], []
        for d in domains.values():
            chosen = kept_by_bigrams(d, here)
            winner = np.asarray(prefix_nats(d.experts, d.mask, prefix)).argmin(0)
            agree.append(np.asarray(chosen.kept)[winner, np.arange(len(winner))].mean())
            kept.append(float(chosen.mean))
        d = next(iter(domains.values()))
        mean = float(np.mean(kept))
        out[str(prefix)] = {
            "margin": plan.margins[prefix],
            "mean_candidates": mean,
            "agreement": float(np.mean(agree)),
            "flops_share": scheduling_flops(config, d.mask.shape[1], prefix, len(d.experts), mean),
        }
    return out


def margins(
    valid: Mapping[str, DomainNats],
    prefixes: Sequence[int],
    most: int,
    config: LmConfig,
    at_least: float = 0.99,
) -> dict[int, float]:
    """Of each prefix the least margin that keeps the winner in `at_least` of validation windows.

    None is so large that its candidates cost more than `AFFORDABLE` of one model's operations."""
    margin_of = {}
    length = next(iter(valid.values())).mask.shape[1]
    for prefix in prefixes:
        means = [np.asarray(prefix_means(d.bigrams, d.mask, prefix)) for d in valid.values()]
        own = [np.asarray(prefix_nats(d.experts, d.mask, prefix)) for d in valid.values()]
        nearest = np.concatenate([x.argmin(0) for x in own])
        means = np.concatenate(means, axis=1)
        cost = functools.partial(scheduling_flops, config, length, prefix, len(means))
        most_of = affordable_margin(means, most, cost, AFFORDABLE)
        try:
            margin_of[prefix] = min(most_of, calibrated_margin(means, nearest, most, at_least))
        except UserError:  # no margin keeps so many winners
            margin_of[prefix] = most_of
    return margin_of


def _spoken(arm, domains, plan):
    """{domain: nats [N, L]}; None where any domain lacks what the arm needs."""
    spoken = {name: arm.speak(d, plan) for name, d in domains.items()}
    return None if any(nats is None for nats in spoken.values()) else spoken


def _row(nats, domains, masks) -> Row:
    return {
        name: Cell(
            float(nats[name][masks[name]].sum(dtype=np.float64)),
            int(masks[name].sum()),
            int(d.bytes[masks[name]].sum()),
        )
        for name, d in domains.items()
    }


def _after(mask, prefix: int):
    return mask & (np.arange(mask.shape[1]) >= prefix)[None]


def _base(plain: Mapping[str, Row]) -> dict[str, Row]:
    """What the others are compared with."""
    return {name: plain[name] for name in ("dense", "label") if name in plain}


def _agreement(arm, domains, plan) -> dict | None:
    """How often the label's expert is chosen, and what it costs where it is not."""
    shares, better, lost, others = {}, 0, 0.0, 0
    for name, d in domains.items():
        if d.label is None:
            return None
        chosen, after = arm.choose(d, plan), _after(d.mask, plan.prefix)
        at = after.any(-1)
        own = d.label[:, min(plan.prefix, d.label.shape[1] - 1)].astype(np.int64)
        shares[name] = float((chosen == own)[at].mean())
        other = at & (chosen != own) & (chosen >= 0)
        rows = np.flatnonzero(other)
        gap = np.where(after[rows], d.experts[chosen[rows], rows] - d.experts[own[rows], rows], 0)
        each = gap.sum(-1, dtype=np.float64) / after[rows].sum(-1)
        better, lost, others = better + int((each < 0).sum()), lost + each.sum(), others + rows.size
    return {
        "label": float(np.mean(list(shares.values()))),
        "per_domain": {name: round(share, DIGITS) for name, share in shares.items()},
        "others": others,
        "other_better": better / others if others else None,
        "other_nats": lost / others if others else None,
    }


def _figures(rows: Mapping[str, Row], arms, facts) -> dict:
    by_name = {arm.name: arm for arm in arms}

    def arm_of(name):
        return by_name.get(name) or by_name[name.rpartition("_")[0]]

    return {
        name: {
            "ppl": {n: _short(math.exp(min(c.nll, 700.0))) for n, c in row.items()},
            "bits_per_byte": {n: _short(c.bits_per_byte) for n, c in row.items()},
            "mean_ppl_vs_dense": _versus(row, rows.get("dense")),
            "mean_ppl_vs_label": _versus(row, rows.get("label")),
            **_cost(arm_of(name), facts),
            "bound": arm_of(name).bound,
            "seeds": 1,
        }
        for name, row in rows.items()
    }


def _versus(row: Row, base: Row | None) -> float | None:
    if base is None:
        return None
    return _short(math.exp(np.mean([row[name].nll - base[name].nll for name in row])))


def _cost(arm: Arm, facts: Mapping[str, Facts]) -> dict:
    own = facts.get(arm.models)
    if own is None or arm.bound:
        return dict.fromkeys(("active_params", "total_params", "train_tokens", "train_flops"))
    return {
        "active_params": own.params * (min(arm.reading or own.models, own.models) + arm.beside),
        "total_params": own.params * (own.models + arm.beside),
        "train_tokens": own.train_tokens,
        "train_flops": own.train_flops,
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
