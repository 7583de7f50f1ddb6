"""The architecture in one drawing: the compressor, and routing by its residual."""

from cr_jax.report.charts import WIDTH, svg, text
from cr_jax.report.style import SLOTS
from cr_jax.report.text import DASH, count, decimal, escape, mapping, number, shorten, size

_MOST_EXPERTS = 8


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    """A straight horizontal or vertical arrow."""
    if y0 == y1:
        sign = 1 if x1 > x0 else -1
        head = f"M{x1} {y1}l{-7 * sign} -4v8z"
    else:
        sign = 1 if y1 > y0 else -1
        head = f"M{x1} {y1}l-4 {-7 * sign}h8z"
    return f'<path class="arrow" d="M{x0} {y0}L{x1} {y1}"/><path class="head" d="{head}"/>'


def _cells(x: float, top: float, height: float, n: int, width: float, kind: str = "box") -> str:
    """A column of n outlined cells."""
    step = height / n
    lines = "".join(f"M{x} {top + i * step:.1f}h{width}" for i in range(1, n))
    return (
        f'<rect class="{kind}" x="{x}" y="{top}" width="{width}" height="{height}"/>'
        f'<path class="axis" d="{lines}"/>'
    )


def _drawn(value: object, most: int) -> int:
    n = number(value)
    return max(1, min(most, int(n))) if n else min(8, most)


def compressor(summary: dict, formula: str) -> str:
    """Tokens -> Encoder -> latents -> Decoder (z and positions only) -> tokens; below it what the
    residual is (`scoring.wording.Wording.formula`), as text, which a narrow screen wraps."""
    window, latents = count(summary.get("window")), count(summary.get("latents"))
    width = count(summary.get("d_latent"))
    n_tokens, n_latents = _drawn(summary.get("window"), 24), _drawn(summary.get("latents"), 12)
    top, height = 46, 168
    middle = top + height / 2
    small = min(84.0, 11.0 * n_latents)
    z_top = middle - small / 2
    body = [
        text(0, top - 26, f"{window} tokens", "b"),
        text(23, top - 10, "x", "m soft"),
        _cells(12, top, height, n_tokens, 22),
        _arrow(38, middle, 58, middle),
        f'<path class="box" d="M62 {top}L168 {z_top - 8}V{z_top + small + 8}L62 {top + height}z"/>',
        text(112, middle - 2, "Encoder", "m b"),
        text(112, middle + 14, shorten(summary.get("bottleneck") or "", 14), "m soft s"),
        _arrow(172, middle, 192, middle),
        text(211, z_top - 42, f"{latents} latents", "m b"),
        text(211, z_top - 26, f"of {width} numbers", "m soft s"),
        text(211, z_top - 10, "z", "m soft"),
        f'<g class="s0"><rect x="196" y="{z_top}" width="30" height="{small}" '
        'fill="currentColor" opacity=".28"/></g>',
        _cells(196, z_top, small, n_latents, 30, "box clear"),
        _arrow(230, middle, 254, middle),
        f'<path class="box" d="M258 {z_top - 8}L394 {top}v{height}L258 {z_top + small + 8}z"/>',
        text(326, middle - 2, "Decoder", "m b"),
        text(326, middle + 14, "one parallel pass", "m soft s"),
        _arrow(398, middle, 420, middle),
        text(WIDTH, top - 26, f"{window} tokens", "e b"),
        text(435, top - 10, "x̂", "m soft"),
        _cells(424, top, height, n_tokens, 22),
        # Positions enter the decoder from below; nothing else does.
        _arrow(324, 236, 324, 200),
        text(324, 250, "positions 1.." + window, "m"),
        '<path class="wall" d="M211 176V262"/>',
        text(205, 236, "the input ends here", "e s soft"),
        text(205, 250, "the decoder sees z and", "e s soft"),
        text(205, 263, "positions only", "e s soft"),
    ]
    drawing = svg(274, "".join(body), "the compressor: tokens, encoder, latents, decoder, tokens")
    return f'{drawing}<p class="formula">residual = {formula}</p>'


def router(fingerprint: dict, summary: dict, paper: bool = True) -> str:
    """One window goes to all experts; the shortest residual wins, all long means unknown.

    The bars are the run's own mean residuals on the first expert's domain and on random tokens
    (else on the last domain). Returns "" when there is no number to draw. `paper`: the rule is
    the paper's, so that a cell's nll is its residual too.
    """
    experts = [e for e in fingerprint if mapping(fingerprint[e])]
    domains = [d for e in experts for d in fingerprint[e]]
    if not experts or not domains:
        return ""
    # The second expert where there is one: a winner in the first row would look like a default.
    home = experts[min(1, len(experts) - 1)]
    alien = "random_tokens" if "random_tokens" in domains else domains[-1]
    home = home if home in domains else domains[0]

    def residual(expert: str, domain: str) -> float | None:
        cell = mapping(fingerprint[expert].get(domain))
        return number(cell.get("nll" if paper else "residual"))

    shown = experts[:_MOST_EXPERTS]
    values = [r for e in shown for d in (home, alien) if (r := residual(e, d)) is not None]
    if not values:
        return ""
    longest = max(max(values), 1e-9)
    scored = [(r, e) for e in experts if (r := residual(e, home)) is not None]
    winner = min(scored)[1] if scored else None
    lowest = min((r for e in experts if (r := residual(e, alien)) is not None), default=0.0)
    unknown = bool(scored) and lowest > min(scored)[0]
    columns = ((170, home), (326, alien))
    room, top = 92, 70
    step = 38 if len(shown) < 6 else 27
    bottom = top + step * len(shown)
    body = [text(12, 20, "all experts read it", "b")]
    body.append(text(12, 36, f"{count(len(experts))} frozen compressors", "soft s"))
    for x, domain in columns:
        name = shorten(domain.replace("_", " "), 16)
        body.append(text(x, 20, "a window of", "soft s"))
        body.append(text(x, 36, name, "b"))
        body.append(f'<path class="axis" d="M{x} {top - 14}V{bottom - 6}"/>')
    for i, expert in enumerate(shown):
        y = top + step * i
        body.append(f'<rect class="box" x="12" y="{y - 13}" width="132" height="21" rx="4"/>')
        body.append(
            f"<g><title>{escape(expert)}</title>{text(78, y + 2, shorten(expert, 16), 'm')}</g>"
        )
        body.append(_arrow(146, y - 2, 164, y - 2))
        for x, domain in columns:
            r = residual(expert, domain)
            best = domain == home and expert == winner
            length = 0.0 if r is None else max(2.0, r / longest * room)
            slot = 0 if best else SLOTS - 1
            body.append(
                f'<g class="s{slot}"><rect class="bar" x="{x}" y="{y - 9}" '
                f'width="{length:.1f}" height="14" rx="2"/></g>'
            )
            label = DASH if r is None else decimal(r) + (" ✓" if best else "")
            body.append(text(x + length + 5, y + 2, label, "s" + " b" * best))
    if len(experts) > len(shown):
        body.append(text(12, bottom, f"and {len(experts) - len(shown)} more", "soft s"))
        bottom += 12
    for x, first, second in (
        (170, "arg min wins:", f"→ {shorten(winner, 18)}"),
        (326, "all bad:" if unknown else "not all bad:", "→ unknown" if unknown else "→ mistaken"),
    ):
        body.append(text(x, bottom + 18, first, "soft"))
        body.append(text(x, bottom + 36, second, "b"))
    parameters = size(summary.get("parameters"))
    if parameters != DASH:
        body.append(text(12, bottom + 18, f"{parameters} parameters", "soft s"))
        body.append(text(12, bottom + 34, "in each, no gate", "soft s"))
    return svg(bottom + 46, "".join(body), "the router: residuals of one window in every expert")
