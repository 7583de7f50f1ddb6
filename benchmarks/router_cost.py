"""What routing costs as the bank grows: exact scoring, the cascade, an n-gram classifier.

    python -m benchmarks.router_cost --quick                       # CPU, about two minutes
    python -m benchmarks.router_cost --out results/router_cost.json              # GPU, full size
    python -m benchmarks.router_cost --bank DIR --text FILE [FILE ...]

Every row routes windows one by one through the public functions, host work included.  Without
--bank, experts are one initialisation with noise and bigram models one table of made-up text with
noise: costs are real, decisions are not, so `agreement` is null.  With a trained bank it is the
share of the texts' windows that the cascade sends where exact routing does; larger E are then the
bank's experts again with noise, whose bigram models have the offsets of those that they are copies
of.  `min_candidates` is the cascade's least number, `mean_candidates` how many it scores on
average: more where its margin says so, which without --bank is 0.  `relative_cost`: seconds per
token over those of one expert scored exactly.  `flops_relative` is the number of experts scored:
bigram models look up and multiply nothing.  What that takes is in `bigrams_tokens_per_s`: text that
all E bigram models read, nothing else done.  `memory_gib`: see `benchmarks.routing_plan`.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import results, routing_plan
from benchmarks.timing import time_calls
from cr_jax import models, router
from cr_jax.bank import Expert, ExpertBank
from cr_jax.config import ModelConfig, Scoring
from cr_jax.data.sources import read_text
from cr_jax.data.text_stream import windows_of_text
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing.cascade import MIN_CANDIDATES, Cascade
from cr_jax.scoring import bigram
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram_windows import bigram_residuals
from cr_jax.scoring.calibration import Calibration
from cr_jax.studies.baselines import hashed_counts, ngram

RULE = Scoring(predicted=True)
FULL = ModelConfig(
    vocab_size=32768,
    d_model=256,
    d_latent=256,
    heads=4,
    d_ff=768,
    encoder_blocks=3,
    decoder_blocks=3,
    bottleneck="fold",
    predictive=True,
)
# Of the size that ships with the package.
QUICK = ModelConfig(
    vocab_size=4096,
    window=64,
    d_model=128,
    d_latent=128,
    heads=4,
    d_ff=256,
    encoder_blocks=2,
    decoder_blocks=1,
    bottleneck="fold",
    tie_embeddings=True,
    predictive=True,
)
TEXT = 1 << 20  # ids that a bigram model is counted on without --bank
COLUMNS = (
    "experts",
    "mode",
    "tokens_per_s",
    "relative_cost",
    "flops_relative",
    "memory_gib",
    "bigrams_tokens_per_s",
    "mean_candidates",
    "agreement",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a row at a time, rewrites --out after each; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        run(
            args,
            shlex.join(
                [
                    "python",
                    "-m",
                    "benchmarks.router_cost",
                    *(sys.argv[1:] if argv is None else argv),
                ]
            ),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args, command: str) -> list[dict]:
    """All rows, in the order of --experts."""
    if args.candidate_margin and not args.bank:
        raise UserError(
            "--candidate-margin is a distance between bigram models of real text: give "
            "--bank, or --min-candidates alone"
        )
    if args.min_candidates is not None and args.min_candidates < 1:
        raise UserError(
            f"--min-candidates {args.min_candidates}: a cascade scores at least one expert in full"
        )
    bank = _given(args) if args.bank else _drawn(args.quick)
    counts = args.experts or ((1, 4, 16) if args.quick else (1, 4, 16, 64))
    sizes = BatchSizes(
        args.expert_chunk, args.batch or 64, args.chunk or (1024 if args.quick else 16384)
    )
    size = args.windows or (16 * sizes.windows if args.quick or args.bank else 1024)
    windows = _texts(bank, args.text, size) if args.text else _random(bank, size)
    device, rows = jax.devices()[0].device_kind, []
    few, margin, offsets = _rule(args)
    print("  ".join(f"{c:>14}" for c in COLUMNS), flush=True)
    base = None
    for experts in counts:
        whole = replicate(bank, experts)
        trained = bool(args.bank and args.text) and experts == len(bank.names)
        fewer = windows.take(slice(max(sizes.windows, size // experts)))
        for mode in ("exact", "cascade", "ngram"):
            if mode == "cascade" and experts <= few:
                continue
            if mode == "exact":
                row = _timed(lambda w, b=whole: router.route_windows(b, w, sizes), fewer, args)
                row |= {"memory_gib": routing_plan.exact_memory(whole, sizes)}
            elif mode == "cascade":
                cut = Cascade(
                    whole,
                    few,
                    candidate_margin=margin,
                    offsets=of_copies(offsets, bank.names, whole.names),
                )
                row = _timed(lambda w, c=cut: c.route_windows(w, sizes), windows, args)
                table = bigram.table(whole.bigrams[n] for n in whole.names)
                alone = _timed(lambda w, t=table: bigram_residuals(t, w, sizes), windows, args)
                row |= {
                    "memory_gib": routing_plan.cascade_memory(whole, table, sizes),
                    "bigrams_tokens_per_s": alone["tokens_per_s"],
                    "min_candidates": few,
                    "candidate_margin": margin,
                    "offsets": cut.offsets,
                    **_answers(cut, windows, sizes, trained),
                }
            else:
                row = _timed(_classifier(experts), windows, args)
                row |= {"memory_gib": (1 << ngram.BITS) * experts * 4 / routing_plan.GIB}
            base = base or row["seconds_per_token"]
            row = {
                "experts": experts,
                "mode": mode,
                "device": "CPU" if mode == "ngram" else device,
                "agreement": None,
                **row,
                "relative_cost": row["seconds_per_token"] / base,
                "flops_relative": (
                    None if mode == "ngram" else row.get("mean_candidates", experts)
                ),
            }
            rows.append(row)
            print("  ".join(f"{_show(row.get(c)):>14}" for c in COLUMNS), flush=True)
            if args.out:
                results.write(
                    args.out,
                    json.dumps(
                        {
                            "rows": rows,
                            "trained": bool(args.bank),
                            "min_candidates": few,
                            "candidate_margin": margin,
                            **_about(bank, sizes),
                            "device": device,
                            "command": command,
                            "commit": results.commit(),
                            "versions": results.versions(),
                        },
                        indent=1,
                    )
                    + "\n",
                )
    return rows


def replicate(bank: ExpertBank, experts: int, noise: float = 0.01) -> ExpertBank:
    """The bank's first experts, then the same again with relative noise, `experts` in all.

    Bigram models too: equal ones would send all windows to the same experts, in full calls.
    """
    have = len(bank.experts)
    if experts <= have:
        return bank.select(bank.names[:experts])
    random = np.random.default_rng(0)

    def noisy(x):
        drawn = random.standard_normal(x.shape, np.float32)
        return x + noise * x.std(dtype=np.float32) * drawn

    def nats(x):
        return np.maximum(noisy(x), 0).astype(x.dtype)

    def copied(i):
        own = bank.experts[i % have]
        pairs = own.bigram
        near = pairs._replace(
            nats=nats(pairs.nats), after=nats(pairs.after), alone=nats(pairs.alone)
        )
        params = jax.tree.map(noisy, own.params)
        return Expert(f"{own.name}_{i}", params, own.calibration, bigram=near)

    copies = (copied(i) for i in range(have, experts))
    return bank.changed(experts=(*bank.experts, *copies), folder=None)


def _timed(call, windows: Windows, args) -> dict:
    took = time_calls(
        lambda i: call(windows),
        lambda found: None,
        args.seconds or (1.0 if args.quick else 5.0),
        warmup=1,
        groups=3,
    )
    tokens = int(windows.mask.sum())
    return {
        "tokens_per_s": tokens / took.median,
        "seconds_per_token": took.median / tokens,
        "tokens_per_s_range": [tokens / took.slowest, tokens / took.fastest],
        "windows": len(windows.tokens),
        "calls_timed": took.calls,
    }


def of_copies(offsets, names: Sequence[str], copies: Sequence[str]) -> dict[str, float] | None:
    """Offsets of `replicate`d experts: those of the experts that they are copies of."""
    return offsets and {new: offsets[names[i % len(names)]] for i, new in enumerate(copies)}


def _answers(cut: Cascade, windows: Windows, sizes, trained: bool) -> dict:
    """Experts that the cascade scores on average; of trained ones the share of windows that go
    where exact routing sends them."""
    found = cut.route_windows(windows, sizes)
    mean = float(np.isfinite(found.residuals).sum(0).mean())
    if not trained:
        return {"mean_candidates": mean, "agreement": None}
    exact = router.route_windows(cut.bank, windows, sizes)
    return {"mean_candidates": mean, "agreement": float((found.expert == exact.expert).mean())}


def _rule(args) -> tuple[int, float, dict[str, float] | None]:
    """(min_candidates, candidate_margin, offsets) as given, or as stored with the bank."""
    few, margin = args.min_candidates, args.candidate_margin
    if not args.bank or few is not None or margin is not None:
        return MIN_CANDIDATES if few is None else few, margin or 0.0, None
    stored = Cascade.load(args.bank)
    return stored.min_candidates, stored.candidate_margin, stored.offsets


def _classifier(experts: int):
    """A linear classifier of hashed 1- and 2-grams, of zeros: its cost is that of a trained one."""
    kernel = np.zeros((1 << ngram.BITS, experts), np.float32)
    bias = np.zeros(experts, np.float32)

    def call(windows):
        rows = hashed_counts.rows(windows.tokens, windows.mask, ngram.BITS)
        return ngram.logits(rows, kernel, bias).argmax(1)

    return call


def _given(args) -> ExpertBank:
    return Cascade(ExpertBank.load(args.bank), 1).bank  # each expert has a bigram model


def _drawn(quick: bool) -> ExpertBank:
    """A bank of one untrained expert, with a bigram model of made-up text."""
    model = QUICK if quick else FULL
    known = Calibration({model.window: np.linspace(1, 12, 100)})
    params = jax.jit(models.init, static_argnums=0)(model, jax.random.key(0))
    counted = made_up(model.vocab_size, model.window)
    bank = ExpertBank(model, ByteTokenizer(), scoring=RULE)
    return bank.mount(Expert("e0", params, known, bigram=counted))


def made_up(vocab_size: int, window: int) -> bigram.BigramModel:
    """The bigram model of ids whose frequencies fall off as 1/rank: as many pairs as one keeps."""
    odds = 1 / np.arange(1, vocab_size + 1)
    ids = np.random.default_rng(0).choice(vocab_size, (TEXT // window, window), p=odds / odds.sum())
    return bigram.count(ids, np.ones(ids.shape, bool), vocab_size)


def _random(bank: ExpertBank, count: int) -> Windows:
    shape = (count, bank.model.window)
    tokens = np.random.default_rng(0).integers(0, bank.model.vocab_size, shape).astype(np.int32)
    return Windows(tokens, np.ones(shape, bool), np.arange(count, dtype=np.int64))


def _texts(bank: ExpertBank, files: Sequence[str], count: int) -> Windows:
    """Full windows of the files, as many of each, `count` in all at most."""
    found = []
    for name in files:
        block = next(
            windows_of_text(
                bank.tokenizer, read_text(name), bank.model.window, -(-count // len(files))
            )
        )
        found.append(block.tokens[block.mask.all(1)])
    tokens = np.concatenate(found)[:count]
    if not len(tokens):
        raise UserError(f"the texts hold no full window of {bank.model.window} tokens: give more")
    return Windows(tokens, np.ones(tokens.shape, bool), np.arange(len(tokens), dtype=np.int64))


def _about(bank, sizes) -> dict:
    return {
        "bank": {
            "model": dataclasses.asdict(bank.model),
            "scoring": dataclasses.asdict(bank.scoring),
            "parameters": models.count_parameters(bank.model),
            "flops_per_token": routing_plan.scoring_flops(bank.model, bank.scoring),
            "token_pairs": max(s.keys.size for s in bank.bigrams.values()),
        },
        "batch_sizes": dataclasses.asdict(sizes),
    }


def _show(value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}"
    return "-" if value is None else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = lambda text: tuple(int(x) for x in text.split(","))
    parser.add_argument("--quick", action="store_true", help="small models, for a CPU")
    parser.add_argument("--experts", type=whole, help="numbers of experts, such as 1,4,16,64")
    parser.add_argument("--bank", help="folder of trained experts, each with its bigram model")
    parser.add_argument("--text", nargs="+", help="UTF-8 files to route; default: random tokens")
    parser.add_argument(
        "--min-candidates",
        type=int,
        help="experts scored in full, at least "
        f"(default: the bank's cascade.json; without --bank {MIN_CANDIDATES})",
    )
    parser.add_argument(
        "--candidate-margin",
        type=float,
        help="nats/token above the nearest "
        "bigram model within which experts are scored too, without offsets "
        "(default: cascade.json, or 0; needs --bank)",
    )
    parser.add_argument("--windows", type=int, help="windows per call of the cascade")
    parser.add_argument("--batch", type=int, help="windows per compiled call")
    parser.add_argument("--chunk", type=int, help="tokens whose logits stand in memory")
    parser.add_argument("--expert-chunk", type=int, default=4, help="experts side by side")
    parser.add_argument("--seconds", type=float, help="of timing per row")
    parser.add_argument("--out", default="", help="write rows and provenance as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
