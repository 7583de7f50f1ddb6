"""Sixty-four narrow domains, cut from nineteen of configs/bank.py by author, package or source.

    python -m benchmarks.bank.subdomains --data DATA --out NARROW
    python main.py --config=configs/bank.py:narrow64 --config.data.root=NARROW --workdir=...

NARROW gets NAME/train.jsonl, valid.jsonl and test.jsonl of each.  The logs are left out.  Documents
(files, chapters, articles) of one domain are divided 80/10/10 by a hash of file and line: unlike
the twenty domains, train and test share authors and packages.  What a bank of 64 is for: whether a
cascade still finds the exact winner among experts this near.
"""

import argparse
import contextlib
import fnmatch
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.results import check_folder, writing
from cr_jax.data.records import json_lines
from cr_jax.data.sources import SPLITS, split_of
from cr_jax.errors import UserError

# domain of configs/bank.py -> key of its records -> name: pattern of the key's value
TABLE = {
    "code_c": (
        "path",
        {
            "media": "*/drivers/media/*",
            "pinctrl": "*/drivers/pinctrl/*",
            "sound": "*-6.1/sound/*",
            "powerpc": "*/arch/powerpc/*",
            "mips": "*/arch/mips/*",
            "fs": "*-6.1/fs/*",
            "net": "*-6.1/net/*",
        },
    ),
    "code_go": (
        "path",
        {
            "compile": "src/cmd/compile/*",
            "runtime": "src/runtime/*",
            "net": "src/net/*",
            "test": "test/*",
        },
    ),
    "code_java": (
        "path",
        {
            "base": "java.base/*",
            "desktop": "java.desktop/*",
            "localedata": "jdk.localedata/*",
            "xml": "java.xml/*",
            "compiler": "jdk.compiler/*",
        },
    ),
    "code_js": (
        "source",
        {
            "babylon": "npm babylonjs-core",
            "cesium": "npm cesium-engine",
            "three": "npm three",
            "mathjs": "npm mathjs",
            "ace": "npm ace-builds",
            "aws": "npm aws-sdk",
        },
    ),
    "code_python": (
        "repo",
        {
            n: n
            for n in (
                "torch",
                "transformers",
                "homeassistant",
                "sympy",
                "scipy",
                "ray",
                "pandas",
                "pyscf",
                "statsmodels",
            )
        }
        | {"cinder": "openstack/cinder"},
    ),
    "code_rust": (
        "path",
        {
            "compiler": "compiler/*",
            "test": "src/test/*",
            "clippy": "src/tools/clippy/*",
            "library": "library/*",
        },
    ),
    "lang_de": ("group", {n: n + "*" for n in ("freytag", "keller", "may")}),
    "lang_fr": ("source", {"littre": "Littr*"}),
    "lang_ru": ("group", {n.lower(): n + "*" for n in ("Dostoevsky", "Tolstoy", "Gorky")}),
    "lang_zh": ("group", {"tang": "全唐诗*", "song": "宋词*"}),
    "legal": ("source", {"law": "*"}),
    "literature": ("group", {n: n + "*" for n in ("dickens", "hardy", "cooper")}),
    "math": ("source", {"school": "*"}),
    "medical": ("source", {"questions": "MedQuAD", "biology": "MTL-*"}),
    "news": ("source", {"reuters": "Reuters*", "bbc": "BBC*", "abc": "ABC*"}),
    "scientific": ("source", {"stacks": "stacks/*", "logic": "OpenLogic*", "napkin": "*/napkin"}),
    "social": (
        "source",
        {"irc": "Ubuntu/Linux IRC*", "reviews": "movie_reviews*", "webtext": "NLTK webtext"},
    ),
    "tech_docs": ("source", {"microsoft": "MicrosoftDocs/*", "linux": "Linux docs"}),
    "wiki": ("source", {"articles": "*"}),
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, help="data.root of configs/bank.py")
    p.add_argument("--out", required=True, help="data.root of configs/bank.py:narrow64")
    a = p.parse_args(arguments)
    try:
        make(Path(a.data), Path(a.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(data: Path, out: Path) -> None:
    """Writes OUT, all of it or nothing.

    Raises `UserError` for a folder without text, a domain without a document of some split, and
    an OUT that has something in it or cannot be written.
    """
    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out: {out} is not empty; give another folder")
    beside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with writing(out):
            for domain, (key, patterns) in TABLE.items():
                deal(data / domain, key, {f"{domain}_{n}": p for n, p in patterns.items()}, beside)
            if out.exists():
                out.rmdir()
            beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def deal(folder: Path, key: str, patterns: Mapping[str, str], out: Path) -> None:
    """Writes each document of a wide domain to the narrow ones whose pattern its `key` matches."""
    counts = {(n, s): 0 for n in patterns for s in SPLITS}
    with contextlib.ExitStack() as opened:
        files = {}
        for name, split in counts:
            place = out / name / f"{split}.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            files[name, split] = opened.enter_context(place.open("w", encoding="utf-8"))
        for line, record in records(folder):
            value, split = str(record.get(key, "")), split_of(line)
            for name, pattern in patterns.items():
                if fnmatch.fnmatchcase(value, pattern):
                    print(
                        json.dumps({"text": record["text"], "group": line}), file=files[name, split]
                    )
                    counts[name, split] += 1
    for (name, split), count in counts.items():
        if not count:
            raise UserError(
                f"{folder}: {name} has no document for {split}; change its pattern in subdomains.py"
            )


def records(folder: Path) -> Iterator[tuple[str, Mapping]]:
    """(file:line, record) of the training files."""
    files = sorted(folder.glob("train*.jsonl*"))
    if not files:
        raise UserError(f"--data: no train*.jsonl in {folder}")
    for path in files:
        for number, record in json_lines(path):
            yield f"{path.name}:{number}", record


if __name__ == "__main__":
    sys.exit(main())
