"""What measured cells say: rows of ablation.jsonl -> settings, laws, missed predictions.

Paper, open question 1.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cr_jax.errors import UserError
from cr_jax.studies.capacity import capacity, power_law
from cr_jax.training.metric_writer import read_lines

# The grid of a GPU that ships with the package: cells of results/law_gpu without their curves.
MEASURED = Path(__file__).with_name("measured.jsonl")


def load(path: str | os.PathLike) -> list[dict]:
    """Lines of an ablation.jsonl.  A line cut off by a kill is left out.  `UserError` if none."""
    rows = read_lines(Path(path))
    if not rows:
        raise UserError(f"{path} has no measured cells; run configs/ablate_latents.py first")
    return rows


def analyse(
    rows: list[dict], thresholds=(capacity.THRESHOLD,), predictions: Mapping | None = None
) -> dict:
    """Rows -> {"settings", "laws", "against_bound", "misses"}: what ablation.json holds beside
    provenance.

    Held-out rows are kept out of the law and appear in `misses`.  Laws are per threshold.
    """
    fitted = [r for r in rows if not r["held_out"]]
    out = {
        "settings": by_setting(rows),
        "laws": {},
        "against_bound": {},
        "bound_law": power_law.bound_law().to_json(),
    }
    for level in thresholds:
        points = capacity.capacities(fitted, level)
        out["laws"][str(level)] = power_law.fit(points).to_json()
        out["against_bound"][str(level)] = capacity.against_bound(points)
    if predictions:
        points = capacity.capacities([r for r in rows if r["held_out"]], predictions["threshold"])
        same = lambda p, s: all(p.setting[k] == v for k, v in s.items())
        out["misses"] = [
            capacity.miss({k: line[k] for k in ("window", "low", "high")}, measured)
            for line in predictions["points"]
            if (measured := [p for p in points if same(p, line["setting"])])
        ]
    return out


def by_setting(rows: list[dict], target: float = 0.99) -> list[dict]:
    """Rows of equal settings, which differ by their seeds, as one: mean and spread of TRA and nll,
    and the mean number of steps until `target` of the training tokens came back, None where a seed
    did not get so far (or the row has no curve).
    """
    same = (
        "domain",
        "size",
        "window",
        "latents",
        "d_latent",
        "bottleneck",
        "budget_tokens",
        "parameters",
        "steps",
    )
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(k) for k in same), []).append(row)
    out = []
    for key, cells in groups.items():
        steps = [
            next((s for s, tra in zip(*row.get("train_curve", ((), ()))) if tra >= target), None)
            for row in cells
        ]
        out.append(
            {
                **dict(zip(same, key, strict=True)),
                "seeds": len(cells),
                **{
                    f"{name}{end}": float(of([row[name] for row in cells]))
                    for name in ("tra", "nll")
                    for end, of in (("", np.mean), ("_std", np.std))
                },
                f"steps_to_{round(100 * target)}": (
                    None if None in steps else float(np.mean(steps))
                ),
            }
        )
    return out


def findings(found: Mapping, sizes: bool) -> Iterator[str]:
    """Lines for a terminal of what `analyse` found; sizes: also the mean of each setting."""
    for line in found["settings"] if sizes else ():
        steps = line["steps_to_99"]
        yield (
            f"{line['domain']} {line['size']}: TRA {line['tra']:.2%} +- "
            f"{line['tra_std']:.2%} over {line['seeds']} seed(s), 99 % of training tokens "
            f"{f'after {steps:.0f} steps' if steps else 'not reached'}"
        )
    for level, law in found["laws"].items():
        yield f"TRA >= {float(level):.2%}: {law['verdict']}: {law['reason']}"
        for term, cell in law["exponents"].items():
            if cell["value"] is not None:
                low, high = cell["interval_95"]
                yield f"  exponent of {term}: {cell['value']:.2f} [{low:.2f}, {high:.2f}]"
    for line in found.get("misses", []):
        s, p = line["setting"], line["predicted"]
        measured = (
            f"{line['measured']:.0f}"
            if line["measured"]
            else f"{line['censored'][0]} {line['limit']:.0f}"
        )
        yield (
            f"  M={s['latents']} d_z={s['d_latent']} {s['domain']}: predicted "
            f"{p['window']:.0f}, measured {measured}, "
            f"{'inside' if line['inside'] else 'outside'} the interval"
        )
