"""`cr-jax perplexity`: what a text costs under the bank's language models."""

import json

from cr_jax.bank.files import BankFolder
from cr_jax.cli.generate import add_memory, checked_options, read_memory
from cr_jax.cli.inputs import checked, path, text_of
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, print_line, printable
from cr_jax.errors import UserError
from cr_jax.modular.options import IDS, LATENTS, NO_LMS, NONE, RECENT, PerplexityOptions

EPILOG = """\
Prints for each file, in order:
  FILE: B bits/byte  perplexity P  (N tokens, M bytes)
  spoken by: who speaks from which token to which
  a table of what each would have had, best first: scheduled (the line above), the posterior
  mixture of all experts, the seed alone, each expert alone

The first tokens (--prefix) are the seed's, the language model of all domains, or the mixture's in a
bank without a seed; then the expert speaks that predicted the tokens before best, decided again at
each multiple of --every.  No token chooses the expert that it is scored by.  Perplexity is of a
token and compares within a tokenizer; bits/byte compare across.

With --memory latents the tokens that a model reads are not all the last ones: up to half are pages,
windows from anywhere before, kept as latents and rebuilt where the last tokens ask for them; a line
says how many bytes that takes.  ids: the same pages from stored ids; recent: as many positions,
all of the last tokens.

A bad file costs one line on stderr and exit code 2 at the end; the others are scored all the same.
"""
_TURNS = 12  # shown of a file


def add_arguments(parser) -> None:
    """The flags of `cr-jax perplexity`."""
    wanted = PerplexityOptions()
    for name, kind, metavar, text in (
        ("prefix", int, "N", "tokens before the first decision"),
        ("every", int, "W", "decide again every W tokens"),
        ("judged", int, "N", "by the last so many tokens; 0: by all before"),
        ("switch", float, "P", "switching prior of the mixture"),
        ("window", int, "L", "tokens that a model reads at once; 0: as in its training"),
    ):
        default = getattr(wanted, name)
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default {default})",
        )
    add_memory(parser, (NONE, RECENT, LATENTS, IDS))
    parser.add_argument("--json", action="store_true", help="one JSON object per file and line")
    parser.add_argument(
        "files", nargs="+", metavar="FILE", type=path, help="UTF-8 text; - is standard input"
    )


def run(args) -> int:
    """Scores each file; -> 2 when one of them is bad."""
    args.memory = read_memory(args)
    options = checked_options(PerplexityOptions, args)
    if "lm" not in BankFolder(args.bank).index:
        raise UserError(NO_LMS)
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
    from cr_jax.modular.perplexity import perplexity

    bank = ExpertBank.load(args.bank)
    for name in good:
        try:
            cost = perplexity(bank, text_of(name), options)
        except UserError as error:
            status = complain(error)
            continue
        if args.json:
            print_line(json.dumps({"file": name, **cost.to_json()}, allow_nan=False))
            continue
        for line in _lines(name, cost):
            print_line(line)
    return status


def _lines(name: str, cost):
    costs = lambda nats: (cost.bits_per_byte(nats), cost.perplexity(nats))
    bits, ppl = costs(cost.scheduled)
    yield (
        f"{printable(name)}: {bits:.4f} bits/byte  perplexity {ppl:.4g}  "
        f"({cost.tokens:,} tokens, {cost.bytes:,} bytes)"
    )
    if cost.memory is not None:
        yield f"  memory: {cost.memory}"
    turns = [f"{t.expert} {t.start}-{t.start + t.tokens - 1}" for t in cost.turns]
    more = f", and {len(turns) - _TURNS} more turns" if len(turns) > _TURNS else ""
    yield f"  spoken by: {', '.join(turns[:_TURNS])}{more}"
    width = max(map(len, cost.nats))
    yield f"  {'':{width}}  bits/byte  perplexity"
    for model, nats in cost.nats.items():
        bits, ppl = costs(nats)
        yield f"  {model:{width}}  {bits:9.4f}  {ppl:10.4g}"
