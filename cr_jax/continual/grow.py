"""A bank that grows by itself: documents in, experts for unknown domains mounted.

    documents -> route -> known: logged
                       -> unknown: kept in the buffer     -> evidence -> an alarm
    alarm -> which kept documents explain each other -> train, calibrate, mount -> route them again

All experts score every document: the law of false alarms (`evidence`) holds for p-values of the
exact rule.  Each step is in the journal before the next begins, so the same call goes on after a
kill.  Old experts keep every byte.  Not in the paper, which says that unknown text needs a new
expert and not how one comes to be.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cr_jax.bank import ExpertBank
from cr_jax.bank.entry_checks import check_own
from cr_jax.bank.files import BankFolder, writable
from cr_jax.config.names import LONGEST
from cr_jax.continual import buffer as buffers
from cr_jax.continual import events, search
from cr_jax.continual.evidence import SequentialTest, calibrated
from cr_jax.continual.history import Event, History
from cr_jax.continual.options import Arrival, GrowOptions
from cr_jax.continual.reading import Postponed, Skipped, read
from cr_jax.continual.training import CannotTrain, train_expert
from cr_jax.errors import UserError
from cr_jax.host.files import expanded
from cr_jax.host.locks import GROWING, exclusive
from cr_jax.routing.many import ManyRouter
from cr_jax.routing.result import Route

ROUND = 32  # documents that are routed together
PATIENCE = 4  # times the tokens asked for: kept after an alarm, they must hold a domain


def grow(
    bank: str | os.PathLike,
    documents: Iterable[Arrival],
    options: GrowOptions | None = None,
    say: Callable[[Event], None] = lambda event: None,
    buffer: str | os.PathLike | None = None,
) -> list[Event]:
    """Routes documents and gives unknown domains experts; -> the events of this call.

    documents: read until they end, those that were seen by an earlier call passed over; say: is
    told each event when it has happened (`events.line` makes a line of it).  buffer: the folder of
    what is kept, default BANK.buffer beside the bank.  After any stop the same call goes on.
    `UserError` where the bank cannot grow: it ships with the package, another grower works on it,
    the buffer is another bank's, the disk is full; `training.loop.Interrupted` as `train_new`.
    """
    options, files = options or GrowOptions(), BankFolder(bank)
    if not files.names:
        raise UserError(f"the bank {bank} has no expert to route by: train the first ones")
    with contextlib.ExitStack() as stack:
        if not options.dry_run:
            check_own(bank)
            busy = f"another process grows the bank {files.path}"
            with writable(files.path):
                stack.enter_context(exclusive(files.inside, 0.0, busy, GROWING))
        place = buffer or beside(files.path)
        kept = stack.enter_context(buffers.opened(place, files, options.dry_run))
        grower = Grower(files.path, kept, options, say)
        grower.check()
        grower.resume()
        for some in _rounds(documents):
            grower.round(some)
        grower.end()
    return grower.said


def beside(bank: str | os.PathLike) -> Path:
    """The buffer of a bank: BANK.buffer."""
    whole = expanded(bank).resolve()
    return whole.with_name(f"{whole.name}.buffer")


class Grower:
    """One call of `grow`."""

    def __init__(
        self, bank: Path, buffer: buffers.Buffer, options: GrowOptions, say: Callable[[Event], None]
    ):
        self.path, self.buffer, self.options, self._say = bank, buffer, options, say
        self.said: list[Event] = []
        self.history = History(SequentialTest(options.run_length))
        for number, event in enumerate(buffer.journal.events, 1):
            try:
                self.history.apply(event)
            except ValueError:
                raise buffer.journal.damaged(number) from None
        pending = self.history.pending
        buffer.sweep(self.history.kept, pending["expert"] if pending else "")
        self._looked = 0  # tokens that were kept at the last look
        self._load()

    def check(self) -> None:
        """`UserError` where no domain could be found, or none that could get an expert."""
        search.bigrams(self.bank)
        least = search.LEAST_WINDOWS * self.bank.model.window
        if self.options.tokens < least:
            raise UserError(
                f"tokens={self.options.tokens:,} are too few for an expert of this bank: a new "
                f"domain needs {least:,}, {search.LEAST_WINDOWS} windows, or more"
            )

    def round(self, arrivals: list[Arrival]) -> None:
        """Routes some documents, and looks for new domains where unknown text arrives."""
        fresh: list[tuple[str, str, str]] = []
        repeated: list[tuple[str, str]] = []
        for name, text in arrivals:
            try:
                key, form = read(name, text, self.bank.text_form)
            except Postponed as why:
                self._tell({"event": "postponed", "name": name, "why": str(why)})
                continue
            except Skipped as why:
                if name not in self.history.names.get(why.key, ()):
                    self._skip(name, why.key, str(why))
                continue
            if key in self.history.names or any(key == other for other, *_ in fresh):
                repeated.append((key, name))
            else:
                fresh.append((key, name, form))
        routes = self.router.route([form for *_, form in fresh])
        for (key, name, form), route in zip(fresh, routes, strict=True):
            self._routed(key, name, form, route)
        for key, name in repeated:  # when the first of them is in the journal
            if name not in self.history.names[key]:
                self._record({"event": "repeated", "name": name, "id": key})
        self.look()

    def look(self) -> None:
        """Looks for new domains among what is kept, if unknown text arrives and there is more of it
        than at the last look."""
        history, options = self.history, self.options
        if not history.alarmed or history.pending or history.tokens < 1.1 * self._looked:
            return
        about = {"documents": len(history.kept), "tokens": history.tokens}
        if history.tokens < options.tokens:
            return
        self._looked = history.tokens
        newest = search.newest({key: one.tokens for key, one in history.kept.items()})
        texts = {key: self.buffer.text(key) for key in newest}
        found = search.domains(self.bank, texts, options.tokens)
        for domain in found:
            # An expert that was mounted meanwhile may know some of them.
            if all(key in history.kept for key in domain.ids):
                self._found(domain)
        if not found:
            if history.since >= PATIENCE * options.tokens:
                self._record({"event": "unfounded", **about})
            else:
                why = f"and too few of them explain each other to make {options.tokens:,} tokens"
                self._tell({"event": "waiting", **about, "why": why})

    def resume(self) -> None:
        """Goes on with what the last call was stopped in."""
        last = self.buffer.journal.events[-1]["event"] if self.buffer.journal.events else ""
        if self.history.pending:
            self._finish_pending()
        elif last in ("mounted", "abandoned", "settled") and not self.options.dry_run:
            self._again()

    def _finish_pending(self) -> None:
        """Trains and mounts the expert of a domain that was found, if it has none yet."""
        event = self.history.pending
        if event is None:
            return
        if self.options.dry_run:
            self._tell({**event, "event": "would"})
            return
        name, ids = event["expert"], event["ids"]
        if event["start"] != "noise" and event["start"] not in self.bank.names:
            self.buffer.drop_found(name)  # checkpoints of what began with it
            self._record(
                {"event": "begins", "expert": name, "start": "noise", "of": event["start"]}
            )
        tell = lambda line: self._tell({"event": "training", "expert": name, "line": line})
        tokens = {key: one.tokens for key, one in self.history.kept.items()}
        try:
            train_expert(self.path, self.buffer, self.history.pending, tokens, tell)
        except CannotTrain as why:
            self._record({"event": "abandoned", "expert": name, "why": str(why)})
        else:
            self._load()
            self._record({"event": "mounted", "expert": name, "experts": len(self.bank.names)})
            self.buffer.drop(ids)
        self.buffer.drop_found(name)
        self._again()

    def end(self) -> None:
        """Says what this call did."""
        if self.history.alarmed and not self.history.pending:
            why = f"a domain needs {self.options.tokens:,} that explain each other"
            about = {"documents": len(self.history.kept), "tokens": self.history.tokens}
            self._tell({"event": "waiting", **about, "why": why})
        self._tell(events.summary(self.said, len(self.history.kept)))

    def _load(self) -> None:
        self.bank = ExpertBank.load(self.path, lms=False)
        self.router = ManyRouter.of_bank(self.bank, exact=True)
        self._calibrated = {e.name: calibrated(e) for e in self.bank.experts}

    def _routed(self, key: str, name: str, form: str, route: Any) -> None:
        if isinstance(route, UserError):
            self._skip(name, key, str(route))
            return
        if route.nothing_to_judge:
            self._skip(name, key, f"its text is {route.reason}")
            return
        event = {"name": name, "id": key, **_judged(route)}
        event["calibrated"] = self._calibrated[route.nearest]
        if route.known is False:
            self.buffer.put(key, form)  # before the journal says that it is there
        if self._record({"event": "document", **event}):
            self._record(
                {
                    "event": "alarm",
                    "documents": sum(e["event"] == "document" for e in self.buffer.journal.events),
                    "run_length": self.options.run_length,
                    "buffered": len(self.history.kept),
                }
            )

    def _found(self, domain: search.Domain) -> None:
        near, options = domain.nearness, self.options
        expert = ""
        if near.verdict != "refuse":
            expert = self._free(near.expert if near.verdict == "extend" else options.name)
        self._record(
            {
                "event": "found",
                "verdict": near.verdict,
                "expert": expert,
                **domain.facts(),
                "start": domain.nearest if options.start == "nearest" else "noise",
                "steps": options.steps or search.steps(domain.tokens, self.bank.model.window),
            }
        )
        if near.verdict == "refuse":
            self._looked = 0  # less is kept now than was looked at
            self.buffer.drop(domain.ids)
        self._finish_pending()

    def _free(self, name: str) -> str:
        """NAME, NAME-2, ... or new-1, new-2, ...: the first that is free."""
        taken = {n.lower() for n in (*self.bank.names, *self.history.experts)}
        if name and name.lower() not in taken:
            return name
        endings = (f"-{i}" for i in itertools.count(2 if name else 1))
        numbered = ((name or "new")[: LONGEST - len(end)] + end for end in endings)
        return next(n for n in numbered if n.lower() not in taken)

    def _again(self) -> None:
        """Routes what is kept once more: the new expert may know it."""
        self._looked = 0
        kept = dict(self.history.kept)
        routes = self.router.route(self.buffer.text(key) for key in kept)
        for (key, one), route in zip(kept.items(), routes, strict=True):
            if isinstance(route, Route) and route.known:
                self._record({"event": "settled", "name": one.name, "id": key, **_judged(route)})
                self.buffer.drop([key])

    def _skip(self, name: str, key: str, why: str) -> None:
        self._record({"event": "skipped", "name": name, "id": key, "why": why})

    def _record(self, event: dict[str, Any]) -> bool:
        """Journals an event, learns and tells it; -> whether it raised an alarm."""
        self.buffer.journal.add(event)
        alarm = self.history.apply(event)
        if event["event"] == "document":
            event = {**event, "evidence": self.history.test.reached}
        self._tell(event)
        return alarm

    def _tell(self, event: Event) -> None:
        self.said.append(event)
        self._say(event)


def _judged(route: Route) -> Mapping[str, Any]:
    p = route.p_values[route.nearest]
    return {
        "nearest": route.nearest,
        "known": route.known,
        "p": None if np.isnan(p) else p,
        "tokens": route.tokens,
    }


def _rounds(documents: Iterable[Arrival]) -> Iterator[list[Arrival]]:
    unread = iter(documents)
    while some := list(itertools.islice(unread, ROUND)):
        yield some
