"""The page: header, headline numbers, sections, provenance."""

import json

from cr_jax.report import sections
from cr_jax.report.layout import document, rule_of
from cr_jax.report.segments import RULES
from cr_jax.report.studies import studies
from cr_jax.report.tables import plain_table, value_table
from cr_jax.report.text import (
    count,
    duration,
    escape,
    label,
    mapping,
    number,
    percent,
    plain,
    score,
    sequence,
)
from cr_jax.report.unknown import hardest_unknown, unknown


def render(report: dict) -> str:
    """The whole page as one HTML string; sections without data are left out."""
    parts = [
        ("how", "How it works", sections.architecture(report)),
        ("fingerprint", "Every expert on every text", sections.fingerprint(report)),
        ("routing", "Routing by the smallest residual", sections.routing(report)),
        ("unknown", "Known or unknown", unknown(report)),
        ("windows", "What comes back", sections.windows(report)),
        ("latents", "The latent space", sections.geometry(report)),
        *studies(report),
        ("training", "Training", sections.training(report)),
        ("time", "Where the time went", timings(report)),
        ("provenance", "Provenance", provenance(report)),
    ]
    parts = [part for part in parts if part[2]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in parts)
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>' for key, title, content in parts
    )
    name = report.get("name") or "cr_jax report"
    return document(
        name,
        f"<header><h1>{escape(name)}</h1>{introduction(report)}{tiles(report)}"
        f'<nav aria-label="sections">{links}</nav></header>\n<main>{body}</main>\n'
        "<footer><p>Idea: “Compression is Routing”, arXiv 2512.16963. All figures are drawn from "
        "report.json beside this page.</p></footer>",
        RULES,
    )


def introduction(report: dict) -> str:
    """What this is, in three sentences."""
    summary = mapping(report.get("summary"))
    experts = number(summary.get("experts")) or len(mapping(report.get("fingerprint")))
    who = f"{count(experts)} small autoencoders were" if experts > 1 else "A small autoencoder was"
    window, latents = summary.get("window"), summary.get("latents")
    pair = number(window) is not None and number(latents) is not None
    what = f"windows of {count(window)} tokens" if pair else "windows of text"
    through = f"{count(latents)} latent vectors" if pair else "a few latent vectors"
    return (
        f"<p>{who} trained to rebuild {what} from {through}, each on text of its own domain only. "
        "A new window is given to all of them, and the one with the lowest residual, "
        f"{escape(rule_of(report).ranking_score)}, gets it: nothing else is trained to route. "
        "When even that residual is unusual for the expert's own text, the text is called "
        "unknown.</p>"
    )


def tiles(report: dict) -> str:
    """The headline numbers, those that exist."""
    shown = []
    fingerprint = mapping(report.get("fingerprint"))
    own = [mapping(mapping(row).get(expert)) for expert, row in fingerprint.items()]
    rates = [rate for cell in own if (rate := number(cell.get("tra"))) is not None]
    if rates:
        low, high = percent(min(rates)), percent(max(rates))
        value = low if low == high else f"{low[:-2]}–{high}"
        base = [b for cell in own if (b := number(cell.get("majority_tra"))) is not None]
        unit = f"guessing the commonest token: at most {percent(max(base))}" if base else ""
        shown.append(("tokens rebuilt at home (TRA)", value, unit))
    routing, ood = mapping(report.get("routing")), mapping(report.get("ood"))
    if "accuracy" in routing:
        chance = percent(routing.get("chance"))
        unit = f"chance {chance}, {count(routing.get('windows'))} windows"
        shown.append(("routing accuracy", percent(routing["accuracy"]), unit))
    if hardest := hardest_unknown(ood):
        name, auroc = hardest
        unit = f"{escape(name)}; 0.5 is a coin, 1 is perfect"
        shown.append(("AUROC, hardest unknown text", score(auroc), unit))
    if "auroc_random" in ood:
        shown.append(("AUROC, random tokens", score(ood["auroc_random"]), "the easy case"))
    seconds = [s for v in mapping(report.get("seconds")).values() if (s := number(v)) is not None]
    if seconds:
        devices = sequence(mapping(report.get("provenance")).get("devices"))
        unit = f"on {len(devices)} device{'s' * (len(devices) > 1)}" if devices else "all stages"
        shown.append(("time, all stages", duration(sum(seconds)), unit))
    cells = "".join(
        f'<div><dt>{name}</dt><dd>{value}</dd><div class="unit">{unit}</div></div>'
        for name, value, unit in shown
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def timings(report: dict) -> str:
    """Seconds per stage with bars."""
    stages = {s: number(v) for s, v in mapping(report.get("seconds")).items()}
    if not stages:
        return ""
    total = sum(v or 0.0 for v in stages.values())
    longest = max((v or 0.0 for v in stages.values()), default=0.0) or 1.0
    rows = [[s, duration(v), percent(v / total if v and total else v)] for s, v in stages.items()]
    bars = [(v or 0.0) / longest for v in stages.values()]
    head = ["stage", "time", "share"]
    return plain_table(head, [*rows, ["total", duration(total), ""]], bars=[*bars, 0.0])


def provenance(report: dict) -> str:
    """Commit, command, versions, devices; the configuration folded."""
    data = mapping(report.get("provenance"))
    versions = mapping(data.get("versions"))
    rows = [
        ("command", data.get("command")),
        ("commit", data.get("commit")),
        ("devices", ", ".join(label(d) for d in sequence(data.get("devices")))),
        ("versions", ", ".join(f"{name} {label(version)}" for name, version in versions.items())),
    ]
    table = value_table(rows)
    config = data.get("config")
    folded = ""
    if config:
        listing = escape(json.dumps(plain(config), indent=2, sort_keys=True))
        folded = f"<details><summary>Configuration</summary><pre>{listing}</pre></details>"
    return table + folded
