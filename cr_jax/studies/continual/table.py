"""The study of one table of scores: every rule in every order, and which rule validation chooses.

    Scores -> study -> {"orders", "rules", "chosen", "growth", "timeline", "matrix", "pairs", ...}

All figures are of test windows but those under "valid".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cr_jax.studies.continual import figures, flips, growth
from cr_jax.studies.continual.orders import orders as usual_orders
from cr_jax.studies.continual.rules import PLAIN, RULES, Rule
from cr_jax.studies.continual.scores import Scores
from cr_jax.studies.continual.stages import History, walk

TOLERANCE = 0.001  # of ACC on valid: within it the rule with the fewest flips is chosen
MAIN = "random_0"  # the order that is shown stage by stage
DIGITS = 6

Histories = Mapping[str, History]  # by order


def study(
    scores: Scores, rules: Sequence[Rule] = RULES, orders: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """-> the figures of every rule, means over orders, and more of `plain` and the chosen rule.

    "rules": {name: `row` and "valid": {"acc", "bwt", "flip_rate"}, ...}; "chosen", of all rules
    that keep no text, and "chosen_by_family": by `choice`; "before_routing": the label's expert;
    "growth": `growth.curve` and its law; "timeline" and "matrix": of one order; "pairs": who takes
    windows from whom.  `UserError` as `Scores`.
    """
    orders = dict(orders or usual_orders(scores))
    on_valid = scores.on_valid()
    histories = {r.name: _walked(scores, r, orders) for r in rules}
    rows = {}
    for rule in rules:
        on = row(_walked(on_valid, rule, orders))
        rows[rule.name] = {
            "family": rule.family,
            "setting": rule.setting,
            "keeps_text": rule.keeps_text,
            **row(histories[rule.name], scores),
            "valid": {k: on[k] for k in ("acc", "bwt", "flip_rate")},
        }
    free = [r.name for r in rules if not r.keeps_text]
    families = dict.fromkeys(r.family for r in rules)
    chosen = choice(rows, free)
    shown = dict.fromkeys((PLAIN.name if PLAIN.name in rows else free[0], chosen))
    main = MAIN if MAIN in orders else next(iter(orders))
    return {
        "orders": {name: list(order) for name, order in orders.items()},
        "windows": {
            split: {n: x[n].shape[1] for n in scores.names}
            for split, x in (("valid", scores.valid), ("test", scores.test))
        },
        "rules": rows,
        "chosen": chosen,
        "chosen_by_family": {
            f: choice(rows, [r.name for r in rules if r.family == f]) for f in families
        },
        "before_routing": before_routing(histories[free[0]]),
        "growth": {n: _growth(histories[n]) for n in shown},
        "timeline": {n: timeline(histories[n][main]) for n in shown},
        "matrix": {n: rounded(histories[n][main].routed) for n in shown},
        "main_order": main,
        "pairs": {n: mean_pairs(histories[n]) for n in shown},
    }


def row(histories: Histories, scores: Scores | None = None) -> dict[str, Any]:
    """Of one rule, means over orders: "acc", "bwt", "fwt", "forgetting" of routing accuracy (0 for
    a domain that has not come, so FWT is 0), "flip_rate", "lost_rate", "cured_rate": means over
    mounts, "stored_bytes" per domain, "by_order": ACC, BWT and flips of each; "code_length": ACC
    and BWT of the winner's nats/token (a rise is worse); and, where TRA was measured, "tra": all of
    what the winner rebuilds, with its FWT."""
    each = {name: _of_order(h, scores) for name, h in histories.items()}
    means = _means(list(each.values()))
    short = ("acc", "bwt", "flip_rate")
    return {**means, "by_order": {n: {k: x[k] for k in short} for n, x in each.items()}}


def choice(rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """The rule with the fewest flips on valid of those whose ACC there is the best but for
    `TOLERANCE`; on a tie the first."""
    best = max(rows[n]["valid"]["acc"] for n in names)
    near = [n for n in names if rows[n]["valid"]["acc"] >= best - TOLERANCE]
    return min(near, key=lambda n: rows[n]["valid"]["flip_rate"])


def before_routing(histories: Histories) -> dict[str, Any]:
    """Of the label's experts: "constant": whether no figure of any changes after it was learnt,
    "bwt": 0 then, and "acc", of TRA, None where it was not measured; "residual": nats/token."""
    nats = [h.of_label(h.residual) for h in histories.values()]
    tra = [h.of_label(h.tra) for h in histories.values() if h.tra is not None]
    settled = lambda r: bool((np.isnan(r) | (r == r[-1])).all())
    return {
        "constant": all(map(settled, (*nats, *tra))),
        "acc": float(np.mean([figures.acc(r) for r in tra])) if tra else None,
        "bwt": float(np.mean([figures.bwt(r) for r in tra or nats])),
        "residual": float(np.mean([r[-1].mean() for r in nats])),
    }


def timeline(history: History) -> list[dict]:
    """[{"expert", "accuracy", "flips", "lost", "nats", "own_nats", "tra", "own_tra"}] after each
    mount; the first flips nothing.

    nats/token and TRA of the winner and of the label's expert, means over the domains that are
    there; the last two only where TRA was measured.
    """
    moved = flips.rates(history)
    so_far = lambda r: [_short(r[k, : k + 1].mean()) for k in range(len(r))]
    columns = {"accuracy": so_far(history.routed)}
    for name, values in (("nats", history.residual), ("tra", history.tra)):
        if values is not None:
            columns[name] = so_far(history.of_winner(values))
            columns[f"own_{name}"] = so_far(history.of_label(values))
    return [
        {
            "expert": name,
            "flips": _short(moved[0, k - 1]) if k else 0.0,
            "lost": _short(moved[1, k - 1]) if k else 0.0,
            **{column: values[k] for column, values in columns.items()},
        }
        for k, name in enumerate(history.names)
    ]


def mean_pairs(histories: Histories) -> list[dict]:
    """Flips by (domain, expert), all orders together: a pair stands in those in which the domain
    comes first; "orders": in how many it flips."""
    found: dict[tuple[str, str], list[dict]] = {}
    for history in histories.values():
        for pair in flips.pairs(history, most=len(history.names) ** 2):
            found.setdefault((pair["domain"], pair["expert"]), []).append(pair)
    merged = [
        {
            "domain": domain,
            "expert": expert,
            "orders": len(of),
            **{k: _short(np.mean([p[k] for p in of])) for k in ("share", "lead", "lead_high")},
        }
        for (domain, expert), of in found.items()
    ]
    return sorted(merged, key=lambda p: (-p["share"], p["domain"]))[: flips.MOST_PAIRS]


def rounded(matrix: np.ndarray) -> list[list[float | None]]:
    """Lists for JSON; what has not come yet is None."""
    return [
        [_short(x) if j <= i and np.isfinite(x) else None for j, x in enumerate(line)]
        for i, line in enumerate(matrix)
    ]


def _walked(scores: Scores, rule: Rule, orders) -> dict[str, History]:
    return {name: walk(scores.ordered(order), rule) for name, order in orders.items()}


def _of_order(history: History, scores: Scores | None) -> dict[str, Any]:
    routed = history.routed * np.tri(len(history.names))  # what has not come has no expert
    moved, lost, cured = flips.rates(history).mean(1)
    found = {
        **figures.all_of(routed, np.zeros(len(routed))),
        "flip_rate": float(moved),
        "lost_rate": float(lost),
        "cured_rate": float(cured),
        "stored_bytes": history.stored / len(history.names),
    }
    if history.residual is not None:
        nats = figures.all_of(history.of_winner(history.residual))
        found["code_length"] = {k: nats[k] for k in ("acc", "bwt")}
    if history.tra is not None:
        known = scores.base if scores else None
        base = None if known is None else np.array([known[n] for n in history.names])
        found["tra"] = figures.all_of(history.of_winner(history.tra), base)
    return found


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    return {
        k: _means([r[k] for r in rows])
        if isinstance(v, Mapping)
        else None
        if v is None
        else _short(np.mean([r[k] for r in rows]))
        for k, v in first.items()
    }


def _growth(histories: Histories) -> dict[str, Any]:
    found = growth.curve(list(histories.values()))
    errors = 1 - np.array([growth.accuracy(h)[1:] for h in histories.values()])
    shown = {k: [_short(x) for x in v] for k, v in found.items() if k != "experts"}
    return {
        "experts": found["experts"],
        **shown,
        "law": growth.law(np.array(found["experts"]), errors),
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
