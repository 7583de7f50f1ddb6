"""Token arrays of the record: train00.npy ..., valid.npy, test.npy and wikitext.npy.

    python -m benchmarks.record.tokens --data DATA --gpt2 FOLDER --out TOKENS

DATA/code_python has train*.jsonl, valid.jsonl and test.jsonl, split by package; DATA/wikitext has
valid.jsonl (WikiText-2 in its tokenised form); each also as .zst, .xz or .gz.  FOLDER has GPT-2's
encoder.json and vocab.bpe.  Every array is one row of ids, uint16, each document followed by the
end id 50256; one training file makes one array.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from cr_jax.data import Gpt2Tokenizer, documents
from cr_jax.errors import UserError

VALID_WINDOWS = 2048  # 1,048,576 tokens, evenly spread
WRITTEN = ("train*.npy", "valid.npy", "test.npy", "wikitext.npy")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, help="folder with code_python/ and wikitext/")
    p.add_argument("--gpt2", required=True, help="folder with encoder.json and vocab.bpe")
    p.add_argument("--out", required=True, help="folder that the arrays are written to")
    a = p.parse_args(arguments)
    try:
        make(Path(a.data), Gpt2Tokenizer(a.gpt2), Path(a.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(data: Path, tokenizer: Gpt2Tokenizer, out: Path) -> None:
    """Writes the arrays below `out`, each beside its place first.

    Raises `UserError` when a file is missing or damaged, when `out` already holds arrays (a left
    training file would join the new ones) or cannot be written.
    """
    jobs = {
        f"train{i:02d}": path for i, path in enumerate(found(data / "code_python", "train*.jsonl*"))
    }
    for name, folder, stem in (
        ("valid", "code_python", "valid"),
        ("test", "code_python", "test"),
        ("wikitext", "wikitext", "valid"),
    ):
        matches = found(data / folder, f"{stem}.jsonl*")
        if len(matches) > 1:
            raise UserError(f"{data / folder} has {len(matches)} files {stem}.jsonl*; leave one")
        jobs[name] = matches[0]
    left = [p.name for pattern in WRITTEN for p in sorted(out.glob(pattern))]
    if left:
        raise UserError(f"{out} already has {left[0]}; give an empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, path in jobs.items():
            ids = token_row(path, tokenizer)
            beside = out / f"{name}.npy.part"
            with open(beside, "wb") as file:
                np.save(file, ids)
            os.replace(beside, out / f"{name}.npy")
            print(f"{name:10s} {len(ids):12,d} tokens", flush=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another folder") from error


def found(folder: Path, pattern: str) -> list[Path]:
    """Sorted files.  Raises `UserError` when there is none."""
    matches = sorted(folder.glob(pattern))
    if not matches:
        raise UserError(
            f"no {pattern} in {folder}; the docstring of tokens.py says what belongs there"
        )
    return matches


def token_row(path: Path, tokenizer: Gpt2Tokenizer) -> np.ndarray:
    """uint16 [T]: the file's documents in order, each followed by the end id."""
    end = np.array([tokenizer.end_id], np.uint16)
    parts = [
        part
        for document in documents(f"jsonl:{path}")
        for part in (tokenizer.encode(document.text).astype(np.uint16), end)
    ]
    if not parts:
        raise UserError(f"no text in {path}")
    return np.concatenate(parts)


def array(path: Path, mode: str | None = None) -> np.ndarray:
    """A row of token ids [T].  Raises `UserError`."""
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError):
        raise UserError(
            f"--tokens: cannot read {path}; make it with benchmarks.record.tokens"
        ) from None


def windows(tokens: np.ndarray, length: int, limit: int) -> np.ndarray:
    """Consecutive windows [N, L], or `limit` of them evenly spread."""
    count = len(tokens) // length
    return spread(tokens[: count * length].reshape(count, length), limit)


def spread(rows: np.ndarray, limit: int) -> np.ndarray:
    """`limit` rows from the first to the last; all of them when there are no more, or at 0."""
    count = len(rows)
    return rows[np.linspace(0, count - 1, limit).astype(int)] if 0 < limit < count else rows


if __name__ == "__main__":
    sys.exit(main())
