"""The settings file of `--config`: looked at before it is run, blamed by name when it fails."""

import ast
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from cr_jax.errors import UserError
from cr_jax.host.files import expanded

_PACKAGE = Path(__file__).resolve().parents[1]
_LOADED = "config_config"  # the name under which ml_collections loads the file of --config


def config_files(argv: Sequence[str]) -> Iterator[str]:
    """FILE or FILE:VARIANT of every `--config` among the arguments."""
    for i, word in enumerate(argv):
        name, equals, value = word.lstrip("-").partition("=")
        if word == "--":
            return
        if word.startswith("-") and name == "config" and (equals or i + 1 < len(argv)):
            yield value if equals else argv[i + 1]


def with_homes(argv: Sequence[str]) -> list[str]:
    """The arguments with `~` expanded in every `--config` and `--workdir`, as shells do for a word
    of its own.  `UserError` as in `cr_jax.host.files.expanded`.
    """
    words, due = [], False
    for word in argv:
        name, equals, value = word.partition("=")
        plain = name.lstrip("-") in ("config", "workdir") and name.startswith("-")
        if plain and equals and value.startswith("~"):
            word = f"{name}={expanded(value)}"
        elif due and word.startswith("~"):
            word = str(expanded(word))
        due = plain and not equals
        words.append(word)
    return words


def with_shipped(argv: Sequence[str]) -> list[str]:
    """The arguments with the package's own file for a `--config=configs/NAME.py` that is not here:
    a wheel holds the files of `configs/`, so that they need no checkout.
    """
    words, due = [], False
    for word in argv:
        name, equals, value = word.partition("=")
        plain = name in ("-config", "--config")
        if plain and equals:
            word = f"{name}={_shipped(value)}"
        elif due:
            word = _shipped(word)
        due = plain and not equals
        words.append(word)
    return words


def _shipped(given: str) -> str:
    path, colon, variant = given.partition(":")
    if not path.startswith("configs/") or os.path.lexists(path):
        return given
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):  # a wheel, a checkout
        if os.path.isfile(folder / path.removeprefix("configs/")):
            return f"{folder / path.removeprefix('configs/')}{colon}{variant}"
    return given


def check_file(given: str) -> None:
    """`UserError` unless FILE[:VARIANT] is Python with a `get_config` that takes the variant.

    Nothing of the file is run: another script would do what it does.
    """
    path, colon, _ = given.partition(":")
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except OSError as error:
        raise UserError(
            f"--config={path} cannot be read ({error.strerror}): name a file in configs/"
        ) from error
    except SyntaxError as error:
        line = f" (line {error.lineno}: {error.msg})" if error.lineno else ""
        raise UserError(f"--config={path} is not Python{line}: name a file in configs/") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"--config={path} is not Python: name a file in configs/") from error
    made = {name: node for node in tree.body for name in _names(node)}
    getter = made.get("get_config")
    if getter is None:
        raise UserError(
            f"--config={path} has no get_config() and so is no file of settings: name "
            "one in configs/"
        )
    if isinstance(getter, ast.FunctionDef) and colon:
        takes = getter.args
        if not (takes.posonlyargs or takes.args or takes.vararg):
            raise UserError(f"--config={given}: {path} has no variants; write --config={path}")


def blame(given: str, error: BaseException) -> str | None:
    """What went wrong inside FILE[:VARIANT], in one line; None when the file is not to blame.

    A KeyError for the variant itself is an unknown variant; a file lists those it has in a
    mapping `VARIANTS`.
    """
    path, colon, variant = given.partition(":")
    cause: BaseException | None = error
    while cause is not None and not _passes(cause, path):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if colon and isinstance(cause, KeyError) and cause.args == (variant,):
        known = getattr(sys.modules.get(_LOADED), "VARIANTS", None)
        there = f"; there are: {', '.join(map(str, known))}" if known else ""
        return f"--config={given}: {path} has no variant {variant!r}{there}"
    kind = "" if isinstance(cause, UserError) else f"{type(cause).__name__}: "
    return f"--config={given}: {kind}{' '.join(str(cause).split())}"


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom | ast.Import):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _passes(error: BaseException, path: str) -> bool:
    """Whether the error came through the file."""
    frames = (f.f_code.co_filename for f, _ in traceback.walk_tb(error.__traceback__))
    return any(os.path.abspath(name) == os.path.abspath(path) for name in frames)
