"""Why texts went where they went, as one page: bars, verdict, every token tinted."""

import bisect
import math
from collections.abc import Sequence

from cr_jax.config import SEEN
from cr_jax.report.examples import show_white_space
from cr_jax.report.layout import document, panel, panels
from cr_jax.report.tables import plain_table
from cr_jax.report.text import breakable, count, decimal, escape
from cr_jax.routing.explain import Explanation, TextSum
from cr_jax.scoring.wording import wording

# Nats/token where the next stronger tint begins; the same for all texts, so that colours compare.
RESIDUAL_EDGES = (0.1, 0.3, 0.7, 1.2, 2.0, 3.0, 4.5, 6.5, 9.0)
MARGIN_EDGES = (0.1, 0.4, 1.0, 2.5, 5.0)  # of either sign
MOST = 10  # rows in a table of tokens

# Vermilion speaks against the nearest expert, blue for it: apart for the colour-blind, and dark
# enough at these opacities for the ink of both modes.
_AGAINST, _FOR = "213,94,0", "0,114,178"
_RULES = """
.verdict{font-size:1.15rem;font-weight:600}
.bars{border-spacing:0 3px;width:100%}
.bars td,.bars th{padding:2px 12px 2px 0;vertical-align:middle;font-weight:400}
.bars thead th{font-size:.82rem;color:var(--soft)}
.bars .n{text-align:right;white-space:nowrap}
.bars tbody th{overflow-wrap:break-word;max-width:16em}
.bars .bar{width:55%;min-width:64px}
.bars .bar span{display:block;height:12px;border-radius:2px;background:var(--soft);opacity:.55}
.bars .bar div{display:flex}.bars .bar .more{opacity:.25}
.bars .nearest th,.bars .nearest td{font-weight:700}
.bars .nearest .bar span{background:var(--s0);opacity:1}.bars .nearest .bar .more{opacity:.4}
.bars .low{color:var(--bad)}
.view label{margin:0 16px 0 3px;font-size:.92rem;cursor:pointer;overflow-wrap:break-word}
.view pre{font-size:13.5px;line-height:1.75;tab-size:4}
.view pre i:hover{outline:2px solid var(--ink)}
.view pre i:hover::after{content:attr(data-n);position:fixed;left:0;right:0;bottom:0;z-index:9;
 background:var(--card);color:var(--ink);border-top:2px solid var(--ink);padding:10px 20px;
 max-height:45vh;overflow:hidden;white-space:pre-wrap;font-weight:400}
.view u{text-decoration:none;color:var(--soft)}
.by-margin~.margin-key,.by-margin:checked~.residual-key{display:none}
.by-margin:checked~.margin-key{display:flex}
.by-margin:checked~pre i{background:none}
.key .strip b{font-weight:400;padding:1px 6px;color:var(--ink)}
.panel tbody td:first-child{font:12.5px/1.5 ui-monospace,Menlo,Consolas,monospace;white-space:pre}
.panel thead th{min-width:0}.panel .plain td,.panel .plain th{padding-right:10px}
@media(max-width:640px){.bars td,.bars th{padding-right:7px;font-size:.85rem}
 .view label::after{content:"\\A";white-space:pre}
 .bars .bar{width:40%;min-width:48px}.panel .plain{font-size:.82rem}
 .view pre i:hover::after{padding:8px 14px}}
@media print{.view pre i:hover::after{display:none}}
"""


def _style() -> str:
    tint = lambda colour, opacity: f"{{background:rgba({colour},{opacity:.2f})}}"
    rules = [_RULES]
    for i in range(1, len(RESIDUAL_EDGES) + 1):
        rules.append(f".view .r{i}{tint(_AGAINST, 0.07 * i)}")
    for kind, colour in (("f", _FOR), ("a", _AGAINST)):
        for i in range(1, len(MARGIN_EDGES) + 1):
            where = f".by-margin:checked~pre i.{kind}{i},.margin-key .{kind}{i}"
            rules.append(f"{where}{tint(colour, 0.13 * i)}")
    return "\n".join(rules)


def residual_step(nats: float) -> int:
    """Tint 0 (few nats: none) .. 9."""
    return bisect.bisect_right(RESIDUAL_EDGES, nats)


def margin_step(nats: float) -> int:
    """Tint -5 (speaks against the nearest expert) .. 0 (none) .. 5 (for it)."""
    step = bisect.bisect_right(MARGIN_EDGES, abs(nats))
    return int(math.copysign(step, nats))


def render(texts: Sequence[tuple[str, Explanation]]) -> str:
    """One self-contained page for (name, explanation) pairs.  No script, no request."""
    names = [escape(name) for name, _ in texts]
    parts = [
        f'<section id="t{i}"><h2>{name}</h2>{_text(explanation, i)}</section>'
        for i, (name, (_, explanation)) in enumerate(zip(names, texts, strict=True))
    ]
    links = "".join(f'<a href="#t{i}">{name}</a>' for i, name in enumerate(names))
    several = len(parts) > 1
    nav = f'<nav aria-label="texts">{links}</nav>' if several else ""
    head = "these texts went where they" if several else "this text went where it"
    rules = list(dict.fromkeys(explanation.words for _, explanation in texts))
    rule = escape("; ".join(words.ranking_score for words in rules))
    paper = (
        "The residual is the paper's; p-values and single tokens are not in it."
        if all(words.paper for words in rules)
        else "This rule, p-values and single tokens are not in the paper, whose own is "
        f"{escape(wording(SEEN).cost)}."
    )
    return document(
        f"Routing of {f'{len(texts)} texts' if several else texts[0][0]}",
        f"<header><h1>Why {head} went</h1>"
        "<p>Every expert is a small autoencoder that learnt to rebuild the texts of one domain. "
        f"A text goes to the expert with the lowest residual: {rule}. It is unknown when even that "
        f"residual is unusual for the expert's own domain.</p>{nav}</header>\n"
        f"<main>{''.join(parts)}</main>\n"
        "<footer><p>Idea: “Compression is Routing”, arXiv 2512.16963. "
        f"{paper}</p></footer>",
        _style(),
    )


def _text(explanation: Explanation, at: int) -> str:
    route = explanation.route
    note = (
        ""
        if explanation.complete
        else (
            f'<p class="note">Shown: the first {count(explanation.windows)} of '
            f"{count(route.windows)} windows ({count(len(explanation.tokens))} of "
            f"{count(route.tokens)} tokens). The verdict and the bars are of everything scored.</p>"
        )
    )
    said = explanation.witnesses and f'<p class="note">{escape(explanation.witnesses)}</p>'
    return (
        f'<p class="verdict">{escape(explanation.verdict)}</p>{said}{_bars(explanation)}'
        f"<h3>Token by token</h3>{note}{_view(explanation, at)}"
        "<h3>The tokens that weigh most</h3>"
        f"{note and '<p class=note>Of the tokens above.</p>'}"
        f"{_tables(explanation)}"
    )


def _bars(explanation: Explanation) -> str:
    route = explanation.route
    longest = max(filter(math.isfinite, route.ranking_score.values())) or 1.0
    share = lambda nats: f"{100 * min(1.0, max(0.0, nats / longest)):.1f}%"
    rows = []
    for name in explanation.names:
        residual, p = route.residuals[name], route.p_values[name]
        kind = ' class="nearest"' if name == route.nearest else ""
        low = " low" if p < explanation.alpha else ""
        bar, more = f'<span style="width:{share(residual)}"></span>', ""
        if route.typicality_penalty:
            added = route.typicality_penalty[name]
            more = f'<td class="n">+ {decimal(added, 3)}</td>'
            bar = f'<div>{bar}<span class="more" style="width:{share(added)}"></span></div>'
        rows.append(
            f'<tr{kind}><th scope="row">{breakable(name)}</th>'
            f'<td class="n">{decimal(residual, 3)}</td>{more}<td class="bar">{bar}</td>'
            f'<td class="n{low}">{decimal(p, 3)}</td><td class="n">{decimal(route.tra[name], 3)}'
            "</td></tr>"
        )
    head, legend = "", ""
    if route.typicality_penalty:
        head = '<th scope="col" class="n">+ typicality penalty</th>'
        legend = f"Typicality penalty, the pale part of a bar: {escape(explanation.words.added)}. "
    return (
        '<table class="bars"><thead><tr><th scope="col">expert</th>'
        f'<th scope="col" class="n">nats/token</th>{head}<th></th>'
        '<th scope="col" class="n">p</th>'
        f'<th scope="col" class="n">TRA</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p class="note">{legend}p: how usual such a residual is for the expert\'s own text, '
        f"red below alpha = {explanation.alpha:g}. TRA: share of tokens rebuilt exactly. Scored: "
        f"{escape(explanation.size)}.</p>"
    )


def _view(explanation: Explanation, at: int) -> str:
    nearest, other = escape(explanation.names[0]), explanation.runner_up
    choice = (
        f'<input type="radio" name="view{at}" id="r{at}" class="by-residual" checked>'
        f'<label for="r{at}">residual under {nearest}</label>'
    )
    if other:
        choice += (
            f'<input type="radio" name="view{at}" id="m{at}" class="by-margin">'
            f'<label for="m{at}">margin over {escape(other)}</label>'
        )
    steps = "".join(
        f'<b class="r{i}">{"≥ " * (i == len(RESIDUAL_EDGES))}{edge:g}</b>'
        for i, edge in enumerate(RESIDUAL_EDGES, 1)
    )
    done = explanation.words.done
    key = (
        f'<div class="ramp key residual-key"><span>{done} well</span><span class="strip">'
        f"{steps}</span><span>nats/token or more: {done} badly. Point at a token for every "
        "expert's residual.</span></div>"
    )
    if other:
        edges = list(enumerate(MARGIN_EDGES, 1))
        key += (
            '<div class="ramp key margin-key"><span>for '
            + escape(other)
            + '</span><span class="strip">'
            + "".join(f'<b class="a{i}">−{edge:g}</b>' for i, edge in reversed(edges))
            + "<b>0</b>"
            + "".join(f'<b class="f{i}">{edge:g}</b>' for i, edge in edges)
            + f"</span><span>for {nearest}; nats/token</span></div>"
        )
    # A newline right after <pre> is dropped by HTML, so one is always given away.
    return f'<div class="view">{choice}{key}<pre>\n{"".join(_spans(explanation))}</pre></div>'


def _spans(explanation: Explanation):
    residuals, margins = explanation.residuals().T.tolist(), explanation.margins().tolist()
    for span, row, margin in zip(explanation.spans, residuals, margins, strict=True):
        hover = f"“{repr(span.text)[1:-1]}”  " + " · ".join(
            f"{name} {decimal(x)}" for name, x in zip(explanation.names, row, strict=True)
        )
        kinds = []
        if step := residual_step(row[0]):
            kinds.append(f"r{step}")
        if step := margin_step(margin):
            kinds.append(f"{'f' if step > 0 else 'a'}{abs(step)}")
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        text = escape(span.text)
        if kinds:  # a tint is seen only on a character
            text = text.replace("\n", "<u>↵</u>\n")
        yield f'<i{kind} data-n="{escape(hover)}">{text}</i>'


def _tables(explanation: Explanation) -> str:
    names = list(explanation.names[:2])
    by_residual = _table("nats in all", explanation.by_text("residual")[:MOST], names)
    worst = panel(f"What {names[0]} {explanation.words.verb} worst", by_residual)
    if not explanation.runner_up:
        return panels(worst)
    ranked = explanation.by_text()
    good = [row for row in ranked if row.nats > 0][:MOST]
    bad = [row for row in reversed(ranked) if row.nats < 0][:MOST]
    return panels(
        panel(f"For {names[0]}", _table("margin in all", good, names)),
        panel(f"For {names[1]}", _table("margin in all", bad, names)),
        worst,
    )


def _table(what: str, rows: Sequence[TextSum], names: Sequence[str]) -> str:
    if not rows:
        return '<p class="note">None.</p>'
    body = [
        [
            show_white_space(row.text).replace("↵\n", "↵"),
            f"{row.count}",
            decimal(row.nats),
            *(decimal(x) for x in (row.nearest, row.runner_up)[: len(names)]),
        ]
        for row in rows
    ]
    return plain_table(["token", "times", what, *names], body)
