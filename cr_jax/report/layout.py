"""Pieces that all sections share: the order of domains, captions, charts side by side."""

import os
from pathlib import Path

from cr_jax.errors import UserError
from cr_jax.host.files import write_whole
from cr_jax.report.style import css
from cr_jax.report.text import escape, mapping, sequence
from cr_jax.scoring.wording import Wording, wording

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str, style: str = "") -> str:
    """A page that makes no request and runs no script; `title` is plain text, `body` HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css()}{style}\n</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def write_page(page: str, path: str | os.PathLike) -> Path:
    """A page to a file, whole or not at all.  `UserError` where it cannot be written."""
    try:
        return write_whole(Path(path), page)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; choose a folder you can write to"
        ) from error


def rule_of(report: dict) -> Wording:
    """What this run's residual counts; the paper's where the report does not say."""
    config = mapping(mapping(report.get("provenance")).get("config"))
    return wording(config.get("scoring"))


def domain_order(report: dict) -> list[str]:
    """All domains: the experts' own first, then the others, random tokens last."""
    names: list[str] = []
    for key in ("fingerprint", "residuals", "curves"):
        names += list(mapping(report.get(key)))
    for key in ("fingerprint", "residuals"):
        for row in mapping(report.get(key)).values():
            names += list(mapping(row))
    names += [str(label) for label in sequence(mapping(report.get("geometry")).get("labels"))]
    names = list(dict.fromkeys(names))
    return sorted(names, key=lambda name: name == "random_tokens")


def slots(report: dict) -> dict[str, int]:
    """Domain or expert -> its place in the palette, the same in every figure."""
    return {name: i for i, name in enumerate(domain_order(report))}


def figure(body: str, read: str, false_if: str, run: str = "") -> str:
    """A figure with its caption; `read` and `false_if` are plain text, `run` may be ""."""
    lines = [f"<p><b>In this run</b> {escape(run)}</p>"] if run else []
    lines.append(f"<p><b>How to read it</b> {escape(read)}</p>")
    lines.append(f"<p><b>Shown false if</b> {escape(false_if)}</p>")
    return f"<figure>{body}<figcaption>{''.join(lines)}</figcaption></figure>"


def panel(title: str, body: str) -> str:
    """One of several charts side by side; "" stays ""."""
    return f'<div class="panel"><h4>{escape(title)}</h4>{body}</div>' if body else ""


def panels(*parts: str) -> str:
    """Charts side by side where there is room."""
    parts = [part for part in parts if part]
    return f'<div class="panels">{"".join(parts)}</div>' if parts else ""
