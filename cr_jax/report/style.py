"""Colours and CSS of the page.

Light and dark mode differ only in CSS variables. Paper is always light: the dark palette is bound
to screens. The colour scales are drawn in OKLCH, where equal steps look equally far apart.
"""

import functools
import math

STEPS = 16  # colours per scale: classes h0 (low) .. h15 (high)
SLOTS = 8  # categorical colours: classes s0 .. s7

# Okabe and Ito's colour-blind-safe set, its yellow and black replaced by purple and grey, which
# stay visible on white and on black.
_SERIES_LIGHT = [
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#c0609a",
    "#a87400",
    "#2f9bd6",
    "#6a4c9c",
    "#6b7280",
]
_SERIES_DARK = [
    "#4aa8e0",
    "#ff8b3d",
    "#2fc79a",
    "#e59ac6",
    "#f0b429",
    "#8fd0ff",
    "#b49be0",
    "#a3abb8",
]

# (lightness, chroma, hue) at the low and the high end. Low residuals stand out from the page,
# high ones fade into it.
_SCALE_LIGHT = ((0.42, 0.125, 265.0), (0.965, 0.035, 115.0))
_SCALE_DARK = ((0.88, 0.125, 165.0), (0.27, 0.045, 275.0))


def _linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """OKLCH -> linear sRGB, clipped (B. Ottosson, "A perceptual color space", 2020)."""
    a = chroma * math.cos(math.radians(hue))
    b = chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    rgb = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return tuple(min(1.0, max(0.0, c)) for c in rgb)


def scale(dark: bool) -> list[tuple[str, str]]:
    """STEPS pairs (background, text) as hex colours; text has a contrast of at least 4.5:1."""
    low, high = _SCALE_DARK if dark else _SCALE_LIGHT
    pairs = []
    for i in range(STEPS):
        t = i / (STEPS - 1)
        rgb = _linear_rgb(*(p + t * (q - p) for p, q in zip(low, high, strict=True)))
        luminance = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]
        # Black or white, whichever has the higher WCAG contrast; they are equal at 0.179.
        pairs.append((_hex(rgb), "#000000" if luminance > 0.179 else "#ffffff"))
    return pairs


def _hex(linear: tuple[float, float, float]) -> str:
    encoded = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in linear)
    return "#" + "".join(f"{round(255 * c):02x}" for c in encoded)


def _variables(dark: bool) -> str:
    series = _SERIES_DARK if dark else _SERIES_LIGHT
    lines = [f"--s{i}:{colour}" for i, colour in enumerate(series)]
    lines += [f"--h{i}:{fill};--t{i}:{ink}" for i, (fill, ink) in enumerate(scale(dark))]
    base = (
        "--paper:#14171c;--card:#1b1f26;--ink:#e8eaee;--soft:#a9b0bc;--line:#39404b;"
        "--grid:#2a3039;--accent:#6db7ff;--bad:#ff8f80;--doubt:255,176,32;color-scheme:dark"
        if dark
        else "--paper:#fbfbf9;--card:#ffffff;--ink:#1a1d22;--soft:#5a626e;--line:#d5d8dd;"
        "--grid:#e9ebee;--accent:#0a5ea8;--bad:#b3261e;--doubt:240,150,0;color-scheme:light"
    )
    return ";".join([base, *lines])


_RULES = """
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 20px}
header{padding-top:40px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .5rem;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:1.3rem;line-height:1.25;margin:0 0 .4rem;letter-spacing:-.005em}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:0 0 .7rem;max-width:74ch;overflow-wrap:break-word}
a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:1.1rem 0 0;font-size:.9rem}
section{border-top:1px solid var(--line);margin-top:2.4rem;padding-top:1.5rem}
footer{color:var(--soft);font-size:.85rem;padding-top:2rem;padding-bottom:3rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;
 margin:1.3rem 0 0;padding:0}
.tiles>div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tiles dt{font-size:.82rem;color:var(--soft);line-height:1.3}
.tiles dd{margin:.15rem 0;font-size:1.45rem;font-weight:650;line-height:1.2;
 font-variant-numeric:tabular-nums;white-space:nowrap}
.tiles .unit{font-size:.8rem;color:var(--soft);line-height:1.3}
figure{margin:1rem 0 0}figure+figure{margin-top:2.2rem}
.formula{font-weight:600;text-align:center;margin:.3rem 0 0;overflow-wrap:anywhere}
figcaption,.note{font-size:.88rem;color:var(--soft);line-height:1.45}
figcaption{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr));
 gap:10px 30px;margin-top:1rem}
figcaption p{margin:0}
figcaption b{display:block;color:var(--ink);font-weight:600}
.panels{display:grid;
 grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:18px 26px}
.panel h4{font-size:.92rem;font-weight:600;margin:0 0 .2rem;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink);
 font-variant-numeric:tabular-nums}
svg .soft{fill:var(--soft)}svg .b{font-weight:650}svg .m{text-anchor:middle}
svg .e{text-anchor:end}svg .s{font-size:11px}
svg .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round;
 font-weight:600}
.grid{stroke:var(--grid);stroke-width:1;fill:none}.axis{stroke:var(--line);stroke-width:1;fill:none}
.rule{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:4 3;fill:none}
.box{fill:var(--card);stroke:var(--ink);stroke-width:1.2}
.box.clear{fill:none}
.wall{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:2 4;fill:none}
.arrow{stroke:var(--soft);stroke-width:1.4;fill:none}.head{fill:var(--soft)}
.bar{fill:currentColor;opacity:.85}
.outline{fill:currentColor;fill-opacity:.12;stroke:currentColor;stroke-width:1}.trail{fill:var(--grid)}
.line{fill:none;stroke:currentColor;stroke-width:1.9;stroke-linejoin:round}
.ridge{fill:currentColor;fill-opacity:.42;stroke:currentColor;stroke-width:1}
.dots{fill:none;stroke:currentColor;stroke-width:1.5;stroke-linejoin:round;opacity:.85}
.dots.round{stroke-width:4.6;stroke-linecap:round}
.legend{display:flex;flex-wrap:wrap;gap:3px 16px;list-style:none;margin:.5rem 0 0;padding:0;
 font-size:.87rem}
.legend li{display:flex;align-items:center;gap:6px;min-width:0}
.legend span{color:var(--ink);overflow-wrap:anywhere}.legend svg{width:26px;flex:none}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;padding:3px}
table{border-collapse:separate;border-spacing:3px;font-size:.9rem;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:left;vertical-align:bottom;line-height:1.25;padding:4px 8px;
 max-width:13em;overflow-wrap:break-word}
thead th{font-size:.85rem;min-width:5.6em}
.heat td,.heat thead th{text-align:center}
.heat tbody th{position:sticky;left:0;background:var(--paper);vertical-align:middle;z-index:1}
.heat td{padding:8px 10px;border-radius:5px;min-width:7.4em;line-height:1.25;white-space:nowrap}
.heat td small{display:block;font-size:.78rem}
.heat td.own{outline:3px solid var(--ink);outline-offset:-1px;font-weight:700}
.heat .base td{color:var(--soft);font-weight:400;border:1px dashed var(--line)}
.heat .base th{color:var(--soft);font-weight:500}
.tight td{padding:6px 3px;min-width:4.1rem;font-size:.84rem}.tight td.own{outline-width:2px}
.tight thead th{min-width:0;padding:4px 2px;font-size:.74rem}
.tight tbody th{font-size:.84rem;max-width:9em}
.ramp{display:flex;align-items:center;gap:8px;font-size:.82rem;color:var(--soft);margin:.5rem 3px;
 flex-wrap:wrap}
.ramp i{display:inline-block;width:13px;height:13px}.ramp .strip{display:flex}
.plain{border-spacing:0}
.plain td,.plain th{padding:5px 14px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
.plain th{vertical-align:bottom}
.plain td:not(.n){overflow-wrap:break-word}
.plain .n{text-align:right}.plain td.n{white-space:nowrap}
.plain tbody th{vertical-align:top;white-space:nowrap}
.plain.values td:not(.n){overflow-wrap:anywhere}
.plain .meter{width:34%;min-width:90px;vertical-align:middle}
.meter span{display:block;height:9px;border-radius:2px;background:var(--s0)}
.wide{width:100%}
details{margin-top:.8rem;font-size:.92rem}summary{cursor:pointer;color:var(--accent)}
pre{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
 white-space:pre-wrap;overflow-wrap:anywhere;margin:.5rem 0;background:var(--card);
 border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.sample{margin-top:1.5rem}
.sample h3{margin:0 0 .4rem;font-size:.95rem;overflow-wrap:anywhere}
.sample h3 small{font-weight:400;color:var(--soft);font-size:.87rem}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:12px}
.sides h4{font-size:.8rem;font-weight:500;color:var(--soft);margin:0}
.sides pre{margin:.2rem 0 0;height:calc(100% - 1.5em)}
pre i{font-style:normal;border-radius:2px}
pre i.x{font-weight:700;outline:1.5px solid var(--bad);
 text-decoration:underline wavy var(--bad) 1px;text-underline-offset:3px}
.key i{width:auto;height:auto;
 font:12.5px ui-monospace,Menlo,Consolas,monospace;font-style:normal;padding:1px 5px;
 border-radius:2px}
.key i.x{font-weight:700;outline:1.5px solid var(--bad);
 text-decoration:underline wavy var(--bad) 1px}
.spoken i.again{border-bottom:2px dotted var(--ink)}
.cut{font:600 10.5px/1 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;color:var(--soft);
 border:1px solid var(--soft);border-radius:4px;padding:0 4px;margin:0 3px;vertical-align:1px}
@media(max-width:640px){body{font-size:15px}
 main,header,footer{padding:0 14px}header{padding-top:24px}
 h1{font-size:1.5rem}.sides{grid-template-columns:1fr}.tiles{grid-template-columns:1fr 1fr;gap:8px}
 .tiles dd{font-size:1.2rem}.heat td{padding:6px 5px;min-width:4.6em}
 svg text{font-size:13.5px}svg .s{font-size:12.5px}.plain .meter{display:none}
 .heat tbody th{max-width:7.5em;padding:4px 6px 4px 0}.plain td,.plain th{padding-right:9px}}
@media print{:root{--paper:#fff}body{font-size:10pt}
 .panels{grid-template-columns:1fr 1fr}figcaption{grid-template-columns:repeat(3,1fr);gap:14px}
 .tiles{grid-template-columns:repeat(5,1fr);gap:6px}.tiles>div{padding:7px 8px}
 .tiles dd{font-size:1.05rem}.heat td{padding:4px;min-width:0}thead th{min-width:0}
nav{display:none}section{margin-top:1.2rem;padding-top:.8rem}
 figcaption,.tiles>div,.panel,.sample,table{break-inside:avoid}h2,h3{break-after:avoid}
 .scroll{overflow:visible}main,header,footer{max-width:none;padding:0}@page{margin:16mm}}
"""


@functools.cache
def css() -> str:
    """The whole style sheet."""
    rules = [f":root{{{_variables(dark=False)}}}"]
    dark = f":root{{{_variables(dark=True)}}}"
    rules.append(f"@media screen and (prefers-color-scheme:dark){{{dark}}}")
    rules.append(_RULES.strip())
    rules += [f".s{i}{{color:var(--s{i})}}" for i in range(SLOTS)]
    rules += [f".h{i}{{background:var(--h{i});color:var(--t{i})}}" for i in range(STEPS)]
    # Token confidence: d0 (certain) has no tint, d9 (a guess) the strongest.
    rules += [f".d{i}{{background:rgba(var(--doubt),{0.06 * i:.2f})}}" for i in range(1, 10)]
    # Who speaks: behind the token, whose ink stays.
    mix = lambda i: f"color-mix(in srgb,var(--s{i}) 28%,transparent)"
    rules += [f".spoken i.s{i}{{color:inherit;background:{mix(i)}}}" for i in range(SLOTS)]
    return "\n".join(rules)
