"""`cr-jax bank export` and `cr-jax bank import`: a bank as folders for the Hugging Face Hub."""

import argparse

from cr_jax.bank.entry_checks import check_own, unused_fits
from cr_jax.bank.files import BankFolder
from cr_jax.cli.inputs import path
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import print_line, printable

EXPORT = """\
  cr-jax bank export --format hf --bank mine out
  hf upload OWNER/python out/experts/python

Each folder below OUT/experts is a repository of its own: model card, config.json,
model.safetensors, calibration and tokenizer. OUT/shared holds what belongs to all of them together.
"""
IMPORT = """\
  cr-jax bank import --bank mine out                      # all that `cr-jax bank export` wrote
  hf download OWNER/python --local-dir python
  cr-jax bank import --bank mine python                   # one expert, to a new bank or to mine

Every byte is compared with its SHA-256. A whole export gives the bank as it was, byte for byte.
"""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=path, help="a folder that is empty or not there")
    parser.add_argument(
        "--format", choices=("hf",), default="hf", help="hf: for the Hugging Face Hub (default)"
    )
    parser.add_argument(
        "--license", default="", metavar="ID", help="stated in the model cards, such as apache-2.0"
    )


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        metavar="FROM",
        nargs="+",
        type=path,
        help="what `cr-jax bank export` wrote, or experts' folders of it",
    )


def export_bank(args) -> int:
    """Writes the bank's experts as repositories."""
    from cr_jax.bank.exchange import export

    names = export(args.bank, args.out, args.license)
    print_line(printable(f"{args.out}: {len(names)} experts, {', '.join(names)}"))
    return 0


def import_bank(args) -> int:
    """Makes a bank of exported experts, or adds them to one."""
    check_own(args.bank)
    start_jax()
    from cr_jax.bank.exchange import import_exports

    notes: list[str] = []
    names = import_exports(args.sources, args.bank, notes.append)
    print_line(printable(f"{args.bank}: added {', '.join(names)}"))
    for note in notes:
        print_line(printable(note))
    if line := unused_fits(BankFolder(args.bank)):
        print_line(printable(line))
    return 0
