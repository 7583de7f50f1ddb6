"""`cr-jax route`: which expert a text belongs to."""

import json

from cr_jax.bank_folder import BankFolder
from cr_jax.cli.inputs import checked
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, print_line, printable
from cr_jax.errors import UserError

EPILOG = """\
Prints one line per file, in order:
  FILE: EXPERT  margin M  p P  tra T | EXPERT R, EXPERT R, ...  (W windows, T tokens)
  EXPERT  the winner, or unknown and the nearest expert
  margin  second best minus best residual, nats/token: how clear the choice is
  p       how usual such a residual is in the winner's own domain; below alpha: unknown
  tra     share of tokens that the winner rebuilds exactly
  R       residual of each expert in nats/token, best first

Files are UTF-8 text of any size; they are read in pieces.  A bad file costs one line on stderr
and exit code 2 at the end; the others are routed all the same.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax route`."""
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")
    parser.add_argument("--alpha", type=float, default=0.05, metavar="A",
                        help="a p-value below this is unknown (default 0.05)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text; - is standard input")


def run(args) -> int:
    """Routes each file; -> 2 when one of them is bad."""
    if not 0 <= args.alpha <= 1:
        raise UserError(f"--alpha is a share and must lie in [0, 1], got {args.alpha}")
    BankFolder(args.bank)
    status, good = 0, []
    for name in args.files:
        try:
            good.append(checked(name))
        except UserError as error:
            status = complain(error)
    if not good:
        return status
    start_jax()
    from cr_jax.bank import ExpertBank
    from cr_jax.data.sources import read_text
    from cr_jax.router import route

    bank = ExpertBank.load(args.bank)
    for name in good:
        try:
            found = route(bank, read_text(name), alpha=args.alpha)
        except UserError as error:
            status = complain(error)
            continue
        print_line(json.dumps({"file": name, "p_value": found.p_values[found.nearest],
                               **found.to_json()}) if args.json else _line(name, found))
    return status


def _line(name: str, found) -> str:
    winner = found.expert or f"unknown (nearest {found.nearest})"
    ranked = sorted(found.residuals.items(), key=lambda pair: pair[1])
    residuals = ", ".join(f"{n} {r:.3f}" for n, r in ranked)
    return (f"{printable(name)}: {winner}  margin {found.margin:.3f}  "
            f"p {found.p_values[found.nearest]:.3f}  tra {found.tra[found.nearest]:.3f} | "
            f"{residuals}  ({found.windows} windows, {found.tokens} tokens)")
