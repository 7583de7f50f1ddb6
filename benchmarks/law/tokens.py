"""Token arrays of the law: NAME.train.npy, NAME.test.npy and sources.json in one folder.

    python -m benchmarks.law.tokens --config configs/ablate_latents.py:gpu --data DATA --out TOKENS

One row of ids per domain and split, uint16, documents joined with end ids, cut to --train-tokens
and --test-tokens.  sources.json holds, per source, the size of its vocabulary and `xz_bits`: bits
per token that xz needs for the training text.  A second call with another config adds its domains.
"""

import argparse
import json
import lzma
import sys
from pathlib import Path

import numpy as np

from benchmarks.results import check_folder, write, writing
from benchmarks.settings_file import load
from cr_jax.config import Experiment, build
from cr_jax.data import experiment_text, load_corpus
from cr_jax.errors import UserError

ENTROPY_TOKENS = 1_000_000  # as in cr_jax.studies.capacity.ablation


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", default="configs/ablate_latents.py:gpu")
    p.add_argument("--data", required=True, help="data.root of the config")
    p.add_argument("--gpt2", default="", help="tokenizer.folder of a config with GPT-2's ids")
    p.add_argument("--work", default="runs/law_tokens", help="tokenizer and token cache")
    p.add_argument("--out", required=True)
    p.add_argument("--train-tokens", type=int, default=16_000_000, help="per domain, at most")
    p.add_argument("--test-tokens", type=int, default=1_000_000, help="per domain, at most")
    a = p.parse_args(arguments)
    try:
        config = load(a.config)
        config.data.root = a.data
        if a.gpt2:
            config.tokenizer.folder = a.gpt2
        config.data.max_train_tokens = a.train_tokens
        raw = config.to_dict()
        raw.pop("ablation", None)
        make(build(raw), Path(a.work), Path(a.out), a.test_tokens)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(e: Experiment, work: Path, out: Path, test_tokens: int) -> None:
    """Writes the arrays, sources.json last.  Raises `UserError` as `cr_jax.data` does."""
    if test_tokens < 1:
        raise UserError(f"--test-tokens must be at least 1, got {test_tokens}")
    check_folder(out)
    path = out / "sources.json"
    sources = read_sources(path) if path.exists() else {}
    text = experiment_text.prepare(e, work, lambda line: print(line, flush=True))
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for name, domain in e.data.domains.items():
        train = np.asarray(text.train[name].tokens)
        test = load_corpus(
            [s.replace("{root}", e.data.root) for s in domain.test],
            text.tokenizer,
            e.data.cache or work / "cache",
            test_tokens,
        )
        for split, ids in (("train", train), ("test", np.asarray(test.tokens[:test_tokens]))):
            with writing(out):
                np.save(out / f"{name}.{split}.npy", ids.astype(np.uint16), allow_pickle=False)
        sample = text.tokenizer.decode(train[:ENTROPY_TOKENS]).encode("utf-8")
        count = len(train[:ENTROPY_TOKENS])
        sources[name] = {
            "vocab_size": experiment_text.sized(e.model, text.tokenizer).vocab_size,
            "xz_bits": 8 * len(lzma.compress(sample, preset=6)) / count,
            "bytes_per_token": len(sample) / count,
            "tokenizer": e.tokenizer.kind,
            "train_tokens": len(train),
            "test_tokens": len(test.tokens),
        }
        print(f"{name}: {sources[name]}", flush=True)
    write(path, json.dumps(sources, indent=1))


def read_sources(path: Path) -> dict:
    """What an earlier call wrote.  Raises `UserError` when it is damaged."""
    try:
        sources = json.loads(path.read_text())
    except (OSError, ValueError):
        sources = None
    if not isinstance(sources, dict):
        raise UserError(f"--out: cannot read {path}; delete it or give an empty folder")
    return sources


if __name__ == "__main__":
    sys.exit(main())
