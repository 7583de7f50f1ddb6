"""Latents as memory: what comes back from a million tokens, what it buys, and what it takes.

    python -m benchmarks.latent_memory --quick --out results/latent_memory_quick.json   # a CPU
    python -m benchmarks.latent_memory --bank runs/BANK/bank --text 'jsonl:TEST#content' \\
        --out results/latent_memory.json                                                # a GPU

Recall: lines "The id of NAME is ID" with ids of 32 tokens are written over real text at several
depths, the text is kept in a memory, and each is asked for with the line's beginning.  An id is
*in the pages* when all its tokens stand in what a language model is given, *copied* when a reader
without weights says it, which goes on after the longest match, and *spoken* when the model says all
of it, greedily.  ids: random ids, ordinary tokens in random order, hex digits, passages.
Arms: nothing before the question; the last tokens (sliding); pages of latents in bfloat16, int8 and
int4, with corrections and, `bare`, without; pages of stored ids by the same index.

Bits/byte: of segments spread over long documents, each given pages and last tokens, by the language
model of the expert that keeps most of the document.  Arms: the same, and two controls: the last
tokens without pages in their place (half), and pages drawn at random.

With `--reader WORKDIR`, where `benchmarks.latent_reader` trained adapters, language models also
read latents without decoding them (`memory_bits`); `--no-recall` leaves out the hidden ids.

    recall             {depth: {arm: shares}} of the longest context
    recall_by_tokens, recall_by_kind    the same by length and by what the id is made of
    index_recall_at_4  of ids whose window is among the four best; indexes: of others, too
    rebuilt            share of tokens, and of whole ids by kind, that latents give back uncorrected
    bits_per_byte      {arm: {"state_bytes", "flops_per_token", "bpb"}}; `full_kv`: its state alone
    tokens, time_per_token
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import memory_bits, memory_indexes, results
from benchmarks import memory_tasks as tasks
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.errors import UserError
from cr_jax.modular import memory, paged
from cr_jax.modular import memory_reader_training as readers
from cr_jax.modular.language_models import BankLms
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import IDS, LATENTS, MemoryOptions
from cr_jax.scoring.batching import BatchSizes

QUICK = dict(
    tokens=(4096, 8192),
    each=1,
    pages=2,
    documents=2,
    segments=24,
    text=("samples/statutes@test", "samples/novels_en@test"),
)
FULL = dict(
    tokens=(1 << 14, 1 << 16, 1 << 18, 1 << 20), each=5, pages=4, documents=8, segments=96, text=()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints rows as they come, rewrites --out after each part; returns the exit status."""
    return results.answered("benchmarks.latent_memory", run, _parser().parse_args(argv), argv)


def run(args, command: str) -> dict[str, Any]:
    """All parts; what --out holds."""
    size = QUICK if args.quick else FULL
    specs = tuple(args.text) or size["text"]
    if not specs:
        raise UserError("give the text: --text SPEC, as of config.data (docs/data.md), or --quick")
    bank = ExpertBank.load(args.bank or pretrained.folder(), lms=False)
    lms = BankLms(bank)
    adapters = readers.stored(Path(args.reader).expanduser(), bank) if args.reader else None
    setting = tasks.Setting(bank, lms, lms.positions(args.positions), BatchSizes.for_device())
    options = MemoryOptions(LATENTS, pages=args.pages or size["pages"], span=args.span)
    options.span_of(bank.model.window, setting.positions)
    lengths = tuple(args.tokens) or size["tokens"]
    found: dict[str, Any] = {
        "bank": {"experts": list(bank.names), "window": bank.model.window, "lm": lms.config.window},
        "positions": setting.positions,
        "pages": options.pages,
        "span": options.span_of(bank.model.window, setting.positions),
        "text": list(specs),
        "provenance": {
            "command": command,
            "commit": results.commit(),
            "versions": results.versions(),
            "device": jax.devices()[0].device_kind,
        },
    }
    text, by_tokens, last = tasks.stream(bank, specs, max(lengths)), {}, None
    for n in () if args.no_recall else sorted(n for n in lengths if n <= len(text)):
        part, last = _recall(setting, options, text[:n], args.each or size["each"], args.seed)
        by_tokens[str(n)] = part.pop("arms")
        found |= part | {"tokens": n, "recall_by_tokens": by_tokens}
        _write(args.out, found)
    if not by_tokens and not args.no_recall:
        raise UserError(f"the text has {len(text):,} tokens: give more of it, or fewer --tokens")
    count = args.documents or size["documents"]
    documents = tasks.longest(bank, specs, count, min(lengths) // 2, args.most)
    segments = args.segments or size["segments"]
    found["bits_per_byte"] = memory_bits.bits(setting, options, documents, segments, adapters)
    found["documents"] = [len(d) for d in documents]
    if last is not None:
        found["time_per_token"] = _times(setting, options, text[: found["tokens"]], last)
    _write(args.out, found)
    return found


def _recall(setting: tasks.Setting, options, text, each: int, seed: int):
    """(what one length gives, its memory in bfloat16)."""
    bank, n = setting.bank, len(text)
    ids, needles = tasks.hidden(bank, text, each, seed)
    kept = tasks.memories(setting, options, ids)
    place = tasks.speaker(setting, kept["latents_bfloat16"])
    asked = tasks.questions(needles, ids, options.query)
    indexes = memory_indexes.index_recall(
        setting, kept["latents_bfloat16"], kept["ids"], needles, asked
    )
    arms, rebuilt = {}, {}
    shown = tasks.Shown(setting, place, needles, ids)
    arms["nothing"] = shown.spoken(None, recent=0)
    arms["sliding"] = shown.spoken(None, recent=setting.positions)
    for name, one in kept.items():
        reader = Reader(bank, one, setting.sizes)
        how = tasks.spans(setting, options, n, len(asked))
        arms[name] = shown.spoken(reader.attended(asked, *how))
        if one.codes is not None:
            bare = tasks.bare(one)
            loose = Reader(bank, bare, setting.sizes)
            arms[f"{name}_bare"] = shown.spoken(loose.attended(asked, *how))
            rebuilt[name] = tasks.rebuilt(loose, needles, ids)
    summed = {name: tasks.shares(rows) for name, rows in arms.items()}
    for name, row in summed.items():
        print(f"{n:>9,} tokens  {name:24} {row}", flush=True)
    print(f"{n:>9,} tokens  index at 4: {indexes}", flush=True)
    by = lambda key: {
        str(value): {
            name: tasks.shares([r for r, x in zip(rows, needles, strict=True) if key(x) == value])
            for name, rows in arms.items()
        }
        for value in sorted({key(x) for x in needles})
    }
    return {
        "arms": summed,
        "recall": by(lambda x: x.depth),
        "recall_by_kind": by(lambda x: x.kind),
        "index_recall_at_4": indexes["surprising pairs"],
        "indexes": indexes,
        "needles": len(needles),
        "rebuilt": rebuilt,
        "memory": {name: one.to_json() for name, one in kept.items()},
    }, kept["latents_bfloat16"]


def _times(setting: tasks.Setting, options, text, kept) -> dict[str, float]:
    """Seconds per token, each without the first call that compiles."""
    bank, window = setting.bank, setting.bank.model.window
    some = tasks.windows(bank, text[: 256 * window])
    took = {}
    for name, kind in (("write_latents", LATENTS), ("write_ids", IDS)):
        memory.write(bank, some, tasks.kind(options, kind), setting.sizes)
        start = time.perf_counter()
        memory.write(bank, some, tasks.kind(options, kind), setting.sizes)
        took[name] = (time.perf_counter() - start) / int(some.mask.sum())
    reader, query = Reader(bank, kept, setting.sizes), [text[-options.query :]]
    for name, call in (
        ("search", lambda: reader.best(query, pages=options.pages)),
        ("search_and_rebuild", lambda: reader.attended(query, *tasks.spans(setting, options))),
    ):
        call()
        each = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            each.append(time.perf_counter() - start)
        took[name] = float(np.median(each)) / paged.segment_of(setting.positions)
    print("seconds per token", {k: float(f"{v:.3g}") for k, v in took.items()}, flush=True)
    return took


def _write(path: str, found: dict[str, Any]) -> None:
    if path:
        results.write(path, json.dumps(found, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = lambda text: tuple(int(x) for x in text.split(",") if x)
    p.add_argument("--bank", default="", help="a bank with language models; by default the shipped")
    p.add_argument("--quick", action="store_true", help="sample texts and short contexts")
    p.add_argument("--text", action="append", default=[], help="source spec; repeatable")
    p.add_argument("--tokens", type=numbers, default=(), help="lengths of contexts")
    p.add_argument("--each", type=int, default=0, help="ids of each kind at each depth")
    p.add_argument("--segments", type=int, default=0, help="of each document that are scored")
    p.add_argument("--positions", type=int, default=0, help="of the model; 0: of its training")
    p.add_argument("--pages", type=int, default=0, help="4; with --quick 2")
    p.add_argument("--span", type=int, default=0, help="tokens of a page; 0: what half fits")
    p.add_argument("--documents", type=int, default=0, help="8; with --quick 2")
    p.add_argument("--most", type=int, default=1 << 17, help="tokens of each of these documents")
    p.add_argument("--reader", default="", help="--workdir of benchmarks.latent_reader")
    p.add_argument("--no-recall", action="store_true", help="bits/byte alone")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default="", help="write the result as JSON")
    return p


if __name__ == "__main__":
    sys.exit(main())
