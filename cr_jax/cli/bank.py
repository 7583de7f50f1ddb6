"""`cr-jax bank`: list, check, extend or shrink a bank."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from cr_jax.bank.entry_checks import check_own, unused_fits
from cr_jax.bank.files import SEED, BankFolder, consistent
from cr_jax.bank.headers import count_parameters
from cr_jax.bank.manifest import BIGRAM, LM
from cr_jax.cli import bank_exchange, bank_grow, bank_train, fit_cascade
from cr_jax.cli.inputs import path
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import complain, print_line, printable
from cr_jax.errors import MOST, UserError
from cr_jax.host.inside import Inside

EPILOG = """\
A bank is a folder of experts that share one tokenizer and one model shape.

  list         the experts
  verify       compares every byte with the SHA-256 that was stored with it
  train        trains new experts for the bank and adds them
  grow         reads documents and gives domains that no expert knows experts of their own
  add          copies experts into the bank, from an expert's folder, a bank or a run's --workdir
  add-lms      gives the bank's experts the language models of another bank or run, and the bank its
               seed; train them with the bank's tokenizer (config.tokenizer.folder=BANK/tokenizer)
  remove       deletes one expert; the others keep their bytes
  export       writes each expert as a repository for the Hugging Face Hub
  import       makes a bank of such folders, or adds them to one
  fit-cascade  measures how many experts `cr-jax route --cascade` must score, and stores it
"""


def add_arguments(action) -> None:
    """The actions of `cr-jax bank`; `action(name, run, text)` makes the parser of one."""
    listing = action("list", list_experts, "list the experts")
    listing.add_argument("--json", action="store_true", help="one JSON object per expert and line")
    action("verify", verify, "compare every byte with its stored SHA-256")
    bank_train.add_arguments(
        action(
            "train",
            bank_train.run,
            "train new experts for the bank and add them",
            bank_train.EPILOG,
            writes=True,
        )
    )
    bank_grow.add_arguments(
        action(
            "grow",
            bank_grow.run,
            "give domains that no expert knows experts of their own",
            bank_grow.EPILOG,
            writes=True,
        )
    )
    adding = action("add", add, "copy experts into the bank", writes=True)
    adding.add_argument(
        "source",
        metavar="FROM",
        type=path,
        help="an expert's folder (BANK/experts/NAME), a bank, or the --workdir of a run",
    )
    adding.add_argument("--name", metavar="NAME", help="of one expert: its name here")
    adding.add_argument(
        "--expert",
        action="append",
        default=[],
        metavar="NAME",
        help="of a bank or a workdir only this one; may be repeated (default: all)",
    )
    giving = action("add-lms", add_lms, "give its experts language models", writes=True)
    giving.add_argument(
        "source", metavar="FROM", type=path, help="a bank that has them, or the --workdir of a run"
    )
    giving.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="",
        help="of the stored numbers (default: as FROM stores them)",
    )
    removing = action("remove", remove, "delete one expert", writes=True)
    removing.add_argument("name", metavar="NAME")
    bank_exchange.add_export_arguments(
        action(
            "export",
            bank_exchange.export_bank,
            "write its experts for the Hugging Face Hub",
            bank_exchange.EXPORT,
        )
    )
    bank_exchange.add_import_arguments(
        action(
            "import",
            bank_exchange.import_bank,
            "make a bank of exported experts, or add them to one",
            bank_exchange.IMPORT,
            writes=True,
        )
    )
    fit_cascade.add_arguments(
        action(
            "fit-cascade",
            fit_cascade.run,
            "measure how many experts a cascade must score",
            fit_cascade.EPILOG,
            writes=True,
        )
    )


def list_experts(args) -> int:
    """One line per expert."""
    from cr_jax.scoring.wording import wording

    index, rows, seed = consistent(args.bank, _look)
    if args.json:
        try:
            lines = [json.dumps(row, allow_nan=False) for row in rows]
        except ValueError:
            raise UserError(f"the bank {args.bank} has numbers that are no JSON") from None
        for line in lines:
            print_line(line)
        return 0
    model = _sizes(index["model"])
    words = wording(index.get("scoring"))
    tell = lambda line: print_line(printable(line)[:MOST])  # it quotes the bank's JSON
    tell(
        f"{len(rows)} experts; window {model['window']} tokens -> "
        f"{model['latents']} latents of {model['d_latent']}; "
        f"tokenizer {index['tokenizer'][:12]}; a residual is "
        f"{words.cost}" + (f"; ranked with {words.added} added" if words.typicality_weight else "")
    )
    if "lm" in index:
        have = sum(row["lm_parameters"] is not None for row in rows)
        tell(
            f"language models: {have} of {len(rows)} experts; "
            + ("no seed" if seed is None else f"a seed of {seed:,} parameters, for unknown text")
        )
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        lm = row["lm_parameters"]
        size = f"{row['bytes'] / 1e6:8.1f} MB" if row["bytes"] is not None else "missing"
        tell(
            f"{row['name']:{width}}  {row['dtype'] or '?'}  {size}  {row['sha256'][:12]}"
            + ("" if row["bigram"] else "  no bigram model")
            + ("" if lm is None else f"  language model of {lm:,} parameters")
        )
    return 0


def _sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are shown; ? for what is no number."""
    fields = ("window", "latents", "d_latent")
    return {k: x if type(x := model.get(k)) is int and abs(x) < 1 << 62 else "?" for k in fields}


def _look(files: BankFolder) -> tuple[Mapping[str, Any], list[dict[str, Any]], int | None]:
    """bank.json, a row for each expert, and the number of the seed's parameters."""
    rows: list[dict[str, Any]] = []
    for name in files.names:
        folder = files.open_expert(name)
        size = None
        with contextlib.suppress(OSError):
            size = folder.stat("params.safetensors").st_size
        rows.append(
            {
                "name": name,
                "sha256": files.index["experts"][name]["sha256"],
                "bigram": folder.is_file(BIGRAM),
                "lm_parameters": _parameters(folder),
                "dtype": _field(folder, "dtype", str),
                "bytes": size,
                "about": _field(folder, "about", dict),
            }
        )
    return files.index, rows, None if files.seed is None else _parameters(files.inside.folder(SEED))


def _field(folder: Inside, name: str, kind: type) -> Any:
    """Of config.json; None where it is missing.  `UserError` for another type."""
    record = folder.read_json("config.json")
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind | None):
        raise UserError(
            f"{folder.path / 'config.json'}: {name} is {type(value).__name__} and must be "
            f"{kind.__name__}: write the expert again"
        )
    return value


def _parameters(folder: Inside) -> int | None:
    """Of its language model; None where there is none."""
    return count_parameters(folder, LM) if folder.has(LM) else None


def verify(args) -> int:
    """One line per problem on stderr; -> 2 when there is one."""
    files = BankFolder(args.bank)
    problems = files.verify()
    for problem in problems:
        complain(problem)
    if not problems:
        print_line(
            f"{printable(args.bank)}: {len(files.names)} experts, every byte as it was written"
        )
    return 2 if problems else 0


def add(args) -> int:
    """Copies experts into the bank."""
    files = BankFolder(args.bank)
    check_own(args.bank)
    start_jax()
    from cr_jax.bank import import_experts

    notes: list[str] = []
    names = import_experts(args.bank, args.source, args.name, args.expert, notes.append)
    print_line(f"added {', '.join(names)}")
    _tell(notes)
    if line := unused_fits(BankFolder(files.path)):
        print_line(printable(line))
    return 0


def add_lms(args) -> int:
    """Gives the bank's experts the language models of another bank."""
    files = BankFolder(args.bank)
    start_jax()
    from cr_jax.bank import import_lms

    given = import_lms(args.bank, args.source, args.dtype)
    without = [n for n in files.names if n not in given.experts]
    print_line(
        printable(
            f"language models for {', '.join(given.experts) or 'no expert'}"
            + (" and a seed" if given.seed is not None else "")
            + (f"; {args.source} has none for {', '.join(without)}" if without else "")
        )
    )
    return 0


def remove(args) -> int:
    """Deletes one expert."""
    files = BankFolder(args.bank)
    files.remove(args.name)
    print_line(f"removed {args.name}")
    _tell(files.notes)
    return 0


def _tell(notes: list[str]) -> None:
    for note in notes:
        print_line(printable(note))
