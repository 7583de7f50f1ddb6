"""`cr-jax tokenize`: the text of a run as a folder that trains without the text."""

from cr_jax.cli.inputs import path
from cr_jax.cli.output import complain, print_line, printable
from cr_jax.errors import UserError

EPILOG = """\
  cr-jax tokenize --config configs/bank.py --config.data.root=DATA --out tokens
  python main.py --config=configs/bank.py --config.data.tokens=tokens --workdir=runs/bank

Every setting of the config can be changed as for main.py: --config.GROUP.FIELD=VALUE.  FOLDER gets
the token ids of every domain and split, where documents start, the tokenizer and a manifest with
SHA-256 sums, and no text.  It can be copied to another machine; main.py then trains and evaluates
from it as from the text, to the last bit.

Until all is done, finished parts wait in .FOLDER.making beside it: the same command goes on after a
kill, Ctrl-C or a full disk.  docs/tokens.md has more.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax tokenize`."""
    parser.add_argument(
        "--config", required=True, metavar="FILE[:VARIANT]", help="a file in configs/"
    )
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", type=path, help="a folder that is not there"
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        help="processes that encode text (default: one per core); any number gives the same bytes",
    )
    parser.add_argument(
        "--compress",
        action="store_true",
        help="pack the ids with zstd; the first run that reads them unpacks them",
    )


def _count(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= 1024):
        raise UserError(f"--jobs={printable(text)} must be a number of processes, 1 to 1024")
    return int(text)


def run(args) -> int:
    """Writes the folder; one line per corpus."""
    from cr_jax import config as settings
    from cr_jax.config.command_line import load
    from cr_jax.data import token_folder_writer

    jobs = _count(args.jobs)
    raw = load(args.config, args.settings).to_dict()
    raw.pop("ablation", None)  # a grid reads the text of the experiment that it varies
    experiment = settings.build(raw)
    if experiment.data.tokens:
        raise UserError(
            "config.data.tokens names a token folder already: leave it out to tokenize text"
        )
    try:
        written = token_folder_writer.write(
            experiment,
            args.out,
            jobs=jobs,
            compress=args.compress,
            say=lambda line: print_line(printable(line)),
        )
    except KeyboardInterrupt:
        complain("interrupted; run the same command to go on")
        return 130
    print_line(
        f"{printable(str(written.path))}: train with "
        f"--config.data.tokens={printable(str(written.path))}"
    )
    return 0
