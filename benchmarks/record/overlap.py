"""How much of the held-out text stands word for word in the training text.

    python -m benchmarks.record.overlap --tokens TOKENS --train 'train0*.npy' --out overlap.json

Looks at the windows that the record is scored on, and at every run of `--run` tokens inside them.
Hashes only choose what is compared: a run counts where all its tokens equal those of a training
array.
"""

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt64

from benchmarks.record.tokens import VALID_WINDOWS, array, windows
from benchmarks.results import commit, versions, write
from cr_jax.errors import UserError

WINDOW = 512  # Paper section 1
CHUNK = 1 << 22  # training tokens hashed at once
TABLE_BITS = 27  # 128 MiB of flags; ten million runs fill 7 % of it
COMPARED = 1 << 24  # tokens compared at once
ODD = [np.uint64(v) for v in (0x2545F4914F6CDD1D, 0x9E3779B97F4A7C15)]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse(arguments)
    try:
        rows = measure(args)
        text = json.dumps(
            {
                "rows": rows,
                "window": args.window,
                "command": command(args),
                "commit": args.commit or commit(),
                "numpy": versions()["numpy"],
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            },
            indent=1,
        )
        write(args.out, text + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", required=True, help="folder of token arrays")
    p.add_argument("--train", default="train*.npy", help="training arrays, added one by one")
    p.add_argument("--sets", default="valid,test,wikitext", help="held-out arrays")
    p.add_argument("--run", type=int, nargs="+", default=[32, 64, 128, 512], metavar="TOKENS")
    p.add_argument("--window", type=int, default=WINDOW)
    p.add_argument(
        "--windows",
        type=int,
        default=0,
        help="at most so many of each set, evenly spread; 0: those that run.py scores",
    )
    p.add_argument("--commit", default="", help="of the code, where it runs outside git")
    p.add_argument("--out", default="overlap.json")
    return p.parse_args(arguments)


def command(args: argparse.Namespace) -> str:
    """The command, without the paths of the machine."""
    words = [
        "--train",
        args.train,
        "--sets",
        args.sets,
        "--run",
        *map(str, args.run),
        "--window",
        str(args.window),
        "--windows",
        str(args.windows),
    ]
    return f"python -m benchmarks.record.overlap --tokens TOKENS {shlex.join(words)}"


def measure(args: argparse.Namespace) -> list[dict]:
    """One row for each run length, set and number of training arrays: the first, the first two, ...

    Shares are fractions of 1; `shares` names them.  Raises `UserError`.
    """
    if not all(0 < n <= args.window for n in args.run) or args.windows < 0:
        raise UserError(
            f"--run must be between 1 and --window={args.window}, --windows not negative"
        )
    folder = Path(args.tokens)
    train = [(p.name, ids(p)) for p in sorted(folder.glob(args.train))]
    if not train:
        raise UserError(
            f"--tokens: {folder} has no {args.train}; make it with benchmarks.record.tokens"
        )
    sets = {}
    for name in args.sets.split(","):
        limit = args.windows or VALID_WINDOWS * (name == "valid")
        sets[name] = windows(ids(folder / f"{name}.npy"), args.window, limit)
        if not len(sets[name]):
            raise UserError(f"--sets: {name}.npy is shorter than --window={args.window}")
    together = np.concatenate(list(sets.values()))
    ends = np.cumsum([len(s) for s in sets.values()])[:-1]
    rows = []
    for length in args.run:
        found = np.zeros((len(together), args.window - length + 1), bool)
        for i, (_, tokens) in enumerate(train):
            found |= occurring(together, length, tokens)
            for name, part in zip(sets, np.split(found, ends), strict=True):
                rows.append(
                    {
                        "set": name,
                        "run": length,
                        "train": [n for n, _ in train[: i + 1]],
                        "train_tokens": sum(len(t) for _, t in train[: i + 1]),
                        **shares(part, length),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def ids(path: Path) -> np.ndarray:
    """A token array [T], left on the disk.  Raises `UserError`."""
    tokens = array(path, "r")
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise UserError(f"--tokens: {path} must be one row of token ids")
    return tokens


def shares(found: Bool[np.ndarray, "N P"], run: int) -> dict[str, float]:
    """What stands in the training text, of N windows whose P runs were looked for.

    `runs_found`: share of the `runs`; `tokens_covered`: share of the tokens that lie in a run
    found; `windows_half`: share of the `windows` of which at least half the tokens do.  Not in the
    paper.
    """
    inside = covered(found, run).mean(1)
    return {
        "windows": len(found),
        "runs": found.size,
        "runs_found": float(found.mean()),
        "tokens_covered": float(inside.mean()),
        "windows_half": float((inside >= 0.5).mean()),
    }


def covered(found: Bool[np.ndarray, "N P"], run: int) -> Bool[np.ndarray, "N L"]:
    """Which tokens lie in a run that starts where `found` says; L = P + run - 1."""
    places = found.shape[1]
    change = np.zeros((len(found), places + run), np.int32)
    change[:, :places] += found
    change[:, run:] -= found
    return change.cumsum(1)[:, :-1] > 0


def occurring(
    rows: Integer[np.ndarray, "N L"], run: int, tokens: Integer[np.ndarray, " T"]
) -> Bool[np.ndarray, "N P"]:
    """Whether rows[n, p:p + run] stands anywhere in `tokens`; P = L - run + 1."""
    places = rows.shape[1] - run + 1
    if len(tokens) < run:
        return np.zeros((len(rows), places), bool)
    asked, which = np.unique(keys(rows, run).ravel(), return_inverse=True)
    at = positions(asked, run, tokens)[which]
    found = at >= 0
    here = np.lib.stride_tricks.sliding_window_view(rows, run, axis=1)
    there = np.lib.stride_tricks.sliding_window_view(tokens, run)
    questions, step = np.flatnonzero(found), max(COMPARED // run, 1)
    for part in np.split(questions, range(step, len(questions), step)):
        wanted = here[part // places, part % places]
        same = (wanted == there[at[part]]).all(1)
        # Two runs with one hash: rare, and settled by reading all of the array.
        for i in np.flatnonzero(~same):
            found[part[i]] = contains(tokens, wanted[i])
    return found.reshape(len(rows), places)


def positions(
    asked: UInt64[np.ndarray, " Q"], run: int, tokens: Integer[np.ndarray, " T"]
) -> Integer[np.ndarray, " Q"]:
    """For each of the sorted hashes a place in `tokens` where a run has it, or -1."""
    shift = np.uint64(64 - TABLE_BITS)
    table = np.zeros(1 << TABLE_BITS, bool)
    table[(asked >> shift).astype(np.int64)] = True
    at = np.full(len(asked), -1, np.int64)
    for start in range(0, len(tokens) - run + 1, CHUNK):
        seen = keys(tokens[start : start + CHUNK + run - 1], run)
        likely = np.flatnonzero(table[(seen >> shift).astype(np.int64)])
        place = np.searchsorted(asked, seen[likely])
        place[place == len(asked)] = 0
        hit = asked[place] == seen[likely]
        at[place[hit]] = start + likely[hit]
    return at


def keys(tokens: Integer[np.ndarray, "... T"], run: int) -> UInt64[np.ndarray, "... P"]:
    """A hash of each run of the last axis; equal runs have equal ones.  P = T - run + 1."""
    key, width = (tokens.astype(np.uint64) + np.uint64(1)) * ODD[0], 1
    while width < run:
        step = min(width, run - width)  # the two halves overlap where run is no power of 2
        key = key[..., :-step] * ODD[1] + key[..., step:]
        key ^= key >> np.uint64(29)
        width += step
    return key


def contains(tokens: Integer[np.ndarray, " T"], run: Sequence[int]) -> bool:
    """Whether `run` stands in `tokens`, by comparison alone."""
    at = np.arange(len(tokens) - len(run) + 1)
    for i, token in enumerate(run):
        at = at[tokens[at + i] == token]
    return bool(len(at))


if __name__ == "__main__":
    sys.exit(main())
