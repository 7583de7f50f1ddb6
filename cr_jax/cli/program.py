"""The whole command: arguments in, exit code out."""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from cr_jax import __version__
from cr_jax.bank import pretrained
from cr_jax.cli import (
    bank,
    fit_cascade,
    generate,
    modular,
    perplexity,
    plugins,
    reconstruct,
    route,
    runs,
    segment,
    tokenize,
)
from cr_jax.cli.inputs import path
from cr_jax.cli.jax_start import prepare
from cr_jax.cli.output import complain
from cr_jax.cli.streams import OutputLost, guarded, need_stdout
from cr_jax.errors import MOST, UserError, out_of_memory

_ABOUT = """\
Every expert is a small autoencoder that learnt to rebuild the texts of one domain.  A text goes
to the expert with the lowest residual: nats/token to rebuild it (the paper's rule), to rebuild
hidden tokens of it, or to predict it; `cr-jax bank list` says which of these a bank compares.  If
even that residual is unusual for the expert's own domain (its p-value is below alpha), the text is
unknown.

  cr-jax route notes.txt main.py
  cr-jax route --bank runs/quickstart/bank --explain notes.txt
  cat notes.txt | cr-jax route --bank runs/quickstart/bank --json -
  cr-jax reconstruct --bank runs/quickstart/bank --expert python main.py
  cr-jax generate --bank runs/modular/bank --show-experts 'The court finds that'
  cr-jax perplexity --bank runs/modular/bank main.py
  cr-jax bank verify --bank runs/quickstart/bank
  cr-jax tokenize --config configs/quickstart.py --out tokens
  cr-jax train --config=configs/quickstart.py --workdir=runs/quickstart
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `cr-jax ARGV`; -> 0, 2 after bad input, 130 after Ctrl-C.  Never raises on bad input."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["train"]:  # has absl's flags, as main.py
        from cr_jax.cli import train

        try:
            train.start(["cr-jax train", *words[1:]])
        except SystemExit as stop:
            return int(stop.code or 0)

    def lost(why: str) -> None:
        raise OutputLost(why)

    with guarded(lost):
        return _answer(argv)


def _answer(argv: Sequence[str] | None) -> int:
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:  # the shell asks how a word goes on
            with contextlib.suppress(ImportError):
                import argcomplete

                argcomplete.autocomplete(parser)
        args, args.settings = parser.parse_known_args(argv)
        if args.settings and args.run not in (tokenize.run, fit_cascade.run):
            parser.error(f"unrecognized arguments: {' '.join(args.settings)}")
        need_stdout()  # nothing is changed in a bank without a word
        prepare()
        plugins.load(getattr(args, "plugin", ()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = args.run(args)
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: --help, --version, a bad flag
        return int(stop.code or 0)
    except UserError as error:
        return complain(error)
    except RecursionError:
        return complain("a file of the bank is nested too deeply to be read")
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except OutputLost as why:
        return complain(f"the output could not be written to its end: {why}")
    except Exception as error:
        if not out_of_memory(error):
            raise
        return complain(
            "there is not enough memory: give less text at a time, a bank of fewer or smaller "
            "experts, or more memory"
        )


def _parser() -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message):
            self.exit(complain(f"{message[: MOST - 80]}; see {self.prog} --help"))

    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = Parser(
        "cr-jax",
        description="Route texts to the expert that compresses them best.",
        epilog=_ABOUT,
        **raw,
    )
    parser.add_argument("--version", action="version", version=f"cr-jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        group, name: str, run: Callable, text: str, epilog: str | None = None, writes: bool = False
    ):
        made = group.add_parser(name, help=text, description=text, epilog=epilog, **raw)
        default = None if writes else str(pretrained.folder())
        made.add_argument(
            "--bank",
            required=writes,
            default=default,
            metavar="DIR",
            type=path,
            help="folder with bank.json"
            + ("" if writes else " (default: the one that ships with cr_jax)"),
        )
        plugins.add_argument(made)
        made.set_defaults(run=run)
        return made

    route.add_arguments(
        command(commands, "route", route.run, "say which expert a text belongs to", route.EPILOG)
    )
    reconstruct.add_arguments(
        command(
            commands,
            "reconstruct",
            reconstruct.run,
            "show what an expert makes of a text",
            reconstruct.EPILOG,
        )
    )

    segment.add_arguments(
        command(
            commands, "segment", segment.run, "cut texts where their domain changes", segment.EPILOG
        )
    )
    generate.add_arguments(
        command(
            commands,
            "generate",
            generate.run,
            "go on with a text, spoken by the nearest expert",
            generate.EPILOG,
        )
    )
    perplexity.add_arguments(
        command(
            commands,
            "perplexity",
            perplexity.run,
            "say what a text costs under the experts' language models",
            perplexity.EPILOG,
        )
    )

    # For the list alone: `main` gives its words to `train.start`.
    commands.add_parser("train", help="train experts by a file of settings, and write a report")
    text = commands.add_parser(
        "tokenize",
        help="write the tokens of a run, to train without text",
        description="Tokenize the text of a run once, for machines that do not have it.",
        epilog=tokenize.EPILOG,
        allow_abbrev=False,
        **raw,
    )
    text.set_defaults(run=tokenize.run)
    tokenize.add_arguments(text)

    group = commands.add_parser(
        "modular",
        help="split text without labels into parts",
        description="Prepare text for experts that need no names.",
        epilog=modular.EPILOG,
        **raw,
    )
    made = group.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "partition",
        help="split text into parts by code length",
        description="Split text into parts of equal size, each of which compresses well.",
        epilog=modular.EPILOG,
        **raw,
    )
    made.set_defaults(run=modular.partition)
    modular.add_arguments(made)

    group = commands.add_parser(
        "runs",
        help="compare finished runs",
        description="Look at finished runs side by side.",
        epilog=runs.EPILOG,
        **raw,
    )
    made = group.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "compare",
        help="print a table of settings that differ and of key figures",
        description="Print what differs between runs, and what came of it.",
        epilog=runs.EPILOG,
        **raw,
    )
    made.set_defaults(run=runs.run)
    runs.add_arguments(made)

    keep = commands.add_parser(
        "bank",
        help="list, check, extend or shrink a bank",
        description="Keep a bank of experts.",
        epilog=bank.EPILOG,
        **raw,
    )
    actions = keep.add_subparsers(dest="action", required=True, metavar="ACTION")
    bank.add_arguments(lambda *about, **more: command(actions, *about, **more))
    return parser
