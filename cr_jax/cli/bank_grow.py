"""`cr-jax bank grow`: a bank that gives unknown domains experts by itself."""

import argparse
import json
from collections.abc import Iterator

from cr_jax.bank.entry_checks import check_own
from cr_jax.bank.files import BankFolder
from cr_jax.cli.documents import documents
from cr_jax.cli.inputs import path
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, print_line, printable

EPILOG = """\
  cp -r "$(python -c 'from cr_jax.bank import pretrained; print(pretrained.folder())')" mine
  cr-jax bank grow --bank mine --inbox FOLDER --dry-run
  cr-jax bank grow --bank mine --inbox FOLDER
  zcat stream.jsonl.gz | cr-jax bank grow --bank mine --inbox -

Each document is routed.  Those that no expert knows are kept in the buffer; once unknown text
arrives (a sequential test with a stated mean number of documents between false alarms) and enough
of it explains each other, an expert is trained on it alone and mounted.  Other experts keep every
byte, and nothing of the inbox is changed.  After Ctrl-C, a kill or a full disk the same command
goes on; documents that were seen are passed over.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax bank grow`."""
    add = parser.add_argument
    add(
        "--inbox",
        required=True,
        type=path,
        metavar="FOLDER|-",
        help="documents: a folder of files, a file of JSON lines with --jsonl, or - for JSON lines "
        "on standard input",
    )
    add(
        "--buffer",
        type=path,
        metavar="DIR",
        help="where unknown documents and the journal lie (default: BANK.buffer)",
    )
    add(
        "--run-length",
        type=float,
        default=1000.0,
        metavar="N",
        help="documents between false alarms, on average, at least (default 1000)",
    )
    add(
        "--tokens",
        type=int,
        default=20_000,
        metavar="N",
        help="tokens of a new domain that gets an expert, at least (default 20000)",
    )
    add(
        "--start",
        choices=("noise", "nearest"),
        default="nearest",
        help="what a new expert begins with: noise, or the nearest expert (default nearest)",
    )
    add(
        "--steps",
        type=int,
        default=0,
        metavar="N",
        help="of training (default: 16 times all of its text, 100 to 1000)",
    )
    add("--name", default="", metavar="NAME", help="of new experts (default new-1, new-2, ...)")
    add("--dry-run", action="store_true", help="say what it would do and write nothing")
    add("--json", action="store_true", help="each event as one JSON line")
    add("--jsonl", action="store_true", help="the inbox is JSON lines, a document in each")
    add("--field", metavar="NAME", help="of a JSON line, the text (default text)")
    add("--null", action="store_true", help="the inbox is documents that NUL bytes separate")


def run(args) -> int:
    """Reads the inbox to its end; -> 0, 130 when it was stopped."""
    BankFolder(args.bank)
    if not args.dry_run:
        check_own(args.bank)
    start_jax()
    from cr_jax.continual.grow import grow
    from cr_jax.continual.options import Arrival, GrowOptions
    from cr_jax.training.loop import Interrupted

    options = GrowOptions(
        args.run_length, args.tokens, args.start, args.steps, args.name, args.dry_run
    )

    def arrivals() -> Iterator[Arrival]:
        for document in documents(_inbox(args)):
            yield Arrival(document.name, document.text)

    try:
        grow(args.bank, arrivals(), options, _said(args.json), args.buffer)
    except (Interrupted, KeyboardInterrupt) as stop:
        complain(str(stop) or "interrupted; run the same command to go on")
        return 130
    return 0


def _inbox(args) -> argparse.Namespace:
    """As `cr-jax route` reads it: standard input is a stream of documents here."""
    return argparse.Namespace(
        files=[args.inbox],
        jsonl=args.jsonl or (args.inbox == "-" and not args.null),
        null=args.null,
        field=args.field,
        csv=True,  # records are not written back
        include=[],
        exclude=[],
        gitignore=False,
    )


def _said(as_json: bool):
    from cr_jax.continual.events import line

    if as_json:
        return lambda event: print_line(json.dumps(event, allow_nan=False))
    return lambda event: print_line(printable(line(event)))
