"""Charts as inline SVG: lines, ridges (stacked histograms) and a scatter.

Every chart is drawn on a box of about 460 units, the width of a phone or of half a page, so that
its text keeps a readable size. Series are told apart by colour and by dash or marker shape.
"""

import math
from dataclasses import dataclass

import numpy as np

from cr_jax.report.style import SLOTS
from cr_jax.report.text import THIN, escape, number, percent, shorten

WIDTH = 460
MOST_POINTS = 4000  # in the latent map; more would hide one another
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "12 4")
# A marker is a path relative to its centre; the first is a round stroke cap.
_MARKERS = (
    "h0",
    "m-2.2-2.2h4.4v4.4h-4.4z",
    "m0-2.9l2.7 4.8h-5.4z",
    "m-2.2-2.2l4.4 4.4m0-4.4l-4.4 4.4",
    "m0-3l3 3-3 3-3-3z",
    "m-3 0h6m-3-3v6",
    "m0 2.9l2.7-4.8h-5.4z",
)


@dataclass(frozen=True)
class Series:
    """One line: `slot` is its place in the palette, `mark` an x where a dot is put on it."""

    name: str
    slot: int
    xs: list
    ys: list
    mark: float | None = None


def _f(x: float) -> str:
    return f"{x:.1f}".removesuffix(".0")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values (1, 2, 2.5 or 5 times a power of ten) within [low, high], at most `most`."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [i * step for i in range(first, last + 1)]
    return [low, high]


def thin(length: int, most: int) -> list[int]:
    """At most `most` evenly spaced indices into `length` items, the first and last among them."""
    if length <= most:
        return list(range(length))
    return np.linspace(0, length - 1, most).round().astype(int).tolist()


def _tick_label(value: float, share: bool) -> str:
    if share:
        return f"{100 * value:g}{THIN}%"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} K" if abs(value) >= 1e4 else f"{value:g}"


def svg(height: float, body: str, label: str, width: float = WIDTH) -> str:
    """An `<svg>` with a view box of `width` x `height` and an accessible name."""
    box = f"0 0 {_f(width)} {_f(height)}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{body}</svg>'


def text(x: float, y: float, content: object, classes: str = "") -> str:
    """An escaped text element; classes: b bold, m middle, e end, s small, soft, halo."""
    kind = f' class="{classes}"' if classes else ""
    return f'<text x="{_f(x)}" y="{_f(y)}"{kind}>{escape(content)}</text>'


def legend(entries: list[tuple[str, int]], marker: bool = False) -> str:
    """An HTML list of (name, slot), each with its line or its marker."""
    items = []
    for name, slot in entries:
        if marker:
            sign = f'<svg viewBox="0 0 26 12">{_dots([(13, 6)], slot)}</svg>'
        else:
            dash = _DASHES[slot % len(_DASHES)]
            sign = (
                '<svg viewBox="0 0 26 12"><path class="line" d="M1 6H25" '
                f'stroke-dasharray="{dash}"/></svg>'
            )
        items.append(f'<li class="s{slot % SLOTS}">{sign}<span>{escape(name)}</span></li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _pairs(series: Series) -> list[tuple[float, float]]:
    pairs = [(number(x), number(y)) for x, y in zip(series.xs, series.ys, strict=False)]
    pairs = [(x, y) for x, y in pairs if x is not None and y is not None]
    # More points than the chart has pixels only make the page heavy.
    return [pairs[i] for i in thin(len(pairs), 240)]


def line_chart(
    series: list[Series],
    x_label: str,
    y_label: str,
    *,
    share: bool = False,
    rule: float | None = None,
) -> str:
    """Lines over a common x; `share` fixes y to 0..100 %, `rule` draws a dashed y level.

    Returns "" when no series has two finite points.
    """
    lines = [(s, pairs) for s in series if len(pairs := _pairs(s)) > 1]
    if not lines:
        return ""
    left, right, top, bottom, height = 46, 12, 22, 38, 270
    x_low = min(x for _, pairs in lines for x, _ in pairs)
    x_high = max(x for _, pairs in lines for x, _ in pairs)
    if x_high == x_low:
        return ""
    y_high = 1.0 if share else max(y for _, pairs in lines for _, y in pairs) * 1.02
    y_low = 0.0 if share else min(0.0, min(y for _, pairs in lines for _, y in pairs))
    if y_high <= y_low:
        y_high = y_low + 1.0

    def at_x(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (WIDTH - left - right)

    def at_y(y: float) -> float:
        y = min(y_high, max(y_low, y))
        return height - bottom - (y - y_low) / (y_high - y_low) * (height - bottom - top)

    body = [text(0, 11, y_label, "soft")]
    for y in ticks(y_low, y_high):
        body.append(f'<path class="grid" d="M{left} {_f(at_y(y))}H{WIDTH - right}"/>')
        body.append(text(left - 6, at_y(y) + 4, _tick_label(y, share), "e soft s"))
    for x in ticks(x_low, x_high):
        body.append(text(at_x(x), height - bottom + 16, _tick_label(x, False), "m soft s"))
    body.append(f'<path class="axis" d="M{left} {height - bottom}H{WIDTH - right}"/>')
    body.append(text((left + WIDTH - right) / 2, height - 5, x_label, "m soft"))
    if rule is not None:
        body.append(f'<path class="rule" d="M{left} {_f(at_y(rule))}H{WIDTH - right}"/>')
    for s, pairs in lines:
        path = "L".join(f"{_f(at_x(x))} {_f(at_y(y))}" for x, y in pairs)
        dash = _DASHES[s.slot % len(_DASHES)]
        body.append(
            f'<g class="s{s.slot % SLOTS}"><title>{escape(s.name)}</title>'
            f'<path class="line" d="M{path}" stroke-dasharray="{dash}"/>'
        )
        mark = number(s.mark)
        if mark is not None and x_low <= mark <= x_high:
            y = float(np.interp(mark, [x for x, _ in pairs], [y for _, y in pairs]))
            body.append(
                f'<circle cx="{_f(at_x(mark))}" cy="{_f(at_y(y))}" r="4" fill="currentColor"/>'
            )
        body.append("</g>")
    return svg(height, "".join(body), f"{y_label} against {x_label}")


def ridge_chart(
    rows: list[tuple[str, int, list[float], list[float]]],
    x_high: float,
    cut: float | None,
    bold: str | None,
) -> str:
    """Histograms (name, slot, edges, counts) one above the other on a square-root x axis.

    Each is scaled to its own peak. `cut` draws a vertical line; the share of every row to the right
    of it is written at the end of the row. `bold` names the row set in bold type.
    """
    left, right, top, step, peak = 108, 50, 22, 27, 22
    bottom = top + step * len(rows)
    root = math.sqrt(x_high)

    def at_x(x: float) -> float:
        x = min(x_high, max(0.0, x))
        return left + math.sqrt(x) / root * (WIDTH - left - right)

    body = []
    marks = [t for t in (0, 0.1, 0.5, 1, 2, 4, 6, 9, 12, 16, 25, 50, 100) if t <= x_high]
    for tick in marks:
        x = _f(at_x(tick))
        body.append(f'<path class="grid" d="M{x} {top}V{bottom}"/>')
        body.append(text(at_x(tick), bottom + 15, f"{tick:g}", "m soft s"))
    body.append(text((left + WIDTH - right) / 2, bottom + 32, "residual, nats/token", "m soft"))
    for i, (name, slot, edges, counts) in enumerate(rows):
        base = top + step * (i + 1)
        most = max(counts) or 1.0
        path = f"M{_f(at_x(edges[0]))} {base}"
        for start, stop, c in zip(edges, edges[1:], counts, strict=False):
            y = _f(base - peak * c / most)
            path += f"L{_f(at_x(start))} {y}L{_f(at_x(stop))} {y}"
        path += f"L{_f(at_x(edges[-1]))} {base}z"
        weight = " b" if name == bold else ""
        body.append(f'<path class="axis" d="M{left} {base}H{WIDTH - right}"/>')
        body.append(f'<g class="s{slot % SLOTS}"><path class="ridge" d="{path}"/></g>')
        label = text(left - 8, base - 5, shorten(name, 14), "e" + weight)
        body.append(f"<g><title>{escape(name)}</title>{label}</g>")
        if cut is not None:
            share = share_beyond(edges, counts, cut)
            body.append(text(WIDTH, base - 5, percent(share, 0), "e" + weight))
    if cut is not None:
        body.append(f'<path class="rule" d="M{_f(at_x(cut))} {top - 4}V{bottom}"/>')
        body.append(text(at_x(cut), 11, f"{cut:.2f}", "m s soft"))
        body.append(text(WIDTH, 11, "beyond", "e s soft"))
    return svg(bottom + 36, "".join(body), f"residuals of {len(rows)} domains")


def share_beyond(edges: list[float], counts: list[float], cut: float) -> float:
    """The share of a histogram to the right of `cut`, linear inside a bin."""
    total = sum(counts)
    below = np.interp(cut, edges, np.concatenate([[0.0], np.cumsum(counts)]))
    return float(1 - below / total) if total else 0.0


def quantile(edges: list[float], counts: list[float], q: float) -> float | None:
    """The value below which a share `q` of a histogram lies; None when it is empty."""
    total = sum(counts)
    if not total:
        return None
    return float(np.interp(q, np.concatenate([[0.0], np.cumsum(counts)]) / total, edges))


def _dots(points: list[tuple[float, float]], slot: int) -> str:
    marker = _MARKERS[slot % len(_MARKERS)]
    path = "".join(f"M{_f(x)} {_f(y)}{marker}" for x, y in points)
    kind = "dots round" if marker == "h0" else "dots"
    return f'<path class="{kind}" d="{path}"/>'


def scatter(points: list, labels: list, slots: dict[str, int]) -> str:
    """A map of points [x, y], one marker per label; no axes, as t-SNE's have no unit.

    Each label is also written at the median of its points. Returns "" when no point is finite.
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for point, label in zip(points, labels, strict=False):
        pair = [number(c) for c in point] if isinstance(point, list | tuple) else []
        if len(pair) >= 2 and None not in pair[:2]:
            groups.setdefault(str(label), []).append((pair[0], pair[1]))
    if not groups:
        return ""
    height, margin = 380, 14
    cloud = np.array([p for group in groups.values() for p in group])
    low, high = cloud.min(0), cloud.max(0)
    room = np.array([WIDTH - 2 * margin, height - 2 * margin])
    zoom = float((room / np.maximum(high - low, 1e-9)).min())  # one scale for both axes
    middle = (low + high) / 2
    body, names = [], []
    for label, group in groups.items():
        place = (np.array(group) - middle) * zoom * [1, -1] + [WIDTH / 2, height / 2]
        slot = slots.get(label, 0)
        dots = _dots([(x, y) for x, y in place.tolist()], slot)
        body.append(f'<g class="s{slot % SLOTS}"><title>{escape(label)}</title>{dots}</g>')
        x, y = np.median(place, axis=0).tolist()
        half = 3.7 * min(len(label), 20)
        names.append((min(WIDTH - half, max(half, x)), y, half, shorten(label, 20)))
    placed: list[tuple[float, float, float, str]] = []
    for x, y, half, label in sorted(names, key=lambda n: n[1]):
        while any(
            abs(x - px) < half + other + 4 and abs(y - py) < 15 for px, py, other, _ in placed
        ):
            y += 3  # move down until clear of the names above
        placed.append((x, y, half, label))
    body += [text(x, y + 4, label, "m halo") for x, y, _, label in placed]
    lowest = max(y for _, y, _, _ in placed)
    return svg(max(height, lowest + 12), "".join(body), f"map of {len(cloud)} windows")
