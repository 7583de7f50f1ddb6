"""`cr-jax runs compare`: runs side by side, by their reports."""

import json

from cr_jax.cli.inputs import path
from cr_jax.cli.output import print_line
from cr_jax.report import compare

EPILOG = """\
  cr-jax runs compare runs/a runs/b
  cr-jax runs compare --json runs/* | jq .figures

RUN is the --workdir of a finished run, or a report.json.  First come the settings that are not the
same in all of them, then the key figures; - where a run did not measure one.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax runs compare`."""
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path, help="a run's --workdir")
    parser.add_argument("--json", action="store_true", help="one JSON object per run and line")


def run(args) -> int:
    """Prints the table."""
    settings, figures = compare.compare([compare.read(run) for run in args.runs])
    names = compare.short_names(args.runs)
    if args.json:
        for record in compare.as_records(names, settings, figures):
            print_line(json.dumps(record))
        return 0
    print_line(compare.as_text(names, settings, figures))
    return 0
