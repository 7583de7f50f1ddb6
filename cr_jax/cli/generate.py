"""`cr-jax generate`: a text goes on, spoken by the expert that the router chooses."""

import argparse
import dataclasses
import json
import os
import re
import sys
from typing import Any

from cr_jax.bank.files import BankFolder
from cr_jax.cli.inputs import checked, path, text_of
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, print_line, printable
from cr_jax.errors import STEERING, UserError
from cr_jax.modular.options import (
    AUTO,
    IDS,
    LATENTS,
    NO_LMS,
    NONE,
    SEED_NAME,
    Z_DTYPES,
    GenerateOptions,
    MemoryOptions,
)

EPILOG = """\
Streams what follows PROMPT, without the prompt.  The bank's router judges the last tokens of the
text and the nearest expert's language model speaks; every W tokens it is decided again, by what
stands then.  Below 16 tokens, and for text that no expert knows, the seed speaks: the language
model of all domains that the experts' were branched from.  A line on stderr says when a prompt is
unknown, or longer than a model sees: then its last tokens count.  No PROMPT is an empty one.

--context FILE goes before PROMPT.  Of a text longer than a model sees, its last tokens count;
with --memory latents its windows are kept as latents of their experts, and those that the last
tokens ask for are rebuilt and read too.  A line on stderr says how many bytes that takes.

--show-experts writes a line in brackets where another expert begins, and why; on a terminal each
expert has a colour (NO_COLOR or --color never: none).  --json writes one object when all is done.

  cr-jax generate --bank BANK --show-experts 'The court finds that'
  cr-jax generate --context BOOK.txt --memory latents 'Chapter 12'
  head -c 2000 main.py | cr-jax generate --bank BANK --max-tokens 200 --temperature 0 -
"""
MEMORY = "memory.json"  # in a folder of `memory_file`, which imports JAX
_INKS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # of experts, in the order in which they speak


def add_arguments(parser) -> None:
    """The flags of `cr-jax generate`."""
    wanted = GenerateOptions()

    def number(flag: str, kind: type, metavar: str, text: str) -> None:
        default = getattr(wanted, flag.strip("-").replace("-", "_"))
        parser.add_argument(
            flag, type=kind, default=default, metavar=metavar, help=f"{text} (default {default})"
        )

    parser.add_argument(
        "--expert",
        default=AUTO,
        metavar="NAME",
        help="who speaks: an expert, seed, or auto, whom the router chooses (default)",
    )
    number("--max-tokens", int, "N", "at most so many tokens")
    number("--temperature", float, "T", "0: the likeliest tokens; 1: the model's own odds")
    number("--top-p", float, "P", "draw among the likeliest tokens that have this share")
    number("--seed", int, "S", "of the draws: the same seed, the same text")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="STR",
        help="end before this text; repeatable",
    )
    number("--every", int, "W", "decide again every W tokens; 0: never")
    number("--prefix", int, "N", "decide nothing below so many tokens")
    number("--judged", int, "N", "decide by the last so many tokens")
    number("--mix", int, "K", "let the nearest K experts speak together, by their posterior")
    number("--positions", int, "N", "that a model sees at most; 0: as in its training")
    parser.add_argument(
        "--context",
        metavar="FILE",
        type=path,
        help="a text of any length that goes before PROMPT, or a folder of --keep-memory",
    )
    add_memory(parser, (NONE, LATENTS, IDS))
    parser.add_argument(
        "--keep-memory", metavar="FOLDER", type=path, help="write the memory there, to ask it again"
    )
    parser.add_argument(
        "--show-experts", action="store_true", help="say who speaks and where it changes"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, at the end")
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour what each expert speaks (default auto: on a terminal)",
    )
    parser.add_argument(
        "prompt", nargs="?", default="", metavar="PROMPT", help="text; - is standard input"
    )


def add_memory(parser, kinds) -> None:
    """The flags of a memory, of some kinds."""
    wanted = MemoryOptions()
    parser.add_argument(
        "--memory",
        choices=kinds,
        default=NONE,
        help="how windows before what a model sees are kept, to be read again (default none)",
    )
    parser.add_argument(
        "--latents-as",
        choices=Z_DTYPES,
        default=wanted.dtype,
        help=f"numbers of latents (default {wanted.dtype})",
    )
    parser.add_argument(
        "--pages",
        type=int,
        default=wanted.pages,
        metavar="K",
        help=f"windows that are read again at once (default {wanted.pages})",
    )
    parser.add_argument(
        "--span",
        type=int,
        default=wanted.span,
        metavar="N",
        help="tokens of each; 0: so that all fill half of the positions (default 0)",
    )


def read_memory(args) -> MemoryOptions:
    """What these flags say.  `UserError` names the flag."""
    fields = dict(kind=args.memory, dtype=args.latents_as, pages=args.pages, span=args.span)
    return checked_options(MemoryOptions, argparse.Namespace(**fields))


def run(args) -> int:
    """Streams the text, or prints it as JSON once it is whole."""
    args.memory = read_memory(args)
    options = checked_options(GenerateOptions, args)
    if args.context == args.prompt == "-":
        raise UserError("standard input is either --context or the prompt: name a file for one")
    if args.context is None and (options.memory.pages_in or args.keep_memory):
        raise UserError("--memory keeps what goes before the prompt: name a text with --context")
    if args.keep_memory and not options.memory.pages_in:
        raise UserError("--keep-memory stores what --memory latents or ids keeps: give --memory")
    stored = args.context is not None and os.path.isfile(os.path.join(args.context, MEMORY))
    if args.context is not None and not stored:
        checked(args.context)
    files = BankFolder(args.bank)
    if "lm" not in files.index:
        raise UserError(NO_LMS)
    if args.expert not in (AUTO, SEED_NAME):
        files.expert(args.expert)
    prompt = "".join(text_of("-")) if args.prompt == "-" else args.prompt
    start_jax()
    from cr_jax.bank import ExpertBank
    from cr_jax.modular.generate import generate

    if args.keep_memory:
        from cr_jax.modular.memory_file import check_place

        check_place(args.keep_memory)
    if args.expert == AUTO or options.memory.pages_in:
        bank = ExpertBank.load(args.bank, lms=False)  # they are read when they are to speak
    else:
        bank = ExpertBank.load(args.bank, [] if args.expert == SEED_NAME else [args.expert])
    context = None
    if stored:
        from cr_jax.modular.memory_file import load

        context = load(args.context, bank)
    elif args.context is not None:
        context = text_of(args.context)
    speech = generate(bank, prompt, options, context=context)
    if args.keep_memory:
        from cr_jax.modular.memory_file import save

        save(speech.memory, args.keep_memory)
    if args.json:
        for _ in speech:
            pass
        print_line(json.dumps({"prompt": prompt, **speech.to_json()}, allow_nan=False))
        return 0
    _tell(speech)
    _stream(speech, args)
    return 0


def checked_options(kind: type, args) -> Any:
    """Options out of flags of the same names.  `UserError` names the flag."""
    names = [f.name for f in dataclasses.fields(kind)]
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    try:
        return kind(**values)
    except UserError as error:
        flag = lambda found: f"--{found[1].replace('_', '-')} {found[2]}"
        raise UserError(re.sub(rf"^({'|'.join(names)})=(\S+)", flag, str(error))) from None


def _tell(speech) -> None:
    decision = speech.decision
    if speech.memory is not None:
        complain(f"memory: {speech.memory}")
    if decision.known is False:
        complain(f"{decision.reason}; {' and '.join(decision.experts)} speaks")
    if speech.unseen and speech.memory is None:
        complain(
            f"the prompt's first {speech.unseen} of {speech.prompt_tokens} tokens are not seen: a "
            f"model sees at most {speech.positions} positions (--positions)"
        )


def _stream(speech, args) -> None:
    from cr_jax.cli.explanation import colours

    terminal, coloured = sys.stdout.isatty(), colours(args.color) != "plain"
    inks: dict[str, int] = {}
    ended, said = True, None
    for piece in speech:
        # A model may say anything: it must not steer the terminal.
        text = STEERING.sub("\ufffd", piece.text) if terminal else piece.text
        if args.show_experts:
            ink = inks.setdefault(piece.expert, _INKS[len(inks) % len(_INKS)])
            span = speech.spans[-1].decision
            if span is not said or piece.changed:
                label = printable(f"[{piece.expert}: {span.reason}]")
                sys.stdout.write(("" if ended else "\n") + _painted(label, 2, coloured) + "\n")
                said, ended = span, True
            text_out = _painted(text, ink, coloured)
        else:
            text_out = text
        sys.stdout.write(text_out)
        sys.stdout.flush()
        ended = text.endswith("\n") if text else ended
    if not ended:
        print_line("")


def _painted(text: str, code: int, coloured: bool) -> str:
    """The reset comes before a line's end: a coloured line end would fill the whole line."""
    if not coloured:
        return text
    return "\n".join(f"\x1b[{code}m{line}\x1b[0m" if line else "" for line in text.split("\n"))
