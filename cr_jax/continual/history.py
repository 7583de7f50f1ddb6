"""What a grower knows of the documents before: it follows from the journal alone.

`apply` is told every event, when it happens and again at the next start, so a killed grower goes on
with what it knew.  Not in the paper.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cr_jax.bank.files import check_name
from cr_jax.continual.evidence import SequentialTest
from cr_jax.errors import UserError

Event = Mapping[str, Any]
_HASH = re.compile(r"[0-9a-f]{64}")


class Kept(NamedTuple):
    """An unknown document: its name, its nearest expert and the p-value there, its tokens."""

    name: str
    nearest: str
    p: float
    tokens: int


@dataclasses.dataclass
class History:
    """names: of each document seen, by its key; kept: unknown documents; alarmed: whether unknown
    text arrives; since: tokens kept since the alarm; pending: a domain whose expert is not mounted
    yet; experts: names given so far."""

    test: SequentialTest
    names: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    kept: dict[str, Kept] = dataclasses.field(default_factory=dict)
    alarmed: bool = False
    since: int = 0
    pending: Event | None = None
    experts: set[str] = dataclasses.field(default_factory=set)

    @property
    def tokens(self) -> int:
        """Of all documents that are kept."""
        return sum(one.tokens for one in self.kept.values())

    def apply(self, event: Event) -> bool:
        """Learns of an event; -> whether it raised an alarm where there was none.  `ValueError` for
        one that no grower journals here."""
        if not self._possible(event):
            raise ValueError(f"no such {event['event']!r} can be here")
        kind = event["event"]
        if kind in ("document", "skipped"):
            self.names.setdefault(event["id"], set()).add(event["name"])
        elif kind == "repeated" and event["id"] in self.names:  # no line of it makes a text seen
            self.names[event["id"]].add(event["name"])
        if kind == "document" and event["known"] is not None:
            return self._document(event)
        if kind == "found":
            if event["verdict"] == "refuse":
                self._let_go(event["ids"], forget=False)
            else:
                self.pending = event
                self.experts.add(event["expert"])
        elif kind == "mounted":
            assert self.pending is not None  # see `_possible`
            self._let_go(self.pending["ids"], forget=True)
            self.pending = None
        elif kind == "begins":
            assert self.pending is not None  # see `_possible`
            self.pending = {**self.pending, "start": event["start"]}
        elif kind == "abandoned":  # its documents stay with what is kept
            self.pending, self.alarmed = None, False
        elif kind == "settled":
            self._take_out(event["id"], forget=True)
        elif kind == "unfounded":
            self.alarmed = False
        return False

    def _possible(self, event: Event) -> bool:
        """Whether it has the fields of its kind, and they fit what was before."""
        kind, has = event["event"], lambda name, of: isinstance(event.get(name), of)
        of_text = kind in ("document", "skipped", "repeated", "settled")
        if of_text and not (has("name", str) and _HASH.fullmatch(str(event.get("id")))):
            return False
        if kind == "document" and event.get("known", "") is not None:
            p, counts = event.get("p"), (event.get("tokens"), event.get("calibrated"))
            return (
                has("known", bool)
                and has("nearest", str)
                and has("p", (int, float))
                and 0 <= p <= 1
                and all(type(n) is int and n >= 0 for n in counts)
            )
        if kind == "found":
            refused = event.get("verdict") == "refuse"
            return (
                has("ids", list)
                and all(isinstance(key, str) and key in self.kept for key in event["ids"])
                and (refused or event.get("verdict") in ("new", "extend"))
                and (refused or _named(event.get("expert")))
                and (refused or (has("start", str) and has("steps", int)))
            )
        if kind in ("mounted", "begins", "abandoned"):
            return self.pending is not None and (kind != "begins" or has("start", str))
        return True

    def _document(self, event: Event) -> bool:
        expert, p = event["nearest"], event["p"]
        if not event["known"]:
            self.kept[event["id"]] = Kept(event["name"], expert, p, event["tokens"])
            self.since += event["tokens"]
        alarm = self.test.add(expert, p, event["calibrated"], tie(event["id"])) and not self.alarmed
        if alarm:
            self.alarmed, self.since = True, 0
        return alarm

    def _let_go(self, ids, forget: bool) -> None:
        for key in ids:
            self._take_out(key, forget)
        self.test.restart()
        self.alarmed = False

    def _take_out(self, key: str, forget: bool) -> None:
        one = self.kept.pop(key, None)
        if one is not None and forget:
            self.test.forget(one.nearest, one.p)


def _named(expert: Any) -> bool:
    try:
        return bool(check_name(expert))
    except UserError:
        return False


def tie(key: str) -> float:
    """A number in [0, 1) that a document's hash draws."""
    return int(key[:13], 16) / 16**13
