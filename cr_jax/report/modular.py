"""Pictures of the study `modular`: its table as bars, and windows coloured by who speaks.

Like `sections`: takes the report and returns HTML, or "" when it has no data.
"""

import math
from collections import Counter
from collections.abc import Mapping

from cr_jax.report.bars import Bar, bar_chart
from cr_jax.report.examples import piece_texts
from cr_jax.report.layout import figure, panel, panels, slots
from cr_jax.report.style import SLOTS
from cr_jax.report.text import count, decimal, escape, mapping, number, percent, sequence, size

ONE_MODEL = ("dense", "dense_large", "seed")  # arms that schedule nothing
BASES = ("dense", "seed")  # with which the others are compared: the first that there is
SCHEDULED, ONE, MAIN = 0, 7, "top1"


def pictures(report: dict) -> str:
    """The bars of the arms and of the domains, then the windows."""
    return bars(report) + documents(report)


def bars(report: dict) -> str:
    """Perplexity after the main prefix beside the dense model's: of each arm, of each domain."""
    found = mapping(report.get("modular"))
    main = str(mapping(found.get("settings")).get("main_prefix"))
    after = mapping(mapping(mapping(found.get("prefix")).get(main)).get("after"))
    arms = {name: mapping(row) for name, row in after.items()}
    base = next((name for name in BASES if name in arms), None)
    if base is None:
        return ""
    beside = {name: _ratios(row, arms[base]) for name, row in arms.items()}
    chart = [_bar(name, beside[name], arms[name]) for name in beside if beside[name]]
    place = _place(report)
    each = [Bar(n, x, place.get(n, ONE)) for n, x in (beside.get(MAIN) or {}).items()]
    axis = f"perplexity beside {base}"
    body = panels(
        panel("Who speaks, mean over domains", bar_chart(chart, axis, f"{axis} of each arm")),
        panel(
            f"{MAIN}: the nearest expert, by domain",
            bar_chart(each, axis, f"{axis} in each domain"),
        ),
    )
    if not body:
        return ""
    key = "".join(
        f'<li class="s{slot}"><svg viewBox="0 0 26 12"><path class="{kind}" d="M1 1h24v10h-24z"/>'
        f"</svg><span>{words}</span></li>"
        for slot, kind, words in (
            (SCHEDULED, "bar", "scheduled among several models"),
            (ONE, "bar", "one model speaks all text"),
            (SCHEDULED, "outline", "a bound: it reads what it is scored by"),
        )
    )
    wins = sum(x < 1 for x in (beside.get(MAIN) or {}).values())
    return figure(
        f'{body}<ul class="legend">{key}</ul>',
        "A bar to the left of the dashed line is a lower perplexity than the one model of all "
        f"domains ({base}) has on the same tokens, those after the first {main} of each test "
        "window; each domain weighs alike. A long bar to the right is cut and ends in a point.",
        "the bars of scheduled experts lie to the right of the line, or those of a random split of "
        "the text reach as far to the left.",
        f"{MAIN} has a lower perplexity than {base} in {wins} of {len(each)} domains."
        if each
        else "",
    )


def documents(report: dict) -> str:
    """Windows of two domains in turn, each token in the colour of the expert that speaks it."""
    found = mapping(report.get("modular_document"))
    windows = [[mapping(t) for t in sequence(w)] for w in sequence(found.get("windows"))]
    windows = [w for w in windows if w]
    if not windows:
        return ""
    place = _place(report)
    spoken = Counter(str(t.get("expert")) for w in windows for t in w)
    key = "".join(
        f"<span><i{_kind(name, place)}>{escape(name)}</i> {count(n)} tokens</span>"
        for name, n in spoken.most_common()
    )
    key += '<span><b class="cut">name</b> here the text goes over to this domain</span>'
    body = "".join(f'<pre class="spoken">\n{_tokens(w, place)}</pre>' for w in windows)
    every, memory = count(found.get("every")), count(found.get("memory"))
    share = number(found.get("label_share"))
    return figure(
        f'<div class="ramp key spoken">{key}</div>{body}',
        "Test windows that go from one domain to another at known places. A token has the colour "
        f"of the expert whose language model speaks it: who had the fewest nats on the last "
        f"{memory} tokens before, decided again every {every}; the seed until the first decision. "
        "Point at a token for its nats.",
        "colours do not follow the places where the text goes over, or follow them before they "
        "come.",
        f"{percent(share)} of the tokens after the first decision are spoken by the expert of "
        "their own domain."
        if share is not None
        else "",
    )


def _place(report: dict) -> dict[str, int]:
    """Of each expert, as in the other figures; without these in the order of the texts."""
    if found := slots(report):
        return found
    main = mapping(mapping(report.get("modular")).get("prefix")).values()
    arms = [row for part in main for row in mapping(mapping(part).get("after")).values()]
    names = [n for row in arms for n in mapping(mapping(row).get("ppl"))]
    windows = sequence(mapping(report.get("modular_document")).get("windows"))
    names += [str(mapping(t).get("label")) for w in windows for t in sequence(w)]
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def _ratios(row: dict, base: dict) -> dict[str, float]:
    """Perplexity of each domain, beside that of another arm."""
    own, other = (
        {n: x for n, v in mapping(r.get("ppl")).items() if (x := number(v) or 0.0) > 0}
        for r in (row, base)
    )
    return {n: own[n] / other[n] for n in own if n in other}


def _bar(name: str, beside: Mapping[str, float], row: dict) -> Bar:
    mean = math.exp(sum(map(math.log, beside.values())) / len(beside))
    bits = [x for v in mapping(row.get("bits_per_byte")).values() if (x := number(v)) is not None]
    more = f"{decimal(sum(bits) / len(bits), 3)} bits/byte" if bits else ""
    if number(row.get("active_params")):
        more += (
            f", {size(row['active_params'])} of {size(row.get('total_params'))} parameters speak"
        )
    slot, bound = ONE if name in ONE_MODEL else SCHEDULED, bool(row.get("bound"))
    return Bar(name, mean, slot, bound, name == MAIN, more)


def _kind(name: str, place: Mapping[str, int]) -> str:
    """The class of an expert's colour; the palette's second round is underlined."""
    slot = place.get(name)
    if slot is None:
        return ""
    return f' class="s{slot % SLOTS}{" again" * (slot >= SLOTS)}"'


def _tokens(tokens: list[dict], place: Mapping[str, int]) -> str:
    out, before = [], tokens[0].get("label")
    for token, shown in zip(tokens, piece_texts([t.get("piece") for t in tokens]), strict=True):
        expert, label = str(token.get("expert")), token.get("label")
        if label != before:
            out.append(f'<b class="cut">{escape(label)}</b>')
            before = label
        hover = f"{expert}, {decimal(token.get('nats'))} nats; text of {label}"
        out.append(f'<i{_kind(expert, place)} title="{escape(hover)}">{escape(shown)}</i>')
    return "".join(out)
