"""Texts that were cut where their domain changes, as one page: colours, residual track, spans."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cr_jax.report.charts import svg, text, thin, ticks
from cr_jax.report.layout import document
from cr_jax.report.style import SLOTS
from cr_jax.report.tables import plain_table
from cr_jax.report.text import breakable, count, decimal, escape, percent

if TYPE_CHECKING:  # they import JAX, which a page does without
    from cr_jax.routing.segment import Segment
    from cr_jax.routing.segment_view import SegmentView, StoredView

    View = SegmentView | StoredView

MOST_POINTS = 900  # of the track: about one for each unit of its width
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 920, 200, 40, 34, 36
_UNKNOWN = SLOTS - 1  # grey
RULES = """
.track{overflow-x:auto;padding:3px}.track svg{min-width:660px}
.track .band{fill:currentColor;opacity:.13}
.track .edge{stroke:var(--ink);stroke-width:1;stroke-dasharray:3 3;fill:none}
.cuts{font-size:13px;line-height:1.7;tab-size:4}
.cuts .cut{user-select:none;padding-bottom:2px}.spoken i.none{border-bottom:2px solid var(--soft)}
"""
_OF_PAGE = ".key{gap:6px 14px}.plain thead th{min-width:0}\n"


def render(texts: "Sequence[tuple[str, View]]") -> str:
    """One self-contained page for (name, view) pairs.  No script, no request."""
    parts = [
        f'<section id="t{i}"><h2>{escape(name)}</h2>{shown(view)}</section>'
        for i, (name, view) in enumerate(texts)
    ]
    links = "".join(f'<a href="#t{i}">{escape(name)}</a>' for i, (name, _) in enumerate(texts))
    nav = f'<nav aria-label="texts">{links}</nav>' if len(texts) > 1 else ""
    return document(
        f"Spans of {f'{len(texts)} texts' if len(texts) > 1 else texts[0][0]}",
        "<header><h1>Where the domain changes</h1>"
        "<p>Every expert is a small model of the texts of one domain and says what each token "
        "costs it, in nats. A switch of expert has a price too; the cheapest path over all tokens "
        "says where the switches are. Then each span is scored alone by its own expert, and is "
        f"unknown where that is unusual for the expert's own domain.</p>{nav}</header>\n"
        f"<main>{''.join(parts)}</main>\n"
        "<footer><p>Idea: “Compression is Routing”, arXiv 2512.16963. Spans are not in the "
        "paper.</p></footer>",
        RULES + _OF_PAGE,
    )


def smoothed(nats: Float[np.ndarray, " T"], width: int) -> Float[np.ndarray, " T"]:
    """The mean over the `width` tokens around each token, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(nats, dtype=np.float64)])
    at = np.arange(len(nats))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + (width + 1) // 2, len(nats))
    return (sums[high] - sums[low]) / (high - low)


def shown(view: "View") -> str:
    """One text: its experts, the residual track, the coloured text and the table of its spans."""
    slots = _slots(view)
    note = (
        ""
        if view.shown == view.tokens
        else f'<p class="note">Below: the first {count(view.shown)} of {count(view.tokens)} tokens '
        f"and {count(len(view.spans))} of {count(view.count)} spans.</p>"
    )
    return (
        f"<p>{count(view.count)} span{'s' * (view.count != 1)}, {count(view.tokens)} "
        f"token{'s' * (view.tokens != 1)}.</p>{_legend(view, slots)}{note}"
        f"<h3>What each token costs</h3>{_track(view, slots)}"
        f"<h3>The text</h3>{_coloured(view, slots)}"
        f"<h3>Spans</h3>{_table(view)}"
    )


def _slots(view: "View") -> dict[str | None, int]:
    """Colours by tokens, most first, so that the experts of a text differ; grey is unknown."""
    known = sorted((n for n in view.of if n is not None), key=lambda n: (-view.of[n][1], n))
    return {None: _UNKNOWN, **{name: i for i, name in enumerate(known)}}


def _kind(expert: str | None, slots: dict[str | None, int]) -> str:
    """The class of a colour; the second round of the palette is underlined with dots."""
    if expert is None:
        return f"s{_UNKNOWN} none"
    slot = slots[expert]
    return f"s{slot % _UNKNOWN}{' again' * (slot >= _UNKNOWN)}"


def _legend(view: "View", slots: dict[str | None, int]) -> str:
    entries = []
    for name in sorted(view.of, key=lambda n: (n is None, slots[n])):
        spans, tokens = view.of[name]
        said = "unknown" if name is None else name
        entries.append(
            f'<span><i class="{_kind(name, slots)}">{breakable(said)}</i> '
            f"{percent(tokens / view.tokens)} of tokens, {count(spans)} "
            f"span{'s' * (spans != 1)}</span>"
        )
    return f'<div class="ramp key spoken">{"".join(entries)}</div>'


def _track(view: "View", slots: dict[str | None, int]) -> str:
    """nats/token, smoothed inside each span: a switch stays as sharp as it is."""
    nats, length, spans = view.nats, view.shown, view.spans
    width = max(16, length // 250)
    lines = [smoothed(nats[s.start : min(s.end, length)], width) for s in spans]
    high = max(1e-9, *(float(line.max()) for line in lines)) * 1.05
    room = _WIDTH - _LEFT - 8
    at_x = lambda t: _LEFT + room * t / max(1, length)
    at_y = lambda y: _HEIGHT - _BOTTOM - (y / high) * (_HEIGHT - _BOTTOM - _TOP)
    low = _HEIGHT - _BOTTOM
    body = [text(0, 11, "nats/token", "soft")]
    for y in ticks(0, high, 5):
        body.append(f'<path class="grid" d="M{_LEFT} {at_y(y):.1f}H{_WIDTH - 8}"/>')
        body.append(text(_LEFT - 6, at_y(y) + 4, f"{y:g}", "e soft s"))
    for x in ticks(0, length, 8):
        body.append(text(at_x(x), low + 16, f"{x:,.0f}", "m soft s"))
    body.append(text((_LEFT + _WIDTH) / 2, _HEIGHT - 4, "token", "m soft"))
    free = 0.0  # where the next number has room
    for span, line in zip(spans, lines, strict=True):
        x0, x1 = at_x(span.start), at_x(span.start + len(line))
        most = max(2, MOST_POINTS * len(line) // max(1, length))
        points = "L".join(
            f"{at_x(span.start + i + 0.5):.1f} {at_y(line[i]):.1f}" for i in thin(len(line), most)
        )
        body.append(
            f'<g class="{_kind(span.expert, slots)}"><title>{escape(_said(span))}</title>'
            f'<rect class="band" x="{x0:.1f}" y="{_TOP}" width="{x1 - x0:.1f}" '
            f'height="{low - _TOP}"/><path class="line" d="M{points}"/></g>'
        )
        if span.saved is None:
            continue
        body.append(f'<path class="edge" d="M{x0:.1f} {_TOP - 6}V{low}"/>')
        if x0 >= free:
            body.append(text(x0, _TOP - 10, decimal(span.saved, 0), "m soft s"))
            free = x0 + 34
    body.append(f'<path class="axis" d="M{_LEFT} {low}H{_WIDTH - 8}"/>')
    drawing = svg(_HEIGHT, "".join(body), "residual of each token, and the switches", _WIDTH)
    return (
        f'<div class="track">{drawing}</div>'
        f'<p class="note">By the expert of the span, mean of {width} tokens inside it. Dashed: a '
        "switch, with the nats that it saves beyond its price: what both spans would cost more "
        "under one of their two experts, as far as they were in memory.</p>"
    )


def _said(span: "Segment") -> str:
    """A span in a few words."""
    route, last = span.route, span.lines[1] - 1
    p = decimal(route.p_values[route.nearest], 3)
    margin = "" if math.isinf(span.margin) else f", margin {decimal(span.margin)} nats/token"
    return f"{_name(span)}, lines {span.lines[0]}–{last}, p {p}{margin}"


def _name(span: "Segment") -> str:
    return span.expert or f"[{span.nearest}]"


def _coloured(view: "View", slots: dict[str | None, int]) -> str:
    whole, parts = view.text, []
    for i, span in enumerate(view.spans, 1):
        shown = escape(whole[slice(*span.characters)])
        parts.append(f'<b class="cut">{i} {escape(_name(span))}</b>')
        kind = _kind(span.expert, slots)
        parts.append(f'<i class="{kind}" title="{escape(_said(span))}">{shown}</i>')
    # A newline right after <pre> is dropped by HTML, so one is always given away.
    return f'<pre class="spoken cuts">\n{"".join(parts)}</pre>'


def _table(view: "View") -> str:
    rows = []
    for i, span in enumerate(view.spans, 1):
        route = span.route
        rows.append(
            [
                f"{i}",
                _name(span),
                f"{span.lines[0]}–{span.lines[1] - 1}",
                count(span.end - span.start),
                decimal(route.residuals[route.nearest]),
                decimal(route.p_values[route.nearest], 3),
                decimal(span.margin),
                decimal(span.saved, 1),
            ]
        )
    head = ["", "expert", "lines", "tokens", "nats/token", "p", "margin", "switch saves"]
    return plain_table(head, rows, names=2) + (
        '<p class="note">In brackets: the nearest expert of a span that none knows. nats/token and '
        "p: of the span alone, encoded anew. Margin: nats/token to the expert that is next best on "
        "the span. Switch saves: nats that the switch before the span saves.</p>"
    )
