"""Study `scoring`: fidelity against discrimination, for ways to train and rules to score by.

Claim to test (not in the paper): a compressor that also rebuilds tokens it was not shown routes by
these better the longer it trains, where the paper's residual fades as copying gets perfect.
Reads stored residuals (results/scoring): those of every expert on every window.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cr_jax.studies import weak_experts
from cr_jax.studies.packed_sums import unpack
from cr_jax.studies.unknown.detection import auroc, fpr_at_95

Residuals = Mapping[str, Float[np.ndarray, "E N"]]  # per domain, nats/token


def rules(
    arrays: Mapping[str, np.ndarray], window: int, experts: list[str]
) -> dict[str, dict[str, Residuals]]:
    """{rule: {split: residuals}} of one run's full windows; lower is nearer.

    The measured rules, TRA with its sign changed, sums of rules that share the unit, the code
    length with the typicality penalty that is best on valid (`weak_experts`), and, behind "z ",
    a rule by each expert's own mean and deviation on valid.  "test" also has the unseen: what
    stands under unseen/ or is no expert's.
    """
    places = sorted({k.split(":")[0] for k in arrays})
    unseen = [
        k
        for k in places
        if k.startswith("unseen/") or (k.startswith("test/") and k.split("/", 1)[1] not in experts)
    ]
    domains = {
        "valid": {d: f"valid/{d}" for d in experts},
        "test": {d: f"test/{d}" for d in experts} | {k.split("/", 1)[1]: k for k in unseen},
    }

    def read(rule, key, sign=1.0):
        return {
            split: {d: sign / window * arrays[f"{place}:{rule}:{key}"] for d, place in of.items()}
            for split, of in domains.items()
        }

    out = {"seen": read("seen", "nll"), "TRA": read("seen", "correct", -1.0)}
    hidden = sorted({k.split(":")[1] for k in arrays} - {"seen"})
    out |= {rule: read(rule, "residual") for rule in hidden}
    add = lambda *names: {
        s: {d: sum(out[n][s][d] for n in names) for d in out["seen"][s]} for s in domains
    }
    if "h50" in hidden:
        out["seen + h50"] = add("seen", "h50")
    if len(hidden) > 1:
        out[" + ".join(hidden)] = add(*hidden)
    if "code" in hidden:
        out["code, typicality"] = exceeding(out["code"], experts)
    return out | {
        f"z {name}": standardised(out[name], experts)
        for name in ("seen", *(["h50"] if "h50" in hidden else []))
    }


def standardised(residuals: Mapping[str, Residuals], experts: list[str]) -> dict[str, Residuals]:
    """Each expert's residuals in deviations from its own mean on its own valid windows."""
    own = [residuals["valid"][name][e] for e, name in enumerate(experts)]
    middle = np.array([x.mean() for x in own])[:, None]
    spread = np.array([max(x.std(), 1e-9) for x in own])[:, None]
    return {
        split: {d: (r - middle) / spread for d, r in of.items()} for split, of in residuals.items()
    }


def exceeding(residuals: Mapping[str, Residuals], experts: list[str]) -> dict[str, Residuals]:
    """The residuals with the typicality penalty whose weight routes best on valid."""
    known = lambda split: {name: residuals[split][name] for name in experts}
    weight = weak_experts.typicality(known("valid"), known("test"), experts)["chosen_on_valid"]
    limit = weak_experts.limits(residuals["valid"], experts)
    return {
        split: {d: weak_experts.with_typicality_penalty(r, limit, weight) for d, r in of.items()}
        for split, of in residuals.items()
    }


def judge(residuals: Mapping[str, Residuals], experts: list[str]) -> dict[str, Any]:
    """Routing on test by argmin, mean over domains; unseen domains told apart by the least
    standardised residual: AUROC and FPR at 95 % TPR, mean and worst."""
    test = residuals["test"]
    hits = {d: float((test[d].argmin(0) == e).mean()) for e, d in enumerate(experts)}
    strange = {d: r.min(0) for d, r in standardised(residuals, experts)["test"].items()}
    known = np.concatenate([strange[d] for d in experts])
    unseen = [d for d in test if d not in experts]
    area = {d: auroc(known, strange[d]) for d in unseen}
    rate = {d: fpr_at_95(known, strange[d]) for d in unseen}
    return {
        "routing": float(np.mean(list(hits.values()))),
        "per_domain": hits,
        "auroc": float(np.mean(list(area.values()))),
        "auroc_per_domain": area,
        "fpr95": float(np.mean(list(rate.values()))),
        "fpr95_per_domain": rate,
    }


def run(folder: Path, variant_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """One row per run of experts and rule from FOLDER/NAME.npz and NAME.json.

    `variant_of(name)` names what a run shares with the same run of other seeds.
    """
    rows = []
    for path in sorted(folder.glob("*.npz")):
        record = json.loads(path.with_suffix(".json").read_text())
        spec, window = record["spec"], record["spec"]["model"]["window"]
        experts = spec.get("domains")
        if not experts:  # the seed of other runs
            continue
        with np.load(path, allow_pickle=False) as stored:
            arrays = unpack(stored)
        tra = float(
            np.mean(
                [arrays[f"test/{d}:seen:correct"][e].mean() / window for e, d in enumerate(experts)]
            )
        )
        for rule, residuals in rules(arrays, window, experts).items():
            rows.append(
                {
                    "run": path.stem,
                    "variant": variant_of(path.stem),
                    "seed": spec["seed"],
                    "rule": rule,
                    "tra": tra,
                    "params": record["params"],
                    "own_residual": float(
                        np.mean([residuals["test"][d][e].mean() for e, d in enumerate(experts)])
                    ),
                    "train_seconds": record["seconds"],
                    "tokens_per_expert": record["tokens_per_expert"],
                    "device": record["device"],
                    **judge(residuals, experts),
                }
            )
    return rows


def summary(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds and, with several, the distance between the extremes; best routing first."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["rule"]), []).append(row)
    out = []
    for (variant, rule), of in groups.items():
        line = {"variant": variant, "rule": rule, "seeds": len(of)}
        for key in ("tra", "routing", "auroc", "fpr95"):
            values = [row[key] for row in of]
            line[key] = float(np.mean(values))
            line[f"{key}_spread"] = float(max(values) - min(values)) if len(values) > 1 else None
        out.append(line)
    return sorted(out, key=lambda line: -line["routing"])
