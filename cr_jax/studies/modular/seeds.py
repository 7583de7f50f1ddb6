"""Tables of the same arms from runs with several seeds -> one table of their means.

Perplexities and their ratios are averaged in the logarithm, as nats/token; bits/byte as they are.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cr_jax.errors import UserError

LOGARITHMIC = ("ppl", "mean_ppl_vs_dense", "mean_ppl_vs_label")


def combined(tables: Sequence[dict]) -> dict:
    """-> the first table with the means of all: "arms", and of each prefix "after",
    "mixture_first" and "agreement".

    A row's "seeds" is how many runs it is of, "spread" the least and the largest mean_ppl_vs_dense.
    `UserError` unless all have the same arms, domains and prefixes.
    """
    if not tables:
        raise UserError("there is no table to combine: name the reports of one run or more")
    shapes = [_shape(table) for table in tables]
    if any(shape != shapes[0] for shape in shapes):
        raise UserError(
            "the tables have other arms, domains or prefixes: combine runs of one config that "
            "differ in their seed alone"
        )
    return {
        **tables[0],
        "arms": _rows([table["arms"] for table in tables]),
        "prefix": {
            n: {
                **part,
                **{
                    key: _rows([table["prefix"][n][key] for table in tables])
                    for key in ("after", "mixture_first")
                },
                "agreement": _means([table["prefix"][n]["agreement"] for table in tables]),
            }
            for n, part in tables[0]["prefix"].items()
        },
    }


def _shape(table: dict) -> Any:
    parts = [table["arms"], *(part["after"] for part in table["prefix"].values())]
    rows = [{name: list(row["ppl"]) for name, row in part.items()} for part in parts]
    return rows, list(table["prefix"])


def _rows(tables: Sequence[dict]) -> dict:
    combined_rows = {}
    for name, first in tables[0].items():
        rows = [table[name] for table in tables]
        means = {k: _log_means([r[k] for r in rows]) for k in LOGARITHMIC}
        ratios = [r["mean_ppl_vs_dense"] for r in rows]
        combined_rows[name] = {
            **first,
            **means,
            "bits_per_byte": _means([r["bits_per_byte"] for r in rows]),
            "seeds": sum(r["seeds"] for r in rows),
            "spread": None if None in ratios else [min(ratios), max(ratios)],
        }
    return combined_rows


def _log_means(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {k: _log_means([v[k] for v in values]) for k in values[0]}
    return None if None in values else math.exp(np.mean(np.log(values)))


def _means(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {k: _means([v[k] for v in values]) for k in values[0]}
    return None if None in values else float(np.mean(values))
