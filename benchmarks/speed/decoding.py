"""Tokens per second of texts that are each spoken by their own expert, beside one dense model.

    python -m benchmarks.speed.decoding --quick                      # any CPU, about a minute
    python -m benchmarks.speed.decoding --out results/decoding.json  # a GPU, full size

Every expert, and the dense model, has the same size: what a text is spoken by costs the same, and
routed decoding reads the matrices of all experts that speak where dense reads one model's.  Weights
are fresh: costs are real, the text is noise.  All arms go through the same programs,
`modular.speakers` for decoding and `modular.grouped_score` for scoring, host work included; the
dense arm has one group.

A `decode` row: `batch` texts with `prompt` tokens each say --tokens more, drawn by temperature and
top_p, chunk by chunk; only chunks are timed.  experts: that texts are dealt to at random, as many
as `speak` in the batch; mix: experts that speak a text together; of_dense: tokens/s over those of
the dense row of the same batch.  A `prefill` row: tokens/s at which the same texts are read, and
the experts' matrices brought into the form and dtype of steps.  A
`score` row: --documents windows of --window tokens, each scored by its own expert; `of_dense`
likewise.  `memory`: bytes on the device with all experts resident, as stored (float32) and ready
for steps, or with one loaded; `load_ms`: until an expert that lies in the host's memory can speak.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import results
from benchmarks.timing import time_calls
from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import lm
from cr_jax.models.lm import grouped
from cr_jax.modular import decode
from cr_jax.modular.grouped_score import spoken_nats
from cr_jax.modular.speakers import Speakers, stacked

# The language models of configs/modular.py, and a size for CPUs.
FULL = LmConfig(vocab_size=32768, d_model=256, heads=4, d_ff=768, blocks=3)
QUICK = LmConfig(vocab_size=512, d_model=64, heads=4, d_ff=128, blocks=2)
COLUMNS = ("what", "arm", "batch", "mix", "speak", "tokens_per_s", "of_dense", "ms")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a row at a time, rewrites --out after each; returns the exit status."""
    return results.answered("benchmarks.speed.decoding", run, _parser().parse_args(argv), argv)


def run(args, command: str) -> list[dict]:
    """All rows: decoding and reading at each batch, scoring, then memory."""
    config = _model(args)
    params = _fresh(config, args.experts)
    arms = {"dense": 1, "routed": args.experts}
    rows, device = [], jax.devices()[0].device_kind
    about = {
        "model": dataclasses.asdict(config),
        "parameters": lm.count_lm_parameters(config),
        "cache_bytes_of_a_text": lm.cache_bytes(config, args.context),
        "prompt": args.prompt,
        "tokens": args.tokens,
        "context": args.context,
    }
    print("  ".join(f"{c:>12}" for c in COLUMNS), flush=True)

    def add(row):
        rows.append(row := {"device": device, **row})
        same = [r for r in rows if (r["what"], r["batch"]) == (row["what"], row["batch"])]
        dense = next((r for r in same if r["arm"] == "dense"), None)
        if dense and "tokens_per_s" in row:
            row["of_dense"] = row["tokens_per_s"] / dense["tokens_per_s"]
        print("  ".join(f"{_show(row.get(c)):>12}" for c in COLUMNS), flush=True)
        if args.out:
            rest = {
                "command": command,
                "commit": results.commit(),
                "versions": results.versions(),
                "device": device,
            }
            whole = {"rows": rows, **about, **rest}
            results.write(args.out, json.dumps(whole, indent=1) + "\n")

    for batch in args.batches:
        for arm, experts in arms.items():
            for mix in (1, *args.mix) if arm == "routed" else (1,):
                if mix <= experts:
                    for row in _decoding(config, params, args, batch, experts, mix):
                        add({"arm": arm, "batch": batch, "mix": mix, **row})
    for arm, experts in arms.items():
        add({"arm": arm, "batch": args.documents, **_scoring(config, params, args, experts)})
    for row in _memory(config, params):
        add({"batch": 1, **row})
    return rows


def _decoding(config: LmConfig, params, args, batch: int, experts: int, mix: int) -> list[dict]:
    """A row of reading the prompts and one of saying tokens after them."""
    draw = np.random.default_rng(batch)
    prompts = list(draw.integers(0, config.vocab_size, (batch, args.prompt), np.int32))
    speak = np.stack([draw.permutation(experts)[:mix] for _ in range(batch)])
    own = params if experts > 1 else jax.tree.map(lambda x: x[:1], params)
    sampling = decode.Sampling(
        jnp.float32(args.temperature),
        jnp.float32(args.top_p),
        jax.random.split(jax.random.key(0), batch),
        jnp.ones(config.vocab_size, bool),
        jnp.int32(decode.NONE),  # no text ends
    )
    rule = decode.Rule(args.temperature == 0, args.top_p < 1)
    said, read = [], []
    while len(read) < 3 or sum(said) < args.seconds:  # the first compiles
        texts = Speakers(
            stacked(config, own), prompts, sampling, rule, context=args.context, room=args.tokens
        )
        start = time.perf_counter()
        texts.give(speak)
        jax.block_until_ready(texts.states)
        read.append(time.perf_counter() - start)
        texts.speak(decode.CHUNK)  # compiled, or warm
        for _ in range(max(1, args.tokens // decode.CHUNK - 1)):
            start = time.perf_counter()
            texts.speak(decode.CHUNK)
            said.append(time.perf_counter() - start)
    chunk = float(np.median(said))
    prefill = float(np.median(read[1:]))
    shared = {"speak": len(np.unique(speak)), "cache_positions": texts.length}
    return [
        {
            "what": "prefill",
            "tokens_per_s": batch * args.prompt / prefill,
            "ms": 1000 * prefill,
            **shared,
        },
        {
            "what": "decode",
            "tokens_per_s": batch * decode.CHUNK / chunk,
            "ms": 1000 * chunk / decode.CHUNK,  # of a step
            "tokens_per_s_range": [
                batch * decode.CHUNK / max(said),
                batch * decode.CHUNK / min(said),
            ],
            "chunks_timed": len(said),
            **shared,
        },
    ]


def _scoring(config: LmConfig, params, args, experts: int) -> dict:
    """Windows dealt to the experts at random, scored each by its own."""
    draw = np.random.default_rng(1)
    shape = (args.documents, args.window)
    tokens = draw.integers(0, config.vocab_size, shape, np.int32)
    own = draw.integers(0, experts, args.documents)
    models = stacked(config, params)
    took = time_calls(
        lambda i: spoken_nats(models, own, tokens, chunk=args.chunk),
        lambda found: None,  # on the host already
        args.seconds,
        warmup=1,
        groups=3,
    )
    return {
        "what": "score",
        "tokens_per_s": tokens.size / took.median,
        "ms": 1000 * took.median,
        "tokens_per_s_range": [tokens.size / took.slowest, tokens.size / took.fastest],
        "speak": len(np.unique(own)),
        "window": args.window,
    }


def _memory(config: LmConfig, params) -> list[dict]:
    """What experts take on the device, all or one, and how long one takes to come."""
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    ready = grouped.weights(config, params)
    all_of_them = {"stored_bytes": size(params), "ready_bytes": size(ready)}
    del ready
    host = jax.device_get(params)
    experts = len(jax.tree.leaves(host)[0])

    def load(i):
        return grouped.weights(config, stacked(config, host).stack(np.array([i % experts])))

    took = time_calls(load, jax.block_until_ready, 1.0, warmup=1, groups=3, most=20)
    one = load(0)
    stats = jax.local_devices()[0].memory_stats() or {}
    return [
        {"what": "memory", "arm": "resident", "experts": experts, **all_of_them},
        {
            "what": "memory",
            "arm": "on demand",
            "experts": 1,
            "stored_bytes": 0,
            "ready_bytes": size(one),
            "load_ms": 1000 * took.median,
            "ms": 1000 * took.median,
            "peak_bytes_of_the_run": stats.get("peak_bytes_in_use"),
        },
    ]


def _fresh(config: LmConfig, experts: int):
    """Parameters [E, ...] on the device.  Heads are zeros at first: noise, so that texts differ."""

    @jax.jit
    def draw(key):
        made = jax.vmap(lambda k: lm.init(config, k))(jax.random.split(key, experts))
        leaves, tree = jax.tree.flatten(made)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            x + 0.02 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(tree, noisy)

    return jax.block_until_ready(draw(jax.random.key(0)))


def _model(args) -> LmConfig:
    config = QUICK if args.quick else FULL
    for change in args.set:
        name, _, value = change.partition("=")
        if name not in vars(config):
            raise UserError(f"--set {change}: LmConfig has no field {name!r}")
        kind = type(getattr(config, name))
        try:
            made = value in ("True", "true", "1") if kind is bool else kind(value)
        except ValueError:
            raise UserError(f"--set {change}: {name} is a {kind.__name__}") from None
        config = dataclasses.replace(config, **{name: made})
    lm.make_lm(config)
    if args.context < args.prompt + args.tokens + 1 + decode.CHUNK:
        raise UserError(
            f"--context {args.context} has no room for {args.prompt} + {args.tokens} tokens and "
            f"a chunk of {decode.CHUNK}: caches would be filled anew while they are timed"
        )
    return config


def _show(value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}"
    return "-" if value is None else str(value)


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = lambda text: tuple(int(x) for x in text.split(",") if x)
    p.add_argument("--quick", action="store_true", help="a tiny model, for a CPU")
    p.add_argument("--experts", type=int, default=20)
    p.add_argument("--batches", type=whole, default=(1, 64), help="texts at once, such as 1,64")
    p.add_argument("--mix", type=whole, default=(2, 4), help="experts of a text, besides 1")
    p.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    p.add_argument("--tokens", type=int, default=384, help="said after each prompt")
    p.add_argument("--context", type=int, default=512, help="positions of a cache")
    p.add_argument("--documents", type=int, default=256, help="windows of the mixed batch")
    p.add_argument("--window", type=int, default=512, help="tokens of each of these")
    p.add_argument("--chunk", type=int, default=16384, help="tokens whose logits stand in memory")
    p.add_argument("--temperature", type=float, default=0.8)
    p.add_argument("--top-p", type=float, default=0.95)
    p.add_argument("--seconds", type=float, default=5.0, help="timed per row")
    p.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of the LmConfig"
    )
    p.add_argument("--out", default="", help="write rows and provenance as JSON")
    return p


if __name__ == "__main__":
    sys.exit(main())
