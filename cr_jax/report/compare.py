"""Runs side by side, by their report.json: the settings that differ, and the key figures.

Not in the paper.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cr_jax.errors import UserError, printable
from cr_jax.host.files import expanded, read_json

REPORT = "report.json"
_WIDE = 40  # characters of a value that are shown


class Row(NamedTuple):
    """One line of the table: a value for each run, None where a report does not say."""

    name: str
    values: tuple[Any, ...]
    form: str = ""  # how a number is written


def _own(field: str) -> Callable[[Mapping[str, Any]], Any]:
    """The mean over the experts of a figure of their own domain's test text."""

    def mean(report: Mapping[str, Any]) -> Any:
        table = report["fingerprint"]
        values = [row[name][field] for name, row in table.items()]
        return sum(values) / len(values) if values else None

    return mean


# What a reader asks for first; units stand in the name.
_FIGURES: tuple[tuple[str, Callable[[Mapping[str, Any]], Any], str], ...] = (
    ("experts", lambda r: r["summary"]["experts"], ",d"),
    ("parameters of an expert", lambda r: r["summary"]["parameters"], ",d"),
    ("tokens trained on, of an expert", lambda r: _either(r, "tokens_per_expert"), ",d"),
    ("steps", lambda r: _either(r, "steps"), ",d"),
    ("seconds of training", lambda r: r["seconds"]["training"], ".1f"),
    ("TRA at home, %", lambda r: 100 * _own("tra")(r), ".2f"),
    ("rebuilding at home, nats/token", _own("nll"), ".4f"),
    ("residual at home, nats/token", _own("residual"), ".4f"),
    ("best loss on valid", lambda r: r["training"]["best"]["loss"], ".4f"),
    ("routed right, %", lambda r: 100 * r["routing"]["accuracy"], ".2f"),
    ("routed right by rebuilding, %", lambda r: 100 * r["routing"]["accuracy_rebuild"], ".2f"),
    ("unknown text, AUROC", lambda r: r["ood"]["auroc_unseen_domain"], ".3f"),
    ("known text called unknown, %", lambda r: 100 * r["ood"]["false_alarm"], ".1f"),
    ("commit", lambda r: r["provenance"]["commit"][:10], ""),
)


def read(run: str | os.PathLike) -> Mapping[str, Any]:
    """The report of a run: its --workdir, or the file itself.  `UserError` where there is none."""
    place = expanded(run)
    file = place / REPORT if place.is_dir() else place
    if not os.path.isfile(file):
        raise UserError(
            f"{run} has no {REPORT}: name the --workdir of a run that has finished, or the file"
        )
    report = read_json(file)
    if not isinstance(report, dict) or not isinstance(report.get("provenance"), dict):
        raise UserError(f"{file} is no report of a run: cr-jax train writes one")
    return report


def compare(reports: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[Row]]:
    """-> (settings that are not the same in all of the reports, figures that any of them has)."""
    settings = [dict(_flat(report["provenance"].get("config", {}))) for report in reports]
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [Row(name, tuple(each.get(name) for each in settings)) for name in sorted(names)]
    differ = [row for row in rows if any(value != row.values[0] for value in row.values)]
    figures = [
        Row(name, tuple(_figure(pick, report) for report in reports), form)
        for name, pick, form in _FIGURES
    ]
    return differ, [row for row in figures if any(value is not None for value in row.values)]


def as_text(names: Sequence[str], settings: Sequence[Row], figures: Sequence[Row]) -> str:
    """A table with a column for each run; names: of the runs."""
    lines = [
        ["", *names],
        *([_shown(row) for row in settings] or [["(all settings are the same)"]]),
        [],
        *(_shown(row) for row in figures),
    ]
    widths = [
        max((len(line[i]) for line in lines if len(line) > i and len(line) > 1), default=0)
        for i in range(len(names) + 1)
    ]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def as_records(
    names: Sequence[str], settings: Sequence[Row], figures: Sequence[Row]
) -> Iterator[dict[str, Any]]:
    """A run a record: its name, its settings that differ, its figures."""
    for i, name in enumerate(names):
        yield {
            "run": name,
            "settings": {row.name: row.values[i] for row in settings},
            "figures": {row.name: row.values[i] for row in figures},
        }


def short_names(runs: Sequence[str]) -> list[str]:
    """The last part of each path; as much more of it as tells all apart."""
    paths = [Path(run).parts for run in runs]
    paths = [parts[:-1] if parts[-1:] == (REPORT,) and parts[1:] else parts for parts in paths]
    for count in range(1, max(map(len, paths), default=0)):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(set(paths)):
            return [printable(name) for name in names]
    return [printable("/".join(parts)) for parts in paths]


def _either(report: Mapping[str, Any], field: str) -> Any:
    """Reports of earlier versions have it in their provenance."""
    return report.get("training", report["provenance"])[field]


def _figure(pick: Callable[[Mapping[str, Any]], Any], report: Mapping[str, Any]) -> Any:
    try:
        return pick(report)
    except (KeyError, TypeError, AttributeError):
        return None  # a study that the run did not ask for


def _flat(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, node


def _shown(row: Row) -> list[str]:
    return [printable(row.name), *(_cell(value, row.form) for value in row.values)]


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if form and isinstance(value, int | float):
        return format(round(value) if form.endswith("d") else value, form)
    text = printable(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."
