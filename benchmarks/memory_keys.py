"""How long a key must be: the index of latents as memory alone -> results/memory_keys.json.

    python -m benchmarks.memory_keys --window 512 --tokens 65536,1048576 --text SPEC [--text SPEC] \
        --out results/memory_keys.json [--bank BANK]

Lines with ids are hidden in a text as in `benchmarks.latent_memory`; the text is cut into windows
of any length, each gets a key, and every line is asked for by its beginning.  Nothing is compressed
and no language model speaks: the index needs the bank's tokenizer and bigram models alone.

    recall_at_4  {tokens: {ranking: {hashes of a key: share of lines}}}, of which a window is among
                 the four best

Rankings of a window's pairs: by `memory_index.surprise`, and by how rare both tokens are alone.
"""

import argparse
import json
from collections.abc import Sequence

import numpy as np

from benchmarks import memory_tasks as tasks
from benchmarks import results
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.data.windows import windows_of
from cr_jax.modular import memory_index

HASHES = (24, 48, 96, 192, 384)
QUERY, BEST, ROWS = 64, 4, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(n) for n in text.split(",")]
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--text", action="append", required=True, help="source spec; repeatable")
    p.add_argument("--window", type=int, default=512, help="tokens")
    p.add_argument("--tokens", type=numbers, default=[1 << 16, 1 << 20])
    p.add_argument("--each", type=int, default=5, help="lines of each kind at each depth")
    p.add_argument("--out", required=True)
    return results.answered("benchmarks.memory_keys", run, p.parse_args(argv), argv)


def run(a, command: str) -> dict:
    """What --out holds."""
    bank = ExpertBank.load(a.bank, lms=False)
    text = tasks.stream(bank, a.text, max(a.tokens))
    found = {
        "window": a.window,
        "windows": {str(n): -(-n // a.window) for n in a.tokens},
        "recall_at_4": {str(n): recalls(bank, text[:n], a.window, a.each) for n in a.tokens},
        "command": command,
        "commit": results.commit(),
        "versions": results.versions(),
    }
    results.write(a.out, json.dumps(found, indent=1) + "\n")
    return found


def recalls(
    bank: ExpertBank, text: np.ndarray, window: int, each: int
) -> dict[str, dict[str, float]]:
    """Ranking -> hashes of a key -> share of the lines of which a window is among the best four."""
    ids, needles = tasks.hidden(bank, text, each, seed=0)
    cut = windows_of(ids, window, bank.tokenizer.pad_id)
    asked = np.stack(tasks.questions(needles, ids, QUERY)).astype(np.int32)
    first = np.array([[x.start // window] for x in needles])
    last = np.array([[(x.answer - 1) // window] for x in needles])
    found: dict[str, dict[str, float]] = {}
    for name, nats in {"surprise": memory_index.surprise, "rare tokens": rare_tokens}.items():
        kept = memory_index.features(cut.tokens, cut.mask, nats(bank, cut.tokens))
        query = memory_index.features(asked, asked >= 0, nats(bank, asked))
        for count in HASHES:
            keys = memory_index.keys_of(kept, count)
            best = _best(query, keys)
            share = ((first <= best) & (best <= last)).any(1).mean()
            found.setdefault(name, {})[str(count)] = round(float(share), 4)
            print(f"{len(text):,} tokens, {name}, {count} hashes: {share:.1%}", flush=True)
    return found


def rare_tokens(bank: ExpertBank, tokens: np.ndarray) -> np.ndarray:
    """Nats of both tokens of the pair that ends at each token, each alone."""
    alone = np.stack([m.alone.astype(np.float32) for m in bank.bigrams.values()])
    own = -np.log(np.exp(-alone).mean(0) + 1e-30)[tokens]
    return own + np.pad(own[:, :-1], ((0, 0), (1, 0)))


def _best(query: memory_index.Features, keys: np.ndarray) -> np.ndarray:
    ends = np.full(len(query.hashes), len(keys))
    tables = memory_index.tables(query, keys, ends)
    parts = [
        memory_index.nearest(keys, tables[i : i + ROWS], ends[i : i + ROWS], BEST)[0]
        for i in range(0, len(tables), ROWS)
    ]
    return np.concatenate([np.asarray(x) for x in parts])


if __name__ == "__main__":
    raise SystemExit(main())
