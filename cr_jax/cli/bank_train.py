"""`cr-jax bank train`: new experts for a bank, from text to the mounted expert."""

import argparse
import math
import os
from collections.abc import Sequence

from cr_jax.bank.entry_checks import check_free, check_own
from cr_jax.bank.files import BankFolder, check_name
from cr_jax.cli.inputs import path
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, print_line, printable
from cr_jax.errors import UserError
from cr_jax.host.files import DISK_ERRORS, expanded

EPILOG = """\
  cp -r "$(python -c 'from cr_jax.bank import pretrained; print(pretrained.folder())')" mine
  cr-jax bank train c='files:code/**/*.[ch]' --bank mine
  cr-jax bank train law='jsonl:a.jsonl#text' law=files:b --valid law=files:held_out --bank mine

Tokenizer, model, text form and scoring rule are the bank's; its other experts keep every byte.  A
SPEC is a source as in config.data.domains; a NAME that is given twice has both.  Without --valid a
tenth of the documents, chosen by a hash of their tokens, is held out to calibrate the expert.

Until the new experts are trained and calibrated the bank is as it was.  After Ctrl-C, a kill or a
full disk the same command goes on.  The cascade and the screen of a bank are measured with all of
its experts: --valid for each of these fits them anew, else `cr-jax bank fit-cascade` does.
"""
_STEPS, _BATCH, _RATE = 1000, 16, 3e-3  # of the bank that ships with the package


def add_arguments(parser) -> None:
    """The flags of `cr-jax bank train`."""
    parser.add_argument(
        "experts", nargs="+", metavar="NAME=SPEC", help="a new expert and what it is trained on"
    )
    parser.add_argument(
        "--valid",
        action="append",
        default=[],
        metavar="NAME=SPEC",
        help="text to calibrate on, also of the bank's other experts; may be repeated",
    )
    parser.add_argument(
        "--steps", type=int, default=_STEPS, metavar="N", help=f"of training (default {_STEPS})"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=_BATCH,
        metavar="N",
        help=f"windows per expert and step (default {_BATCH})",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=_RATE,
        metavar="X",
        help=f"of AdamW (default {_RATE:g}); Muon's keeps its ratio to it",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and batches")
    parser.add_argument(
        "--workdir",
        type=path,
        metavar="DIR",
        help="checkpoints and tokens (default: BANK.training/NAMES beside the bank)",
    )


def run(args) -> int:
    """Trains, calibrates and adds; a line for each stage."""
    train, valid = _given("", args.experts), _given("--valid ", args.valid)
    _check_numbers(args)
    for name in train:
        check_name(name)
    files = BankFolder(args.bank)
    check_own(args.bank)
    workdir = args.workdir or _beside(args.bank, list(train))
    if not os.path.isdir(workdir):  # else an earlier start may have added some
        check_free(files, list(train))
    start_jax()
    from cr_jax.experiment.new_experts import NewExperts, train_new
    from cr_jax.training.loop import Interrupted

    new = NewExperts(train, valid, args.steps, args.batch, args.learning_rate, args.seed)
    try:
        train_new(args.bank, new, workdir, lambda line: print_line(printable(line)))
    except (Interrupted, KeyboardInterrupt) as stop:
        complain(str(stop) or "interrupted; run the same command to go on")
        return 130
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(
            f"cannot write {error.filename or workdir}: {error.strerror}; make room there or allow "
            "writing, then run the same command to go on"
        ) from error
    print_line(printable(f"{workdir} holds the training; it can be deleted"))
    return 0


def _given(flag: str, words: Sequence[str]) -> dict[str, list[str]]:
    """NAME=SPEC words -> sources by name."""
    sources: dict[str, list[str]] = {}
    for word in words:
        name, mark, spec = word.partition("=")
        if not (name and mark and spec):
            raise UserError(
                f"{flag}{word[:80]}: must be NAME=SPEC, as in law=files:statutes or "
                "math=samples/math"
            )
        sources.setdefault(name, []).append(spec)
    return sources


def _check_numbers(args: argparse.Namespace) -> None:
    for flag, number in (("--steps", args.steps), ("--batch", args.batch)):
        if number < 1:
            raise UserError(f"{flag} must be a whole number of at least 1, got {number}")
    if not 0 < args.learning_rate < math.inf:
        raise UserError(f"--learning-rate must be a number above 0, got {args.learning_rate}")
    if not 0 <= args.seed < 1 << 32:
        raise UserError(f"--seed must lie in [0, {(1 << 32) - 1}], got {args.seed}")


def _beside(bank: str, names: Sequence[str]) -> str:
    """Of the same command always the same folder."""
    whole = expanded(bank).resolve()
    return os.fspath(whole.with_name(f"{whole.name}.training") / "+".join(names)[:150])
