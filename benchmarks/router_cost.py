"""What routing costs as the bank grows: exact scoring, the cascade, an n-gram classifier.

    python -m benchmarks.router_cost --quick                       # CPU, about two minutes
    python -m benchmarks.router_cost --out results/router_cost.json              # GPU, full size
    python -m benchmarks.router_cost --bank DIR --scouts DIR --text FILE [FILE ...]

Every row routes windows one by one through the public functions, host work included.  Without
--bank, parameters are one initialisation with noise: costs are real, decisions are not, so
`agreement` is null.  With trained banks it is the share of the texts' windows that the cascade
sends where exact routing does; larger E are then the bank's experts again with noise, whose
scouts have the offsets of those that they are copies of.  `keep` is the cascade's least number,
`kept` how many it scores on average: more where its margin says so, which without --bank is 0.
`relative_cost`: seconds per token over those of one expert scored exactly; `flops_relative` and
`memory_gib`: see `benchmarks.routing_plan`.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import results, routing_plan
from benchmarks.timing import time_calls
from cr_jax import models, router
from cr_jax.bank import ExpertBank
from cr_jax.calibration import Calibration
from cr_jax.cascade import KEEP, Cascade
from cr_jax.config import ModelConfig, Scoring
from cr_jax.data.sources import read_text
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.baselines import hashed_counts, ngram
from cr_jax.text_windows import windows_of_text

RULE = Scoring(predicted=True)
FULL = ModelConfig(vocab_size=32768, d_model=256, d_latent=256, heads=4, d_ff=768,
                   encoder_blocks=3, decoder_blocks=3, predictive=True)
SCOUT = ModelConfig(vocab_size=32768, latents=8, d_model=64, d_latent=64, heads=2,
                    d_ff=128, encoder_blocks=1, decoder_blocks=1, fold_channels=16,
                    tie_embeddings=True, predictive=True)
SCOUT_RULE = Scoring(predicted=True, parts=8, passes=1)
# Of the size that ships with the package, and scouts for it.
QUICK = ModelConfig(vocab_size=4096, window=64, d_model=128, d_latent=128, heads=4, d_ff=256,
                    encoder_blocks=2, decoder_blocks=1, tie_embeddings=True, predictive=True)
QUICK_SCOUT = dataclasses.replace(QUICK, d_model=32, d_latent=32, heads=2, d_ff=64,
                                  fold_channels=8, encoder_blocks=1)
COLUMNS = ("experts", "mode", "tokens_per_s", "relative_cost", "flops_relative", "memory_gib",
           "kept", "agreement")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a row at a time, rewrites --out after each; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        run(args, shlex.join(["python", "-m", "benchmarks.router_cost",
                              *(sys.argv[1:] if argv is None else argv)]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args, command: str) -> list[dict]:
    """All rows, in the order of --experts."""
    if args.margin and not args.bank:
        raise UserError("--margin is a distance between scouts that were trained: give --bank and "
                        "--scouts, or --keep alone")
    if args.keep is not None and args.keep < 1:
        raise UserError(f"--keep {args.keep}: a cascade scores at least one expert in full")
    bank, scouts = _given(args) if args.bank else _drawn(args.quick)
    counts = args.experts or ((1, 4, 16) if args.quick else (1, 4, 16, 64))
    options = {"expert_chunk": args.expert_chunk, "batch": args.batch or 64,
               "chunk": args.chunk or (1024 if args.quick else 16384)}
    size = args.windows or (16 * options["batch"] if args.quick or args.bank else 1024)
    windows = _texts(bank, args.text, size) if args.text else _random(bank, size)
    device, rows = jax.devices()[0].device_kind, []
    keep, margin, offsets = _rule(args)
    print("  ".join(f"{c:>14}" for c in COLUMNS), flush=True)
    base = None
    for experts in counts:
        whole, small = replicate(bank, experts), replicate(scouts, experts)
        trained = bool(args.bank and args.text) and experts == len(bank.names)
        fewer = windows.take(slice(max(options["batch"], size // experts)))
        for mode in ("exact", "cascade", "ngram"):
            if mode == "cascade" and experts <= keep:
                continue
            if mode == "exact":
                row = _timed(lambda w, b=whole: router.route_all(b, w, **options), fewer, args)
                row |= {"memory_gib": routing_plan.exact_memory(whole, options)}
            elif mode == "cascade":
                cut = Cascade(small, whole, keep, margin=margin, offsets=of_copies(
                    offsets, bank.names, whole.names))
                row = _timed(lambda w, c=cut: c.route_all(w, **options), windows, args)
                row |= {"memory_gib": routing_plan.cascade_memory(cut, options), "keep": keep,
                        "margin": margin, "offsets": cut.offsets,
                        **_answers(cut, windows, options, trained)}
            else:
                row = _timed(_classifier(experts), windows, args)
                row |= {"memory_gib": (1 << ngram.BITS) * experts * 4 / routing_plan.GIB}
            base = base or row["seconds_per_token"]
            row = {"experts": experts, "mode": mode, "device": "CPU" if mode == "ngram" else device,
                   "agreement": None, **row, "relative_cost": row["seconds_per_token"] / base,
                   "flops_relative": routing_plan.flops_relative(
                       bank.model, bank.scoring, scouts.model, scouts.scoring, experts,
                       row.get("kept", experts), mode == "cascade") if mode != "ngram" else None}
            rows.append(row)
            print("  ".join(f"{_show(row.get(c)):>14}" for c in COLUMNS), flush=True)
            if args.out:
                results.write(args.out, json.dumps({
                    "rows": rows, "trained": bool(args.bank), "keep": keep, "margin": margin,
                    **_about(bank, scouts, options), "device": device, "command": command,
                    "commit": results.commit(), "versions": results.versions()}, indent=1) + "\n")
    return rows


def replicate(bank: ExpertBank, experts: int, noise: float = 0.01) -> ExpertBank:
    """The bank's first experts, then the same again with relative noise, `experts` in all."""
    names, have = bank.names, len(bank.names)
    if experts <= have:
        return bank.select(names[:experts])
    rows, random = np.arange(experts) % have, np.random.default_rng(0)

    def more(x):
        x = np.asarray(x)
        out = x[rows]
        for e in range(have, experts):
            out[e] += noise * x[rows[e]].std() * random.standard_normal(x.shape[1:], np.float32)
        return jnp.asarray(out)

    new = tuple(names[i] if i < have else f"{names[rows[i]]}_{i}" for i in range(experts))
    calibration = {n: bank.calibration[names[r]] for n, r in zip(new, rows, strict=True)}
    return dataclasses.replace(bank, names=new, params=jax.tree.map(more, bank.params),
                               calibration=calibration, about={n: {} for n in new}, folder=None)


def _timed(call, windows: Windows, args) -> dict:
    took = time_calls(lambda i: call(windows), lambda found: None,
                      args.seconds or (1.0 if args.quick else 5.0), warmup=1, groups=3)
    tokens = int(windows.mask.sum())
    return {"tokens_per_s": tokens / took.median, "seconds_per_token": took.median / tokens,
            "tokens_per_s_range": [tokens / took.slowest, tokens / took.fastest],
            "windows": len(windows.tokens), "calls_timed": took.calls}


def of_copies(offsets, names: Sequence[str], copies: Sequence[str]) -> dict[str, float] | None:
    """Offsets of `replicate`d experts: those of the experts that they are copies of."""
    return offsets and {new: offsets[names[i % len(names)]] for i, new in enumerate(copies)}


def _answers(cut: Cascade, windows: Windows, options, trained: bool) -> dict:
    """Experts that the cascade scores on average; of trained ones the share of windows that go
    where exact routing sends them."""
    found = cut.route_all(windows, **options)
    kept = float(np.isfinite(found.residuals).sum(0).mean())
    if not trained:
        return {"kept": kept, "agreement": None}
    exact = router.route_all(cut.bank, windows, **options)
    return {"kept": kept, "agreement": float((found.expert == exact.expert).mean())}


def _rule(args) -> tuple[int, float, dict[str, float] | None]:
    """(keep, margin, offsets) as given, or as stored with the scouts."""
    if not args.bank or args.keep is not None or args.margin is not None:
        return KEEP if args.keep is None else args.keep, args.margin or 0.0, None
    stored = Cascade.load(args.bank, args.scouts)
    return stored.keep, stored.margin, stored.offsets


def _classifier(experts: int):
    """A linear classifier of hashed 1- and 2-grams, of zeros: its cost is that of a trained one."""
    kernel = np.zeros((1 << ngram.BITS, experts), np.float32)
    bias = np.zeros(experts, np.float32)

    def call(windows):
        rows = hashed_counts.rows(windows.tokens, windows.mask, ngram.BITS)
        return ngram.logits(rows, kernel, bias).argmax(1)

    return call


def _given(args) -> tuple[ExpertBank, ExpertBank]:
    if not args.scouts:
        raise UserError("--bank needs --scouts, the folder of their small versions")
    bank, scouts = ExpertBank.load(args.bank), ExpertBank.load(args.scouts)
    pair = Cascade(scouts, bank, 1)
    return pair.bank, pair.scouts


def _drawn(quick: bool) -> tuple[ExpertBank, ExpertBank]:
    """A bank and scouts of one untrained expert each."""
    known = Calibration({(QUICK if quick else FULL).window: np.linspace(1, 12, 100)})

    def one(model, rule, seed):
        params = jax.jit(models.init, static_argnums=0)(model, jax.random.key(seed))
        return ExpertBank(model, ByteTokenizer(), scoring=rule).mount("e0", params, known)

    if quick:
        return one(QUICK, RULE, 0), one(QUICK_SCOUT, SCOUT_RULE, 1)
    return one(FULL, RULE, 0), one(SCOUT, SCOUT_RULE, 1)


def _random(bank: ExpertBank, count: int) -> Windows:
    shape = (count, bank.model.window)
    tokens = np.random.default_rng(0).integers(0, bank.model.vocab_size, shape).astype(np.int32)
    return Windows(tokens, np.ones(shape, bool), np.arange(count, dtype=np.int64))


def _texts(bank: ExpertBank, files: Sequence[str], count: int) -> Windows:
    """Full windows of the files, as many of each, `count` in all at most."""
    found = []
    for name in files:
        block = next(windows_of_text(bank.tokenizer, read_text(name), bank.model.window,
                                     -(-count // len(files))))
        found.append(block.tokens[block.mask.all(1)])
    tokens = np.concatenate(found)[:count]
    if not len(tokens):
        raise UserError(f"the texts hold no full window of {bank.model.window} tokens: give more")
    return Windows(tokens, np.ones(tokens.shape, bool), np.arange(len(tokens), dtype=np.int64))


def _about(bank, scouts, options) -> dict:
    describe = lambda b: {"model": dataclasses.asdict(b.model),
                          "scoring": dataclasses.asdict(b.scoring),
                          "parameters": models.count_parameters(b.model)}
    return {"bank": describe(bank), "scouts": describe(scouts), **options}


def _show(value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}"
    return "-" if value is None else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = lambda text: tuple(int(x) for x in text.split(","))
    parser.add_argument("--quick", action="store_true", help="small models, for a CPU")
    parser.add_argument("--experts", type=whole, help="numbers of experts, such as 1,4,16,64")
    parser.add_argument("--bank", help="folder of trained experts")
    parser.add_argument("--scouts", help="folder of their scouts")
    parser.add_argument("--text", nargs="+", help="UTF-8 files to route; default: random tokens")
    parser.add_argument("--keep", type=int, help="experts scored in full, at least (default: the "
                        f"scouts' cascade.json; without --bank {KEEP})")
    parser.add_argument("--margin", type=float, help="nats/token above the nearest scout within "
                        "which experts are scored too, without offsets (default: cascade.json, or "
                        "0; needs --bank)")
    parser.add_argument("--windows", type=int, help="windows per call of the cascade")
    parser.add_argument("--batch", type=int, help="windows per compiled call")
    parser.add_argument("--chunk", type=int, help="tokens whose logits stand in memory")
    parser.add_argument("--expert-chunk", type=int, default=4, help="experts side by side")
    parser.add_argument("--seconds", type=float, help="of timing per row")
    parser.add_argument("--out", default="", help="write rows and provenance as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
