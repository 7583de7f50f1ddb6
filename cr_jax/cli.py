"""`cr-jax`: route texts, look at reconstructions, keep a bank.  Flags and printing, no logic.

JAX takes seconds to start, so it is imported only once the arguments are known to be good.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from cr_jax import __version__
from cr_jax.bank_folder import BankFolder, read_json
from cr_jax.errors import UserError

_ABOUT = """\
Every expert is a small autoencoder that learnt to rebuild the texts of one domain.  A text goes
to the expert that rebuilds it with the lowest residual; if even that residual is unusual for the
expert's own domain (its p-value is below alpha), the text is unknown.

  cr-jax route --bank runs/quickstart/bank notes.txt main.py
  cat notes.txt | cr-jax route --bank runs/quickstart/bank --json -
  cr-jax reconstruct --bank runs/quickstart/bank --expert python main.py
  cr-jax bank verify --bank runs/quickstart/bank
"""
_ROUTE = """\
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
_RECONSTRUCT = """\
Prints the text as the expert rebuilds it from its latents.  Wrong tokens are marked: on a
terminal the original struck out in red and the rebuilt in green, elsewhere [-original-]{+rebuilt+}.
The last line has the share of tokens rebuilt exactly (TRA) and the residual in nats/token.
"""
_BANK = """\
A bank is a folder of experts that share one tokenizer and one model shape.

  list     the experts
  verify   compares every byte with the SHA-256 that was stored with it
  add      copies an expert's folder, of another bank for example, into the bank
  remove   deletes one expert; the others keep their bytes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `cr-jax ARGV`; -> 0, 2 after bad input, 130 after Ctrl-C.  Never raises on bad input."""
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        args = _parser().parse_args(argv)
        _prepare()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = args.run(args)
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: --help, --version, a bad flag
        return int(stop.code or 0)
    except UserError as error:
        return _complain(error)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whatever reads us has closed: what is still buffered must not raise again at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _complain("the output was closed before everything was written")


def _parser() -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message):
            self.exit(2, f"cr-jax: {message}; see {self.prog} --help\n")

    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = Parser("cr-jax", description="Route texts to the expert that rebuilds them best.",
                    epilog=_ABOUT, **raw)
    parser.add_argument("--version", action="version", version=f"cr-jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(group, name: str, run: Callable, text: str, epilog: str | None = None):
        made = group.add_parser(name, help=text, description=text, epilog=epilog, **raw)
        made.add_argument("--bank", required=True, metavar="DIR", help="folder with bank.json")
        made.set_defaults(run=run)
        return made

    route = command(commands, "route", _route, "say which expert a text belongs to", _ROUTE)
    route.add_argument("--json", action="store_true", help="one JSON object per file and line")
    route.add_argument("--alpha", type=float, default=0.05, metavar="A",
                       help="a p-value below this is unknown (default 0.05)")
    route.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text; - is standard input")

    rebuild = command(commands, "reconstruct", _reconstruct,
                      "show what an expert makes of a text", _RECONSTRUCT)
    rebuild.add_argument("--expert", required=True, metavar="NAME")
    rebuild.add_argument("file", metavar="FILE", help="UTF-8 text; - is standard input")

    bank = commands.add_parser("bank", help="list, check, extend or shrink a bank",
                               description="Keep a bank of experts.", epilog=_BANK, **raw)
    actions = bank.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = command(actions, "list", _list, "list the experts")
    listing.add_argument("--json", action="store_true", help="one JSON object per expert and line")
    command(actions, "verify", _verify, "compare every byte with its stored SHA-256")
    add = command(actions, "add", _add, "copy an expert's folder into the bank")
    add.add_argument("folder", metavar="EXPERT", help="its folder, as BANK/experts/NAME")
    add.add_argument("--name", metavar="NAME", help="its name here (default: the folder's)")
    command(actions, "remove", _remove, "delete one expert").add_argument("name", metavar="NAME")
    return parser


def _route(args) -> int:
    if not 0 <= args.alpha <= 1:
        raise UserError(f"--alpha is a share and must lie in [0, 1], got {args.alpha}")
    BankFolder(args.bank)
    status, good = 0, []
    for name in args.files:
        try:
            good.append(_checked(name))
        except UserError as error:
            status = _complain(error)
    if not good:
        return status
    _start_jax()
    from cr_jax.bank import ExpertBank
    from cr_jax.data.sources import read_text
    from cr_jax.router import route

    bank = ExpertBank.load(args.bank)
    for name in good:
        try:
            found = route(bank, read_text(name), alpha=args.alpha)
        except UserError as error:
            status = _complain(error)
            continue
        _print(json.dumps({"file": name, "p_value": found.p_values[found.nearest],
                           **found.to_json()}) if args.json else _line(name, found))
    return status


def _line(name: str, found) -> str:
    winner = found.expert or f"unknown (nearest {found.nearest})"
    ranked = sorted(found.residuals.items(), key=lambda pair: pair[1])
    residuals = ", ".join(f"{n} {r:.3f}" for n, r in ranked)
    return (f"{_shown(name)}: {winner}  margin {found.margin:.3f}  "
            f"p {found.p_values[found.nearest]:.3f}  tra {found.tra[found.nearest]:.3f} | "
            f"{residuals}  ({found.windows} windows, {found.tokens} tokens)")


def _reconstruct(args) -> int:
    BankFolder(args.bank).expert(args.expert)
    text = _whole_text(_checked(args.file))
    _start_jax()
    from cr_jax.bank import ExpertBank
    from cr_jax.reconstruction import marked, reconstruct

    bank = ExpertBank.load(args.bank, [args.expert])
    tokens, right, nll = 0, 0, 0.0

    def counted():
        nonlocal tokens, right, nll
        for part in reconstruct(bank, args.expert, text):
            tokens += len(part.tokens)
            right += int((part.tokens == part.rebuilt).sum())
            nll += float(part.nll.sum(dtype=float))
            yield part

    ended = True
    for piece in marked(bank.tokenizer, counted(), sys.stdout.isatty()):
        sys.stdout.write(piece)
        ended = piece.endswith("\n")
    _print(("" if ended else "\n") + f"TRA {100 * right / tokens:.2f} % of {tokens} tokens, "
           f"residual {nll / tokens:.3f} nats/token")
    return 0


def _list(args) -> int:
    files = BankFolder(args.bank)
    model = files.index["model"]
    rows: list[dict[str, Any]] = []
    for name in files.names:
        folder = files.expert(name)
        record = read_json(folder / "config.json")
        record = record if isinstance(record, dict) else {}
        with contextlib.suppress(OSError):
            record["bytes"] = (folder / "params.safetensors").stat().st_size
        rows.append({"name": name, "sha256": files.index["experts"][name]["sha256"],
                     **{k: record.get(k) for k in ("dtype", "bytes", "about")}})
    if args.json:
        for row in rows:
            _print(json.dumps(row))
        return 0
    _print(f"{len(rows)} experts; window {model.get('window')} tokens -> {model.get('latents')} "
           f"latents of {model.get('d_latent')}; tokenizer {files.index['tokenizer'][:12]}")
    width = max(map(len, files.names), default=0)
    for row in rows:
        size = f"{row['bytes'] / 1e6:8.1f} MB" if row["bytes"] is not None else "missing"
        _print(f"{row['name']:{width}}  {row['dtype'] or '?'}  {size}  {row['sha256'][:12]}")
    return 0


def _verify(args) -> int:
    files = BankFolder(args.bank)
    problems = files.verify()
    for problem in problems:
        _complain(problem)
    if not problems:
        _print(f"{_shown(args.bank)}: {len(files.names)} experts, every byte as it was written")
    return 2 if problems else 0


def _add(args) -> int:
    BankFolder(args.bank)
    _start_jax()
    from cr_jax.bank import import_expert

    _print(f"added {import_expert(args.bank, args.folder, args.name)}")
    return 0


def _remove(args) -> int:
    BankFolder(args.bank).remove(args.name)
    _print(f"removed {args.name}")
    return 0


def _checked(name: str) -> str:
    """`name`; `UserError` for what its first 2 MB show: missing, a folder, empty, not text."""
    from cr_jax.data.sources import read_text

    pipe = os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)
    if name != "-" and not pipe:  # a pipe can be read only once
        for _ in itertools.islice(read_text(name), 2):
            pass
    return name


def _whole_text(name: str):
    """The text in pieces, once all of it is known to be good: nothing is shown of a bad file."""
    from cr_jax.data.sources import read_text

    if not os.path.isfile(name):
        return list(read_text(name))
    for _ in read_text(name):
        pass
    return read_text(name)


def _prepare() -> None:
    """Before JAX is imported: quiet, and what it compiles is kept in the user's cache."""
    if "jax" in sys.modules:  # a caller's process: its settings are its own
        return
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for name, value in {
        "JAX_COMPILATION_CACHE_DIR": os.path.join(cache, "cr-jax", "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("jax").setLevel(logging.CRITICAL)


def _start_jax() -> None:
    """`UserError` in one line when JAX finds no device to run on."""
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        where = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX cannot start (JAX_PLATFORMS={where!r}): "
                        f"{str(error).splitlines()[0]}; try JAX_PLATFORMS=cpu") from error


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(message: object) -> int:
    with contextlib.suppress(OSError):
        print("cr-jax:", " ".join(str(message).split("\n")), file=sys.stderr)
    return 2


def _shown(name: str) -> str:
    """A file's name on one line and without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)

