"""What happens while a bank grows, as lines for people.  Each event is a dict of plain JSON types.
Not in the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


def line(event: Event) -> str:
    """One readable line."""
    return _WORDS[event["event"]](event)


def summary(said: Sequence[Event], kept: int) -> Event:
    """The last event of a call: how many of what were told; kept: documents."""
    some = [e for e in said if e["event"] == "document"]
    count = lambda kind: sum(e["event"] == kind for e in said)
    return {
        "event": "end",
        "documents": len(some),
        "known": sum(e["known"] is True for e in some),
        "unknown": sum(e["known"] is False for e in some),
        "skipped": count("skipped") + count("repeated"),
        "mounted": count("mounted"),
        "kept": kept,
    }


def _document(e):
    if e["known"] is None:
        return f"{e['name']}: too short to judge"
    verdict = e["nearest"] if e["known"] else f"unknown (nearest {e['nearest']}), kept"
    evidence = f"{e['evidence']:,.0f}" if e["evidence"] >= 100 else f"{e['evidence']:.3g}"
    return f"{e['name']}: {verdict}  p {e['p']:.3f}  evidence {evidence}"


def _found(e):
    what = {
        "new": f"a new domain, {e['expert']}",
        "extend": f"more of {e['near']}, which gets a second expert, {e['expert']}",
        "refuse": f"text of {e['near']}, which needs no new expert",
    }[e["verdict"]]
    return (
        f"found {what}: {len(e['ids'])} documents, {e['tokens']:,} tokens, which save "
        f"{e['saved']:.2f} nats/token by each other; distance {e['distance']:.2f} nats/token from "
        f"{e['near']} (new from {e['new_from']:g}, known below {e['known_below']:g})"
    )


def _would(e):
    return f"dry run: {e['expert']} would be trained for {e['steps']} steps, from {e['start']}"


_WORDS = {
    "document": _document,
    "skipped": lambda e: f"{e['name']}: passed over, {e['why']}",
    "repeated": lambda e: f"{e['name']}: seen before, passed over",
    "postponed": lambda e: f"{e['name']}: {e['why']}; left for the next start",
    "alarm": lambda e: (
        f"alarm: unknown text arrives, after {e['documents']} documents (evidence above "
        f"{e['run_length']:g}; {e['buffered']} documents are kept)"
    ),
    "waiting": lambda e: (
        f"waiting for more unknown text: {e['documents']} documents of {e['tokens']:,} tokens are "
        f"kept, {e['why']}"
    ),
    "unfounded": lambda e: (
        f"the alarm is over: {e['documents']} kept documents of {e['tokens']:,} tokens do not "
        "explain each other"
    ),
    "found": _found,
    "would": _would,
    "training": lambda e: e["line"],
    "mounted": lambda e: f"mounted {e['expert']}: the bank has {e['experts']} experts",
    "begins": lambda e: (
        f"{e['expert']} begins with {e['start']}: {e['of']}, with which it was to begin, is not in "
        "the bank any more"
    ),
    "abandoned": lambda e: (
        f"{e['expert']} cannot be trained, and the alarm is over; its documents stay kept "
        f"({e['why']})"
    ),
    "settled": lambda e: f"{e['name']}: {e['nearest']} knows it now  p {e['p']:.3f}",
    "end": lambda e: (
        f"{e['documents']} documents: {e['known']} known, {e['unknown']} unknown, "
        f"{e['skipped']} passed over, {e['mounted']} experts mounted; {e['kept']} are kept"
    ),
}
