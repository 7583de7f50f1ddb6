"""Sixty-four narrow domains, cut from nineteen of configs/bank.py by author, package or source.

    python -m benchmarks.bank.subdomains --data DATA --tokenizer TOKENS/tokenizer --out TOKENS64

TOKENS64 is what `benchmarks.bank.run` takes, as `inputs.py` writes it, with the sets valid/NAME and
test/NAME alone.  The logs are left out.  Documents (files, chapters, articles) of one domain are
divided 80/10/10 by a hash of file and line: unlike the twenty domains, train and test share authors
and packages.  What a bank of 64 is for: whether a cascade still finds the exact winner among
experts this near.
"""

import argparse
import fnmatch
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.bank.inputs import write_sets
from benchmarks.record import tokens
from cr_jax.data import Tokenizer, Windows, load_tokenizer
from cr_jax.data.records import json_lines
from cr_jax.data.sources import split_of
from cr_jax.errors import UserError

WINDOW = 512  # tokens
# domain of configs/bank.py -> key of its records -> name: pattern of the key's value
TABLE = {
    "code_c": ("path", {
        "media": "*/drivers/media/*", "pinctrl": "*/drivers/pinctrl/*", "sound": "*-6.1/sound/*",
        "powerpc": "*/arch/powerpc/*", "mips": "*/arch/mips/*", "fs": "*-6.1/fs/*",
        "net": "*-6.1/net/*"}),
    "code_go": ("path", {"compile": "src/cmd/compile/*", "runtime": "src/runtime/*",
                         "net": "src/net/*", "test": "test/*"}),
    "code_java": ("path", {"base": "java.base/*", "desktop": "java.desktop/*",
                           "localedata": "jdk.localedata/*", "xml": "java.xml/*",
                           "compiler": "jdk.compiler/*"}),
    "code_js": ("source", {"babylon": "npm babylonjs-core", "cesium": "npm cesium-engine",
                           "three": "npm three", "mathjs": "npm mathjs", "ace": "npm ace-builds",
                           "aws": "npm aws-sdk"}),
    "code_python": ("repo", {n: n for n in ("torch", "transformers", "homeassistant", "sympy",
                                            "scipy", "ray", "pandas", "pyscf", "statsmodels")}
                    | {"cinder": "openstack/cinder"}),
    "code_rust": ("path", {"compiler": "compiler/*", "test": "src/test/*",
                           "clippy": "src/tools/clippy/*", "library": "library/*"}),
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
    "social": ("source", {"irc": "Ubuntu/Linux IRC*", "reviews": "movie_reviews*",
                          "webtext": "NLTK webtext"}),
    "tech_docs": ("source", {"microsoft": "MicrosoftDocs/*", "linux": "Linux docs"}),
    "wiki": ("source", {"articles": "*"}),
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, help="data.root of configs/bank.py")
    p.add_argument("--tokenizer", required=True, help="folder of a trained tokenizer")
    p.add_argument("--out", required=True)
    p.add_argument("--train-tokens", type=int, default=800_000, help="per domain, at most")
    p.add_argument("--windows", type=int, default=64, help="per domain and split, at most")
    a = p.parse_args(arguments)
    try:
        make(Path(a.data), load_tokenizer(a.tokenizer), Path(a.out), a.train_tokens, a.windows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(data: Path, tokenizer: Tokenizer, out: Path, train_tokens: int, count: int) -> None:
    """Writes the folder, when all text is there.  Raises `UserError` as the data room does, for a
    domain with less than two windows of a split, or for arguments that allow no more.
    """
    if count < 2 or train_tokens < 2 * WINDOW:
        raise UserError(f"--windows must be at least 2, --train-tokens at least {2 * WINDOW:,}")
    if tokenizer.vocab_size > 1 << 16:
        raise UserError(f"--tokenizer: its {tokenizer.vocab_size:,} ids do not fit into the 16 "
                        "bits of an array; give one of at most 65,536")
    train, sets = {}, {}
    for domain, (key, patterns) in TABLE.items():
        need = {"train": train_tokens, "valid": count * WINDOW, "test": count * WINDOW}
        found = read(data / domain, key, patterns, tokenizer, need)
        for name, rows in found.items():
            full = f"{domain}.{name}"
            lack = [s for s in need if len(rows[s]) < 2 * WINDOW]
            if lack:
                raise UserError(f"{data / domain}: {full} has {len(rows[lack[0]])} tokens for "
                                f"{lack[0]}; change its pattern in subdomains.py")
            train[full] = rows["train"]
            sets |= {f"{s}/{full}": windows(rows[s]) for s in ("valid", "test")}
            print(full, {s: len(x) for s, x in rows.items()}, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for full, ids in train.items():
        np.save(out / f"{full}.train.npy", ids, allow_pickle=False)
    tokenizer.save(out / "tokenizer")
    write_sets(out / "sets.npz", sets)


def read(folder: Path, key: str, patterns: Mapping[str, str], tokenizer: Tokenizer,
         need: Mapping[str, int]) -> dict[str, dict[str, np.ndarray]]:
    """{name: {split: uint16 [T]}}: documents in order, each followed by the end id, T <= need."""
    parts = {n: {s: [] for s in need} for n in patterns}
    for line, record in records(folder):
        value, split = str(record.get(key, "")), split_of(line)
        for name, pattern in patterns.items():
            have = parts[name][split]
            if fnmatch.fnmatchcase(value, pattern) and sum(map(len, have)) < need[split]:
                ids = tokenizer.encode(record["text"])
                have.append(np.append(ids, tokenizer.end_id).astype(np.uint16))
    join = lambda x, n: np.concatenate(x)[:n] if x else np.zeros(0, np.uint16)
    return {n: {s: join(x, need[s]) for s, x in found.items()} for n, found in parts.items()}


def records(folder: Path) -> Iterator[tuple[str, Mapping]]:
    """(file:line, record) of the training files."""
    files = sorted(folder.glob("train*.jsonl*"))
    if not files:
        raise UserError(f"--data: no train*.jsonl in {folder}")
    for path in files:
        for number, record in json_lines(path):
            yield f"{path.name}:{number}", record


def windows(ids: np.ndarray) -> Windows:
    """Consecutive whole windows."""
    rows = tokens.windows(ids, WINDOW, limit=0).astype(np.int32)
    return Windows(rows, np.ones(rows.shape, bool), np.arange(len(rows)))


if __name__ == "__main__":
    sys.exit(main())
