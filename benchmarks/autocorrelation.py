"""How alike neighbouring windows of long documents are -> results/autocorrelation.json.

    python -m benchmarks.autocorrelation --out results/autocorrelation.json \
        python=jsonl:DATA/code_python/test.jsonl.zst legal=jsonl:DATA/legal/test.jsonl.zst ...

`cr-jax route --stop` compares experts by the differences of their nats, window by window.  Of every
document that is long enough: the correlation of the difference of its two nearest experts with
itself some windows later, and by how much the variance of a block's sum exceeds that of as many
independent windows.  1 is independent.
"""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.results import commit, versions, write
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.data.sources import documents
from cr_jax.data.text_form import text_form
from cr_jax.errors import UserError, complain
from cr_jax.router import score_bank
from cr_jax.routing.document import blocks
from cr_jax.routing.ranking import typicality_penalty
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.residuals import residual_means

LAGS = (1, 2, 4, 8, 16, 32)
BLOCKS = (4, 16, 32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("sources", nargs="+", metavar="NAME=SPEC")
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--windows", type=int, default=256, help="of a document, at least and at most")
    p.add_argument("--documents", type=int, default=10, help="of a source at most")
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    try:
        bank = ExpertBank.load(a.bank)
        found = {}
        for name, spec in (x.split("=", 1) for x in a.sources):
            rows = list(itertools.islice(_long(bank, spec, a.windows), a.documents))
            if rows:
                found[name] = _means(rows)
                print(f"{name}: {json.dumps(found[name])}", flush=True)
    except UserError as error:
        complain("error", error)
        return 2
    record = {
        "windows": a.windows,
        "tokens_per_window": bank.model.window,
        "sources": found,
        "command": shlex.join(["python", "-m", "benchmarks.autocorrelation", *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions(),
    }
    write(a.out, json.dumps(record, indent=1) + "\n")
    return 0


def _long(bank: ExpertBank, spec: str, windows: int):
    """`measured` of every document of so many whole windows."""
    sizes = BatchSizes.for_device()
    for document in documents(spec):
        tokens = windows * bank.model.window
        if len(document.text) < tokens:  # a token is a character or more, about
            continue
        text = text_form(document.text, bank.text_form)
        if len(bank.tokenizer.encode(text)) < tokens:
            continue
        nats = []
        for block in blocks(bank, text, sizes.windows, windows):
            lengths = block.mask.sum(-1)
            sums = np.asarray(score_bank(bank, block, sizes, rows=sizes.windows).residual, float)
            penalty = typicality_penalty(bank, residual_means(sums, lengths), lengths)
            nats.append((sums + lengths * penalty)[:, lengths == bank.model.window])
        nats = np.concatenate(nats, 1)
        if nats.shape[1] >= windows - 1:
            yield measured(nats)


def measured(nats: np.ndarray) -> dict[str, list[float]]:
    """Of a document's nats [E, B]: {"correlation": at each of `LAGS`, "variance": at `BLOCKS`}."""
    first, second = nats.sum(1).argsort()[:2]
    difference = nats[second] - nats[first]
    centred, count = difference - difference.mean(), len(difference)
    variance = float((centred**2).mean())
    whole = [centred[: count // b * b].reshape(-1, b).sum(1) for b in BLOCKS]
    return {
        "correlation": [float((centred[n:] * centred[:-n]).mean() / variance) for n in LAGS],
        "variance": [
            float(sums.var(ddof=1) / b / variance) for sums, b in zip(whole, BLOCKS, strict=True)
        ],
    }


def _means(rows: list[dict[str, list[float]]]) -> dict:
    """Means over documents, and the largest of each."""
    table = {key: np.array([row[key] for row in rows]) for key in ("correlation", "variance")}
    by = {"correlation": LAGS, "variance": BLOCKS}
    named = lambda key, values: dict(zip(map(str, by[key]), values.round(2).tolist(), strict=True))
    return {
        "documents": len(rows),
        **{key: named(key, values.mean(0)) for key, values in table.items()},
        **{f"largest_{key}": named(key, values.max(0)) for key, values in table.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
