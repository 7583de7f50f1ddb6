"""`cr-jax reconstruct`: what an expert makes of a text."""

import sys

from cr_jax.bank.files import BankFolder
from cr_jax.cli.inputs import checked, path, whole_text
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import print_line
from cr_jax.errors import UserError

EPILOG = """\
Prints the text as the expert rebuilds it from its latents.  Wrong tokens are marked: on a
terminal the original struck out in red and the rebuilt in green, elsewhere [-original-]{+rebuilt+}.
The last line has the share of tokens rebuilt exactly (TRA) and the nll in nats/token, both with
all tokens seen: the residual of the paper's rule, not that of a bank that routes by another.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax reconstruct`."""
    parser.add_argument(
        "--expert", metavar="NAME", help="whose work to show (default: where the text goes)"
    )
    parser.add_argument(
        "--latents",
        metavar="K",
        type=int,
        help="give the decoder the first K latents alone (default: all); experts that were trained "
        "for it, with config.train.nested, rebuild well from few",
    )
    parser.add_argument("file", metavar="FILE", type=path, help="UTF-8 text; - is standard input")


def run(args) -> int:
    """Prints the rebuilt text and its TRA."""
    if args.latents is not None and args.latents < 1:
        raise UserError(f"--latents must be 1 or more, got {args.latents}")
    files = BankFolder(args.bank)
    if args.expert:
        files.expert(args.expert)
    text = whole_text(checked(args.file))
    if not args.expert and not isinstance(text, list):
        text = list(text)  # it is read twice
    start_jax()
    from cr_jax.bank import ExpertBank
    from cr_jax.bank.settings import read_settings
    from cr_jax.models import check_latents
    from cr_jax.router import route
    from cr_jax.routing.reconstruct import marked, reconstruct

    check_latents(read_settings(files).model, args.latents or 0)
    bank = ExpertBank.load(args.bank, args.expert and [args.expert], lms=False)
    expert = args.expert or route(bank, iter(text)).nearest
    tokens, right, nll = 0, 0, 0.0

    def counted():
        nonlocal tokens, right, nll
        for part in reconstruct(bank, expert, text, latents=args.latents or 0):
            tokens += len(part.tokens)
            right += int((part.tokens == part.rebuilt).sum())
            nll += float(part.nll.sum(dtype=float))
            yield part

    ended = True
    for piece in marked(bank.tokenizer, counted(), sys.stdout.isatty()):
        sys.stdout.write(piece)
        ended = piece.endswith("\n")
    print_line(
        ("" if ended else "\n")
        + ("" if args.expert else f"expert {expert}, where the text goes: ")
        + f"TRA {100 * right / tokens:.2f} % of {tokens} tokens, "
        f"nll {nll / tokens:.3f} nats/token with all tokens seen"
    )
    return 0
