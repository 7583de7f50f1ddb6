"""`cr-jax route` of any number of files, folders and streams."""

import collections
import csv
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cr_jax.cli.documents import Document, documents
from cr_jax.cli.output import complain, print_bytes, print_line, printable
from cr_jax.data.encodings import NotText
from cr_jax.data.folders import Wanted, files_below
from cr_jax.errors import UserError

UNKNOWN = 1  # exit status of --fail-on-unknown
DELAY = 1.0  # seconds without a word
COLUMNS = (
    "file",
    "expert",
    "nearest",
    "known",
    "reason",
    "margin",
    "p_value",
    "decided_by",
    "windows",
    "tokens",
)


def add_arguments(parser) -> None:
    """The flags of many files."""
    add = parser.add_argument
    add("--exact", action="store_true", help="let all experts score every text")
    add("--csv", action="store_true", help="a table with a header, one line per text")
    add(
        "--only-unknown",
        action="store_true",
        help="say nothing of texts that an expert surely knows",
    )
    add("--fail-on-unknown", action="store_true", help="exit with status 1 when a text is unknown")
    add(
        "--include",
        action="append",
        default=[],
        metavar="GLOB",
        help="of a folder, only files of such a name or path; may be repeated",
    )
    add(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="of a folder, no files or folders of such a name or path; may be repeated",
    )
    add("--gitignore", action="store_true", help="of a folder, nothing that its .gitignore names")
    add("--null", action="store_true", help="each input is documents that NUL bytes separate")
    add("--jsonl", action="store_true", help="each input is JSON lines, a document in each")
    add(
        "--field",
        metavar="NAME",
        help="of a JSON line, the text (default text); the route is written beside the record",
    )


def check(args) -> None:
    """`UserError` for flags that contradict each other or would do nothing."""
    for one, other in (("csv", "json"), ("jsonl", "null")):
        if getattr(args, one) and getattr(args, other):
            raise UserError(f"--{one} and --{other} contradict each other: leave one")
    if args.field is not None and not args.jsonl:
        raise UserError("--field names a field of JSON lines: add --jsonl or leave it out")
    folders = [name for name in args.files if name != "-" and os.path.isdir(name)]
    for flag in ("include", "exclude", "gitignore"):
        if getattr(args, flag) and (args.jsonl or args.null or not folders):
            raise UserError(f"--{flag} is about the files of a folder: name one or leave it out")


def run(args, options) -> int:
    """Routes all documents; -> 2 when one of them is bad."""
    from cr_jax.routing.many import ManyRouter

    router = ManyRouter.open(args.bank, options, args.exact)
    say = _Said(args)
    waiting: collections.deque[Document] = collections.deque()

    def texts():
        for document in documents(args):
            waiting.append(document)
            yield document.text

    with _bar(args) as tick:
        for answer in router.route(texts()):
            say.one(waiting.popleft(), answer)
            tick()
    return say.end()


class _Said:
    """What is printed of each answer, and what is counted."""

    def __init__(self, args):
        self.args, self.status, self.begun = args, 0, time.monotonic()
        self.experts: collections.Counter[str] = collections.Counter()
        self.by: collections.Counter[str] = collections.Counter()
        self.not_text = self.bad = self.short = 0
        if args.csv:
            print_line(",".join(COLUMNS))

    def one(self, document: Document, answer: Any) -> None:
        if isinstance(answer, NotText) and document.found:
            self.not_text += 1
            return
        if isinstance(answer, UserError):
            self.bad += 1
            named = document.name in str(answer)
            self.status = complain(answer if named else f"{document.name}: {answer}")
            return
        unknown = answer.known is False
        if answer.known is None and self.args.rule == "bank":
            self.short += 1
        else:
            self.experts["unknown" if unknown else answer.nearest] += 1
        self.by[answer.decided_by] += 1
        if unknown and self.args.fail_on_unknown:
            self.status = self.status or UNKNOWN
        if answer.known is not True or not self.args.only_unknown:
            line = self._line(document, answer)
            print_bytes(line) if isinstance(line, bytes) else print_line(line)

    def _line(self, document: Document, answer: Any) -> str | bytes:
        if not (self.args.json or self.args.csv or self.args.jsonl):
            from cr_jax.cli.route import line

            return line(document.name, answer, self.args.rule)
        said = answer.to_json()
        said["p_value"] = said["p_values"].get(answer.nearest)
        if self.args.csv:
            row = {"file": document.name, **said}
            return _row([row[column] for column in COLUMNS])
        if document.line is not None:
            from cr_jax.data.splicing import spliced

            return spliced(document.line, "route", said)
        return json.dumps({"file": document.name, **said}, allow_nan=False)

    def end(self) -> int:
        """A summary where a folder or a stream was named; -> the exit status."""
        many = self.args.jsonl or self.args.null
        many = many or any(n != "-" and os.path.isdir(n) for n in self.args.files)
        count = self.experts.total() + self.short
        if many and not count and not self.bad:
            return complain(f"{printable(self.args.files[0])} holds no text{self._passed()}")
        if many:
            seconds = time.monotonic() - self.begun
            experts = ", ".join(f"{name} {n:,}" for name, n in self.experts.most_common())
            short = f"; {self.short:,} too short to judge" if self.short else ""
            bad = f"; {self.bad:,} could not be read" if self.bad else ""
            print(
                f"{count:,} texts in {seconds:.1f} s ({count / max(seconds, 1e-3):,.0f}/s): "
                f"{experts or 'none'}{short}; {self.by['bigrams']:,} decided by bigram models"
                f"{self._passed()}{bad}",
                file=sys.stderr,
            )
        return self.status

    def _passed(self) -> str:
        plural = "files that are" if self.not_text > 1 else "file that is"
        return f"; passed over {self.not_text:,} {plural} not text" if self.not_text else ""


def _row(cells: Iterable[Any]) -> str:
    """A line of CSV whose text no spreadsheet takes for a formula and no terminal for orders."""

    def cell(value):
        if not isinstance(value, str):
            return value
        return ("'" if value.startswith(("=", "+", "-", "@")) else "") + printable(value)

    out = io.StringIO()
    csv.writer(out).writerow(map(cell, cells))
    return out.getvalue().removesuffix("\r\n")


class _bar:
    """`with _bar(args) as tick:` a bar with rate and time left on a terminal; `tick` moves it."""

    def __init__(self, args):
        self.args, self.bar = args, None

    def __enter__(self):
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=_count(self.args), unit=" texts", leave=False, delay=DELAY, file=sys.stderr
            )
            return self.bar.update
        return lambda: None

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()


def _count(args) -> int | None:
    """How many files there are; None for streams, whose end nobody knows."""
    if args.jsonl or args.null:
        return None
    wanted = Wanted(args.include, args.exclude, args.gitignore)
    return sum(_files(n, wanted) for n in args.files)


def _files(name: str, wanted: Wanted) -> int:
    below: Iterable[Any] = files_below(Path(name), wanted) if os.path.isdir(name) else [name]
    return sum(1 for _ in itertools.chain(below))
