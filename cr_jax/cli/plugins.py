"""`--plugin`: a module of one's own that is imported before a bank is read.

It may register bottlenecks (`cr_jax.models.register_bottleneck`), which a bank trained with them
needs to be read.  Importing runs its code, so none is imported that was not named.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from cr_jax.errors import UserError


def add_argument(parser) -> None:
    """The flag, of every command that reads a bank."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module or file.py first (bottlenecks of your own); repeatable",
    )


def load(names: Sequence[str]) -> None:
    """Imports each in turn.  `UserError` for one that is not there or does not run."""
    for name in names:
        try:
            _from_file(Path(name)) if name.endswith(".py") else _by_name(name)
        except UserError as error:
            raise UserError(f"--plugin {name}: {error}") from error
        except Exception as error:  # it is other people's code
            raise UserError(f"--plugin {name}: {type(error).__name__}: {error}") from error


def _by_name(name: str) -> None:
    # The current folder counts while the plugin is imported, and behind all else: a tqdm.py that
    # happens to lie there is nobody's tqdm.
    sys.path.append("")
    try:
        importlib.import_module(name)
    finally:
        if "" in sys.path:
            del sys.path[-1 - sys.path[::-1].index("")]


def _from_file(path: Path) -> None:
    if not path.is_file():
        raise UserError("there is no such file")
    if path.stem in sys.modules:
        raise UserError(f"a module {path.stem} is imported already: give the file another name")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
