"""Everything that a bank of experts is trained and judged on, as token arrays in one folder.

    python -m benchmarks.bank.inputs --config configs/bank.py --data DATA --out TOKENS

TOKENS gets NAME.train.npy (one row of ids per domain, cut to --train-tokens), sets.npz (windows to
score) and tokenizer/.  Text is tokenised once; the device that trains needs neither it nor the
sources.  Sets, by key: valid/NAME, test/NAME, cutN/NAME and validcutN/NAME (cut to N tokens; valid
ones are what a rule is calibrated on at that length), doc/NAME and validdoc/NAME (whole documents),
attack/KIND, blend/A.B.LAYOUT.PERCENT, unseen/random_tokens.
"""

import argparse
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.record.run import load
from benchmarks.results import check_folder, writing
from cr_jax.config import build
from cr_jax.data import (
    Corpus,
    Tokenizer,
    Windows,
    experiment_text,
    load_corpus,
    load_tokenizer,
    random_windows,
)
from cr_jax.errors import UserError
from cr_jax.studies import blends, lengths
from cr_jax.studies.unknown import ood

COUNTS = ("train_tokens", "cut_windows", "documents", "document_tokens", "attacks", "blends")
CUTS = (16, 32, 64, 128)
BLENDS = (("wiki", "legal"), ("code_python", "literature"), ("code_js", "code_java"))


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", default="configs/bank.py")
    p.add_argument("--data", required=True, help="data.root of the config")
    p.add_argument("--work", default="runs/bank_inputs", help="token cache")
    p.add_argument("--out", required=True)
    p.add_argument("--train-tokens", type=int, default=4_200_000, help="per domain, at most")
    p.add_argument("--cut-windows", type=int, default=128, help="per domain, split and length")
    p.add_argument("--documents", type=int, default=16, help="per domain")
    p.add_argument("--document-tokens", type=int, default=4096, help="at most, of each")
    p.add_argument("--attacks", type=int, default=48, help="windows of each kind")
    p.add_argument("--blends", type=int, default=24, help="windows of each share")
    a = p.parse_args(arguments)
    try:
        check(a)
        config = load(a.config)
        config.data.root = a.data
        make(build(config), a)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check(a: argparse.Namespace) -> None:
    """Raises `UserError` on counts below 1."""
    for name in COUNTS:
        if getattr(a, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got "
                            f"{getattr(a, name)}")


def make(e, a) -> None:
    """Writes the folder.  Raises `UserError` as the data room does."""
    work, out = Path(a.work), Path(a.out)
    check_folder(out)
    text = experiment_text.prepare(e, work, lambda line: print(line, flush=True))
    found = dict(sets(e, text, work, a))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, corpus in text.train.items():
            ids = np.asarray(corpus.tokens[:a.train_tokens])
            np.save(out / f"{name}.train.npy", ids, allow_pickle=False)
        text.tokenizer.save(out / "tokenizer")
        write_sets(out / "sets.npz", found)


def sets(e, text: experiment_text.Corpora, work: Path, a) -> Iterator[tuple[str, Windows]]:
    """(key, windows) of all that is scored."""
    names, window, tokenizer = tuple(text.train), e.model.window, text.tokenizer
    for split, found in (("valid", text.valid), ("test", text.test)):
        for name in names:
            yield f"{split}/{name}", found[name]
    test = {n: text.test[n] for n in names}
    for group, split in (("cut", test), ("validcut", {n: text.valid[n] for n in names})):
        few = {n: w.spread(a.cut_windows) for n, w in split.items()}
        for length, domains in lengths.windows(few, [c for c in CUTS if c < window]).items():
            for name, windows in domains.items():
                yield f"{group}{length}/{name}", windows
    for split, kind in (("test", "doc"), ("valid", "validdoc")):
        found = {n: load_corpus([s.replace("{root}", e.data.root) for s in getattr(d, split)],
                                tokenizer, e.data.cache or work / "cache")
                 for n, d in e.data.domains.items()}
        made = lengths.documents(found, window, tokenizer.pad_id, limit=a.documents,
                                 most_tokens=a.document_tokens)
        for name, windows in made.items():
            yield f"{kind}/{name}", windows
    yield from ((k, w) for k, w in ood.windows(tokenizer, test, {}, a.attacks, e.seed).items()
                if k.startswith(ood.ATTACK))
    yield "unseen/random_tokens", random_windows(64, window, tokenizer.vocab_size, e.seed)
    for one, other in BLENDS:
        if one in test and other in test:
            for layout in blends.LAYOUTS:
                made = blends.windows(test[one].spread(a.blends), test[other].spread(a.blends),
                                      layout=layout)
                for percent, windows in made.items():
                    yield f"blend/{one}.{other}.{layout}.{percent}", windows


def write_sets(path: Path, found: Mapping[str, Windows]) -> None:
    """One file: per key the tokens, how many of each window are real, and their documents."""
    out = {}
    for key, w in found.items():
        out[f"{key}:tokens"] = w.tokens.astype(np.uint16 if w.tokens.max() < 1 << 16 else np.int32)
        out[f"{key}:lengths"] = w.mask.sum(-1).astype(np.int32)
        out[f"{key}:document"] = w.document.astype(np.int32)
    np.savez(path, **out)


def read_sets(path: Path) -> dict[str, Windows]:
    """What `write_sets` wrote.  `UserError` when it cannot be read."""
    try:
        # numpy leaves a file that it opened itself and cannot read open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"--tokens: cannot read {path}; make it with benchmarks.bank.inputs"
                        ) from None
    found = {}
    for key in dict.fromkeys(name.rsplit(":", 1)[0] for name in arrays):
        tokens = arrays[f"{key}:tokens"].astype(np.int32)
        mask = np.arange(tokens.shape[1]) < arrays[f"{key}:lengths"][:, None]
        found[key] = Windows(tokens, mask, arrays[f"{key}:document"].astype(np.int64))
    return found


def draw(rows, rng: np.random.Generator, batch: int, window: int) -> np.ndarray:
    """int32 [E, batch, window]: windows at random offsets of each row of ids."""
    at = lambda row: rng.integers(0, len(row) - window, batch)[:, None] + np.arange(window)
    return np.stack([row[at(row)] for row in rows]).astype(np.int32)


def read_corpora(folder: Path, names: list[str]) -> experiment_text.Corpora:
    """The folder as the corpora that `studies.baselines` take."""
    tokenizer: Tokenizer = load_tokenizer(folder / "tokenizer")
    found = read_sets(folder / "sets.npz")

    def corpus(name):
        ids = np.load(folder / f"{name}.train.npy", allow_pickle=False)
        starts = np.array([0, len(ids)], np.int64)
        return Corpus(ids, starts, int(tokenizer.token_bytes[ids].sum()), name, [name])

    of = lambda split: {n: found[f"{split}/{n}"] for n in names}
    return experiment_text.Corpora(
        tokenizer, {n: corpus(n) for n in names}, of("valid"), of("test"))


if __name__ == "__main__":
    sys.exit(main())
