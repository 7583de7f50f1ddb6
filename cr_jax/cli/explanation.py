"""An explanation on a terminal, or as plain text where there is none."""

import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator

from cr_jax.cli.output import p_text, printable
from cr_jax.report.explanation import MARGIN_EDGES, RESIDUAL_EDGES, margin_step, residual_step
from cr_jax.report.text import visible
from cr_jax.routing.explain import Explanation, TextSum

_RESET = "\x1b[0m"
# (ink, paper) per step; None keeps the terminal's own.  Nobody tells a program whether the
# terminal is dark, so weak steps colour the letters and strong ones the ground: on both, more
# colour is more nats.
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_RESIDUAL = (
    ((150, 125, 70), None),
    ((176, 125, 43), None),
    ((205, 105, 20), None),
    (_BLACK, (240, 200, 110)),
    (_BLACK, (243, 175, 75)),
    (_BLACK, (240, 145, 50)),
    (_BLACK, (232, 115, 40)),
    (_BLACK, (222, 85, 40)),
    (_WHITE, (180, 30, 40)),
)
_FOR = (
    ((70, 135, 175), None),
    ((30, 125, 205), None),
    (_BLACK, (140, 195, 235)),
    (_BLACK, (85, 165, 225)),
    (_WHITE, (15, 95, 170)),
)
_AGAINST = (_RESIDUAL[1], _RESIDUAL[2], _RESIDUAL[4], _RESIDUAL[6], _RESIDUAL[8])


def colours(wanted: str = "auto") -> str:
    """plain, 256 or truecolor for stdout; `wanted` is auto, always or never.

    auto: none when stdout is no terminal, or NO_COLOR is set, or TERM is dumb.
    """
    able = (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and (os.environ.get("TERM") != "dumb")
    )
    if wanted == "never" or (wanted == "auto" and not able):
        return "plain"
    return "truecolor" if os.environ.get("COLORTERM") in ("truecolor", "24bit") else "256"


def lines(
    name: str,
    explanation: Explanation,
    colour: str = "plain",
    view: str = "residual",
    width: int | None = None,
    blocks: bool = True,
) -> Iterator[str]:
    """The explanation of one file, line by line: bars, verdict, text or the tokens that weigh most.

    colour: of `colours`; view: what colours a token, its "residual" under the nearest expert or its
    "margin" over the runner-up; width: columns (None: the terminal's); blocks: bars of █, else #.
    """
    columns = width or min(100, shutil.get_terminal_size().columns)
    route = explanation.route
    yield f"{printable(name)}: {explanation.size}"
    yield from _bars(explanation, columns, blocks)
    yield printable(explanation.verdict)
    if explanation.witnesses:
        yield printable(explanation.witnesses)
    yield ""
    if not explanation.complete:
        yield (
            f"below: the first {explanation.windows} of {route.windows} windows "
            f"({len(explanation.tokens):,} of {route.tokens:,} tokens)"
        )
    if colour == "plain":
        yield from _listing(explanation)
        return
    paint = _painter(colour)
    yield from _text(explanation, paint, view)
    yield ""
    yield from _legend(explanation, paint, view)


def _bars(explanation: Explanation, columns: int, blocks: bool) -> Iterator[str]:
    route = explanation.route
    longest = max(filter(math.isfinite, route.ranking_score.values())) or 1.0
    left = max(map(len, explanation.names))
    room = max(8, min(48, columns - left - (44 if route.typicality_penalty else 34)))
    head = "nats/token + penalty" if route.typicality_penalty else "nats/token"
    yield f"  {'':{left}}  {head} {'':{room}}      p    TRA"
    pale = "░" if blocks else "+"
    for name in explanation.names:
        residual = route.residuals[name]
        # No bar for an expert without a finite residual.
        finite = math.isfinite(residual)
        number, bar = f"{residual:10.3f}", _bar(room * residual / longest, blocks) if finite else ""
        if route.typicality_penalty:
            number += f" + {route.typicality_penalty[name]:6.3f}"
            whole = round(room * route.ranking_score[name] / longest) if finite else 0
            bar += pale * max(0, whole - len(bar))
        p = p_text(route.p_values[name])
        yield f"  {name:{left}}  {number} {bar:{room}}  {p:>5}  {route.tra[name]:.3f}"
    if route.typicality_penalty:
        yield f"  {pale} typicality penalty: {explanation.words.added}"


def _bar(length: float, blocks: bool) -> str:
    if not blocks:
        return "#" * max(1, round(length))
    eighths = max(1, round(8 * length))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _painter(colour: str) -> Callable[[str, tuple], str]:
    def code(kind: int, rgb) -> str:
        if colour == "truecolor":
            return f"{kind};2;{rgb[0]};{rgb[1]};{rgb[2]}"
        return f"{kind};5;{_cube(rgb)}"

    def paint(text: str, style: tuple) -> str:
        codes = [code(kind, rgb) for kind, rgb in zip((38, 48), style, strict=True) if rgb]
        # The reset comes before a line's end: a coloured line end would fill the whole line.
        parts = [
            f"\x1b[{';'.join(codes)}m{part}{_RESET}" if part else "" for part in text.split("\n")
        ]
        return "\n".join(parts)

    return paint


def _cube(rgb) -> int:
    """The nearest colour of xterm's 6x6x6 cube."""
    levels = (0, 95, 135, 175, 215, 255)
    red, green, blue = (min(range(6), key=lambda i: abs(levels[i] - x)) for x in rgb)
    return 16 + 36 * red + 6 * green + blue


def _style(step: int, view: str) -> tuple:
    if view == "residual":
        return _RESIDUAL[step - 1]
    return (_FOR if step > 0 else _AGAINST)[abs(step) - 1]


def _text(explanation: Explanation, paint, view: str) -> Iterator[str]:
    values = explanation.margins() if view == "margin" else explanation.residuals()[0]
    step_of = margin_step if view == "margin" else residual_step
    parts = []
    for span, value in zip(explanation.spans, values.tolist(), strict=True):
        text, step = visible(span.text), step_of(value)
        if step:  # a colour is seen only on a character
            text = paint(text.replace("\n", "↵\n").replace("\t", "⇥\t"), _style(step, view))
        parts.append(text)
    yield from "".join(parts).removesuffix("\n").split("\n")


def _legend(explanation: Explanation, paint, view: str) -> Iterator[str]:
    nearest, other = explanation.names[0], explanation.runner_up
    if view == "residual":
        steps = [paint(f" {edge:g} ", _style(i, view)) for i, edge in enumerate(RESIDUAL_EDGES, 1)]
        yield f"{explanation.words.cost}, by {nearest}, from: {''.join(steps)}"
        return
    steps = list(enumerate(MARGIN_EDGES, 1))
    against = [paint(f" -{edge:g} ", _style(-i, view)) for i, edge in reversed(steps)]
    speaks = [paint(f" {edge:g} ", _style(i, view)) for i, edge in steps]
    yield f"nats/token: for {other} {''.join(against)} 0 {''.join(speaks)} for {nearest}"


def _listing(explanation: Explanation) -> Iterator[str]:
    names = explanation.names[:2]
    if explanation.runner_up:
        ranked = explanation.by_text()
        yield from _rows(
            f"tokens that speak most for {names[0]} over {names[1]}",
            "margin",
            [row for row in ranked if row.nats > 0][:8],
            names,
        )
        yield from _rows(
            f"tokens that speak most for {names[1]}",
            "margin",
            [row for row in reversed(ranked) if row.nats < 0][:4],
            names,
        )
    if explanation.route.expert is None or not explanation.runner_up:
        yield from _rows(
            f"tokens that {names[0]} {explanation.words.verb} worst",
            "nats",
            explanation.by_text("residual")[:8],
            names,
        )


def _rows(title: str, what: str, rows: list[TextSum], names) -> Iterator[str]:
    if not rows:
        return
    yield title
    shown = [repr(visible(row.text)) for row in rows]
    left = max(map(_columns, [*shown, "token"]))
    heads = [max(len(name), 6) for name in names]
    yield f"  {'token':{left}} times  {what:>7}" + "".join(
        f"  {name:>{n}}" for name, n in zip(names, heads, strict=True)
    )
    for text, row in zip(shown, rows, strict=True):
        gap = " " * (left - _columns(text))
        yield f"  {text}{gap} {row.count:5}  {row.nats:7.2f}" + "".join(
            f"  {x:{n}.2f}" for x, n in zip((row.nearest, row.runner_up), heads, strict=False)
        )


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
