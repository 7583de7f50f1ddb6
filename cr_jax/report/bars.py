"""Bars on both sides of a line, as inline SVG: how much less or more than something each takes."""

from dataclasses import dataclass

from cr_jax.report.charts import WIDTH, svg, text, ticks
from cr_jax.report.style import SLOTS
from cr_jax.report.text import THIN, escape, number, shorten

_LEFT, _RIGHT, _TOP, _STEP = 124, 72, 22, 19


@dataclass(frozen=True)
class Bar:
    """value: a ratio, 0.86 is 14 % less.  slot: place in the palette; hollow: drawn in outline;
    more: a line for who points at it."""

    name: str
    value: float
    slot: int = 0
    hollow: bool = False
    bold: bool = False
    more: str = ""


def change(ratio: float, digits: int = 1) -> str:
    """0.86 -> "−14.0 %", 1 -> "0.0 %"."""
    x = round(100 * (ratio - 1), digits)
    return f"{x:{'+' if x else ''}.{digits}f}{THIN}%".replace("-", "−")


def bar_chart(bars: list[Bar], axis: str, label: str) -> str:
    """Sorted bars from a line at a ratio of 1, the least on top; "" without any.

    A bar that is longer to the right than the longest to the left is cut and ends in a point.
    """
    bars = sorted((b for b in bars if number(b.value) is not None), key=lambda b: b.value)
    if not bars:
        return ""
    low = min(0.0, bars[0].value - 1)
    most = max(0.0, bars[-1].value - 1)
    high = min(most, max(0.1, -low))
    span = high - low or 1.0
    bottom = _TOP + _STEP * len(bars)
    at = lambda x: _LEFT + (x - low) / span * (WIDTH - _LEFT - _RIGHT)
    body = [text(_LEFT, 11, axis, "soft")]
    for tick in ticks(low, high, 5):
        body.append(f'<path class="grid" d="M{at(tick):.1f} {_TOP}V{bottom}"/>')
        body.append(text(at(tick), bottom + 15, change(1 + tick, 0), "m soft s"))
    for i, bar in enumerate(bars):
        top = _TOP + _STEP * i + 3
        body.append(_row(bar, top, at(0.0), at(min(high, bar.value - 1)), bar.value - 1 > high))
    body.append(f'<path class="rule" d="M{at(0.0):.1f} {_TOP - 4}V{bottom}"/>')
    return svg(bottom + 20, "".join(body), label)


def _row(bar: Bar, top: int, zero: float, end: float, cut: bool) -> str:
    height, (start, stop) = _STEP - 6, sorted((zero, end))
    outline = f"M{start:.1f} {top}H{stop:.1f}"
    outline += f"l6 {height / 2}l-6 {height / 2}" if cut else f"v{height}"
    weight = " b" if bar.bold else ""
    kind = "outline" if bar.hollow else "bar"
    return (
        f'<g class="s{bar.slot % SLOTS}"><title>{escape(bar.name)}: {escape(change(bar.value))}'
        f"{escape(bar.more and f'; {bar.more}')}</title>"
        f'<path class="{kind}" d="{outline}H{start:.1f}z"/>'
        + text(_LEFT - 8, top + 10, shorten(bar.name, 17), "e" + weight)
        + text(WIDTH, top + 10, change(bar.value), "e" + weight)
        + "</g>"
    )
