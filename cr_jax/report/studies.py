"""The sections of studies that give a table (`cr_jax.studies.interface.Section`), some of which
the page also draws."""

from collections.abc import Callable

from cr_jax.report import continual, in_context, modular, segment_study
from cr_jax.report.layout import figure
from cr_jax.report.tables import plain_table
from cr_jax.report.text import escape, label, mapping, sequence

PICTURES: dict[str, Callable[[dict], str]] = {
    "continual": continual.pictures,
    "in_context": in_context.pictures,
    "modular": modular.pictures,
    "segments": segment_study.pictures,
}


def studies(report: dict) -> list[tuple[str, str, str]]:
    """(id, title, HTML) of each; rows are cut or filled up to the length of the head."""
    return [
        (f"study-{escape(name)}", escape(of.get("title")), _drawn(name, report) + section(of))
        for name, of in ((n, mapping(s)) for n, s in mapping(report.get("sections")).items())
    ]


def _drawn(name: str, report: dict) -> str:
    return PICTURES[name](report) if name in PICTURES else ""


def section(of: dict) -> str:
    if of.get("left_out"):
        return f"<p>This study could not be made: {escape(of['left_out'])}.</p>"
    head = [label(x) for x in sequence(of.get("head"))]
    rows = [[label(x) for x in sequence(row)][: len(head)] for row in sequence(of.get("rows"))]
    if not head or not rows:
        return ""
    body = plain_table(head, [row + [""] * (len(head) - len(row)) for row in rows])
    read, false_if, finding = (of.get(key) or "" for key in ("read", "false_if", "finding"))
    return figure(body, label(read), label(false_if), label(finding))
