"""Sizes that say how hard the code is to enter -> results/house.json.

    python -m benchmarks.house --suite-s 330 --fast-lane-s 55 --tokenize 16=22145704

Counted from the files: entries of cr_jax/, layers of the import linter, lines of router.py and of
README.md, lines of Python by folder now and at --before, most arguments of a public function, and
modules that apply optimiser updates.  Times are measured elsewhere and given.
"""

import argparse
import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cr_jax.training.workdir import provenance

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "6482f1c"  # the last commit before the packages
FOLDERS = ("cr_jax", "tests", "benchmarks")


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--suite-s", type=float, help="seconds of all tests on 2 cores")
    p.add_argument("--fast-lane-s", type=float, help="seconds of the fast lane on 2 cores")
    p.add_argument("--tokenize", nargs="*", default=[], metavar="CORES=TOKENS_PER_S")
    p.add_argument("--before", default=BEFORE, help="commit to compare the lines with")
    p.add_argument("--out", default=str(ROOT / "results" / "house.json"))
    args = p.parse_args(argv)
    most, where = max_arguments()
    found = {
        "entries": len(entries()),
        "linter_lines": len(layers()),
        "router_lines": lines(ROOT / "cr_jax" / "router.py"),
        "readme_lines": lines(ROOT / "README.md"),
        "loc": {name: sum(map(lines, python(name))) for name in FOLDERS},
        "loc_before": {name: lines_at(args.before, name) for name in FOLDERS},
        "suite_s": args.suite_s,
        "fast_lane_s": args.fast_lane_s,
        "max_arguments": most,
        "max_arguments_of": where,
        "training_loops": updates(),
        "tokenize_tokens_per_s": {
            cores: float(rate) for cores, _, rate in (x.partition("=") for x in args.tokenize)
        },
        "provenance": {k: v for k, v in provenance().items() if k in ("commit", "versions")},
        "command": " ".join(["python -m benchmarks.house", *(argv or sys.argv[1:])]),
    }
    Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k != "provenance"}, indent=1))
    return 0


def entries() -> list[str]:
    """Names in cr_jax/ that are in git, but dunder ones."""
    listed = git("ls-files", "cr_jax").splitlines()
    return sorted({name.split("/")[1] for name in listed} - {"__init__.py"})


def layers() -> list[str]:
    """The layers of the import linter."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        (contract,) = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    return contract["layers"]


def python(folder: str) -> list[Path]:
    """Python files of a folder that are in git."""
    return [ROOT / name for name in git("ls-files", f"{folder}/*.py").splitlines()]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def lines_at(commit: str, folder: str) -> int:
    """Lines of Python of a folder at a commit."""
    names = git("ls-tree", "-r", "--name-only", commit, folder).splitlines()
    return sum(
        len(git("show", f"{commit}:{name}").splitlines()) for name in names if name.endswith(".py")
    )


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions and methods that callers may use; not those inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name == "__init__"
        ):
            yield node


def max_arguments() -> tuple[int, list[str]]:
    """The most arguments of a public function of cr_jax, without self; and where."""
    counts: dict[int, list[str]] = {}
    for path in python("cr_jax"):
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            given = function.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len(set(names) - {"self", "cls"})
            counts.setdefault(count, []).append(
                f"{path.relative_to(ROOT).as_posix()}:{function.name}"
            )
    return max(counts), counts[max(counts)]


def updates() -> list[str]:
    """Modules of cr_jax and benchmarks that apply optimiser updates."""
    return [
        path.relative_to(ROOT).as_posix()
        for folder in ("cr_jax", "benchmarks")
        for path in python(folder)
        if any(
            isinstance(node, ast.Attribute) and node.attr == "apply_updates"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
