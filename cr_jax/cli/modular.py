"""`cr-jax modular`: text without labels in parts, for experts that need no names."""

import contextlib
import json

from cr_jax.bank import pretrained
from cr_jax.cli.inputs import path
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import print_line, printable
from cr_jax.errors import UserError

EPILOG = """\
  cr-jax modular partition --parts 8 --out parts "jsonl:a.jsonl#content" files:notes
  cr-jax modular partition --parts 20 --out parts --tokens tokens

Documents go to the part whose bigram model writes them down in the fewest bits, as far as parts
stay of equal size; then the parts' models are counted again.  Each round prints its code length.
DIR gets part-00.jsonl, part-01.jsonl, ... with {"text", "origin", "group"} of each document, and
parts.json with sizes and rounds.  A part is a source like any other:
  domain(train="jsonl:DIR/part-00.jsonl@train", valid="jsonl:DIR/part-00.jsonl@valid", ...)
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax modular partition`."""
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="a source spec, as in configs")
    parser.add_argument("--tokens", metavar="FOLDER", type=path, help="split a token folder's text")
    parser.add_argument("--parts", required=True, metavar="K", help="how many parts, 2 or more")
    parser.add_argument("--out", required=True, metavar="DIR", type=path, help="a new folder")
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        type=path,
        help="a tokenizer's folder, or `bytes` (default: that of the bank that ships with cr_jax)",
    )
    parser.add_argument("--rounds", default="8", metavar="N", help="at most so many (default: 8)")
    parser.add_argument("--seed", default="0", metavar="N", help="of the random start (default: 0)")
    parser.add_argument(
        "--slack", default="0.05", metavar="X", help="parts may be larger by this share (0.05)"
    )
    parser.add_argument("--json", action="store_true", help="print parts.json and nothing else")


def partition(args) -> int:
    """Writes the parts; one line per round and part."""
    numbers = {
        "parts": _number(args.parts, "--parts", int),
        "rounds": _number(args.rounds, "--rounds", int),
        "seed": _number(args.seed, "--seed", int),
        "slack": _number(args.slack, "--slack", float),
    }
    if bool(args.sources) == bool(args.tokens):
        raise UserError("give source specs or --tokens FOLDER, and not both")
    if args.tokens and args.tokenizer:
        raise UserError("--tokens has its own tokenizer: leave --tokenizer out")
    start_jax()
    from cr_jax.modular import part_files
    from cr_jax.modular.partition import PartitionOptions

    options = PartitionOptions(**numbers)
    part_files.free_place(args.out)
    with contextlib.ExitStack() as stack:
        text = stack.enter_context(
            part_files.text_of_tokens(args.tokens)
            if args.tokens
            else part_files.text_of_sources(args.sources, _tokenizer(args.tokenizer))
        )
        tell = (lambda line: None) if args.json else print_line
        record = part_files.write_parts(text, args.out, options, tell)
    if args.json:
        print_line(json.dumps(record))
        return 0
    for part in record["parts"]:
        print_line(
            f"{printable(args.out)}/{part['file']}: {part['documents']:,} documents, "
            f"{part['tokens']:,} tokens"
        )
    return 0


def _tokenizer(folder: str | None):
    from cr_jax.data import ByteTokenizer, load_tokenizer

    if folder == "bytes":
        return ByteTokenizer()
    return load_tokenizer(folder or pretrained.folder() / "tokenizer")


def _number(text: str, flag: str, kind):
    """`UserError` unless the text is a number of the kind, of at most nine digits."""
    try:
        value = kind(text[:24])
        if len(text) > 24 or not 0 <= value < 10**9:
            raise ValueError
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{flag}={printable(text[:40])} must be {what} from 0 on") from None
    return value
