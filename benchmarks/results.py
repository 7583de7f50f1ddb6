"""The results file: rows merged as they come, with the command, commit and versions behind them."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cr_jax.errors import UserError, complain

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Results:
    """Rows so far; `add` merges a record and rewrites the file at once."""

    def __init__(self, path: str, command: str):
        self.path = path
        self.data = {
            "rows": [],
            "torch_ratio_87m": None,
            "torch_ratios": {},
            "trials": [],
            "skipped": [],
            "breakdown": [],
            "pieces": [],
            "notes": [],
            "command": command,
            "commit": commit(),
            "versions": versions(),
            "host": platform.machine(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def add(self, kind: str, record: dict) -> None:
        """kind: row, skipped, note, breakdown, pieces."""
        if kind == "row":
            self.data["trials"].append(record)
            self._settle()
        elif kind == "note":
            self.data["notes"].append(record["text"])
        else:
            self.data[kind].append(record)
        if self.path:
            write(self.path, json.dumps(self.data, indent=1) + "\n")

    def _settle(self) -> None:
        # One denominator for all: the fastest large product that any process of this run measured.
        trials = self.data["trials"]
        peak = max(t["process_matmul_tflops"] for t in trials)
        best = {}
        for t in trials:
            t["peak_tflops_measured"], t["mfu"] = peak, t["tflops"] / peak
            key = (t["model"], t["framework"], t["optimizer"], t.get("kernels"))
            if key not in best or t["tokens_per_s"] > best[key]["tokens_per_s"]:
                best[key] = t
        self.data["rows"] = list(best.values())
        ratios = {}
        for (model, framework, optimizer, _), t in best.items():
            peer = best.get((model, "torch", "adamw", None))
            if framework == "jax" and peer:
                found, rate = ratios.setdefault(model, {}), t["tokens_per_s"]
                found[optimizer] = max(rate / peer["tokens_per_s"], found.get(optimizer, 0.0))
        self.data["torch_ratios"] = ratios
        # Like against like: AdamW on both sides.
        self.data["torch_ratio_87m"] = ratios.get("87m", {}).get("adamw")


def answered(
    module: str, run: Callable[..., Any], args: Any, argv: Sequence[str] | None = None
) -> int:
    """Calls `run(args, command)` for `python -m MODULE ARGV`; -> the exit status.  Bad input is one
    line on stderr and 2."""
    given = sys.argv[1:] if argv is None else argv
    try:
        run(args, shlex.join(["python", "-m", module, *given]))
    except UserError as error:
        return complain("error", error)
    return 0


def write(path: str, text: str) -> None:
    """Writes beside the file first, so that a reader never sees half of it."""
    target = pathlib.Path(path)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(target.name + ".part")
        beside.write_text(text)
        os.replace(beside, target)


def written(path: str) -> dict:
    """What the file of results holds already; {} where it is not there.  `UserError` for no JSON
    object."""
    try:
        old = json.loads(pathlib.Path(path).read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(old, dict):
        raise UserError(f"{path} is no JSON object: write to another file")
    return old


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[None]:
    """A disk that refuses while `path` is written: `OSError` becomes `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another path") from error


def check_folder(path: str | pathlib.Path) -> None:
    """`UserError` unless `path` is a folder that can be written to or made; makes nothing."""
    path = pathlib.Path(path)
    there = next(p for p in (path, *path.absolute().parents) if os.path.exists(p))
    if not there.is_dir():
        raise UserError(f"cannot write {path}: {there} is no folder; choose another path")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: {there} is read-only; choose another path")


def commit() -> str | None:
    """The checkout's commit, `-dirty` when the tree differs from it; in a copy without git what the
    variable CR_JAX_COMMIT says, or None."""
    git = lambda *words: subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("CR_JAX_COMMIT") or None


def versions() -> dict[str, str]:
    """Installed versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for name in (
        "jax",
        "jaxlib",
        "jax-cuda13-plugin",
        "flax",
        "optax",
        "torch",
        "triton",
        "nvidia-cudnn-cu13",
        "numpy",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
