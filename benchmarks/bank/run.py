"""Trains banks of many experts and scores every window by every rule: raw material of studies.

    python -m benchmarks.bank.run --tokens TOKENS --plan PLAN.json --out OUT

TOKENS is made by `inputs.py`.  PLAN.json lists runs: {"name", "domains", "seed", "model",
"optimizer", "train", "rules"} and, if wanted, "sets" (patterns of keys; all by default), "rows",
"expert_chunk" and "chunk".  A run with "generalist": [domains] in place of "domains" trains one
seed on their joined text, and OUT/NAME/ keeps its weights; the experts of a run with "start": NAME
begin with them (as in Branch-Train-Merge, Li et al. 2022) and the seed itself is their reference
for unknown text.  For each run, OUT/NAME.npz holds sums per set, rule and window ([E, N]; the
generalist's [1, N] apart), OUT/NAME.json settings, curves and times.
"""

import argparse
import concurrent.futures
import fnmatch
import functools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bank.inputs import draw, read_sets
from benchmarks.results import commit
from cr_jax import models
from cr_jax.bank import parameters
from cr_jax.config import SEEN, ModelConfig, OptimizerConfig, Scoring, TrainConfig
from cr_jax.errors import UserError
from cr_jax.parallel import over_experts, plan
from cr_jax.router import score_windows
from cr_jax.scoring import bigram
from cr_jax.scoring.batching import BatchSizes
from cr_jax.training.clock import Clock
from cr_jax.training.step import init_state, make_train_step

GENERALIST = "generalist"


class Run:
    """One stack of experts: settings, programs, results."""

    def __init__(self, spec, tokens: Path):
        self.spec, self.name, self.domains = spec, spec["name"], [*spec.get("domains", ())]
        self.model = ModelConfig(**spec["model"])
        self.optimizer = OptimizerConfig(**spec.get("optimizer", {}))
        self.train = TrainConfig(**spec["train"])
        self.rules = {k: Scoring(**v) for k, v in spec["rules"].items()}
        self.rows = spec.get("rows", 32)
        self.rng = np.random.default_rng(spec.get("seed", 0))
        self.start = spec.get("start", "")
        read = lambda name: np.load(tokens / f"{name}.train.npy", allow_pickle=False)
        self.data = [read(name) for name in self.domains]
        if spec.get("generalist"):
            self.domains = [GENERALIST]
            self.data = [np.concatenate([read(name) for name in spec["generalist"]])]
        self.table = None
        if any(rule.bigram_weight for rule in self.rules.values()):
            if self.start or spec.get("generalist"):
                raise UserError(f"{self.name}: rules with a bigram_weight want a bigram model for "
                                "each expert, and a generalist has none")
            self.table = bigram.table(map(self.bigram, self.data))._asdict()
        self.clock = Clock(self.train, self.model.window, [len(x) for x in self.data])
        make = functools.partial(init_state, self.model, self.optimizer, self.train)
        self.init = jax.jit(jax.vmap(make))
        one = make_train_step(self.model, self.optimizer, self.train)
        self.step = jax.jit(
            over_experts.over_experts(one, len(self.domains), self.train.experts_by),
            donate_argnums=0)

    def keys(self):
        return plan.expert_keys(self.spec.get("seed", 0), self.domains)

    def batch(self):
        return {"tokens": jnp.asarray(
            draw(self.data, self.rng, self.train.batch, self.model.window))}

    def bigram(self, tokens):
        """Of a training text, cut into windows."""
        rows = tokens[:len(tokens) // self.model.window * self.model.window]
        rows = rows.reshape(-1, self.model.window)
        return bigram.count(rows, np.ones(rows.shape, bool), self.model.vocab_size)

    def weights(self, params, rule: Scoring):
        """What a rule computes residuals from."""
        return {**params, bigram.COLLECTION: self.table} if rule.bigram_weight else params

    def compile(self) -> float:
        """Compiles init, step and every rule's scoring; -> seconds."""
        start = time.perf_counter()
        shapes = jax.eval_shape(self.init, self.keys())
        of = jax.ShapeDtypeStruct
        tokens = of((len(self.domains), self.train.batch, self.model.window), jnp.int32)
        self.init = self.init.lower(self.keys()).compile()
        self.step = self.step.lower(
            shapes, {"tokens": tokens}, of((len(self.domains),), jnp.float32)).compile()
        row = (self.rows, self.model.window)
        scored = jax.eval_shape(with_seed, shapes.params) if self.start else shapes.params
        sizes = BatchSizes(self.spec.get("expert_chunk", 10), tokens=self.spec.get("chunk", 16384))
        self.scorers = {
            name: scorer(self.model, sizes, rule).lower(
                self.weights(scored, rule), of(row, jnp.int32), of(row, bool)).compile()
            for name, rule in self.rules.items()}
        return time.perf_counter() - start

    def fit(self, seed=None):
        """Trains, from a seed's params [1, ...] if given; -> (params [E, ...], record)."""
        state, pending, log = self.init(self.keys()), None, []
        if seed:
            spread = jax.jit(lambda seed, like: jax.tree.map(
                lambda s, x: jnp.broadcast_to(s, x.shape), seed, like))
            state = state.replace(params=spread(seed, state.params))
        steps = self.train.steps or -(-self.train.tokens // (self.train.batch * self.model.window))
        jax.block_until_ready(state)
        start = time.perf_counter()
        for i in range(steps):
            state, sums = self.step(state, self.batch(), self.clock.of_experts(i))
            if pending is not None:
                jax.block_until_ready(pending["nll"])
            pending = sums
            if (i + 1) % max(1, steps // 20) == 0:
                count = np.asarray(sums["tokens"])
                log.append({"step": i + 1, "seconds": time.perf_counter() - start,
                            "nll": (np.asarray(sums["nll"]) / count).tolist(),
                            "tra": (np.asarray(sums["correct"]) / count).tolist()})
                print(f"  step {i + 1} of {steps}, nll {np.mean(log[-1]['nll']):.3f}", flush=True)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - start
        tokens = steps * self.train.batch * self.model.window
        return state.params, {"seconds": seconds, "steps": steps, "tokens_per_expert": tokens,
                              "tokens_per_s": tokens * len(self.domains) / seconds, "log": log}

    def score(self, params, sets):
        """Sums [E, N] of every rule over all windows of the sets; -> (sums, seconds per rule)."""
        wanted = [k for k in sets
                  if any(fnmatch.fnmatch(k, p) for p in self.spec.get("sets", ["*"]))]
        join = lambda field: np.concatenate([getattr(sets[k], field) for k in wanted])
        tokens, mask = join("tokens"), join("mask")
        ends = np.cumsum([len(sets[k]) for k in wanted])[:-1]
        fill = -len(tokens) % self.rows
        tokens, mask = (np.pad(x, ((0, fill), (0, 0)), "edge") for x in (tokens, mask))
        out, seconds = {}, {}
        for rule, call in self.scorers.items():
            start, found, pending = time.perf_counter(), [], None
            weights = self.weights(params, self.rules[rule])
            for i in range(0, len(tokens), self.rows):
                new = call(weights, tokens[i:i + self.rows], mask[i:i + self.rows])
                if pending is not None:
                    found.append(jax.device_get(pending))
                pending = new
            found.append(jax.device_get(pending))
            for field in found[0]:
                values = np.concatenate([f[field] for f in found], -1)[:, :len(tokens) - fill]
                experts = len(self.spec.get("domains", ()))
                for key, part in zip(wanted, np.split(values, ends, axis=1), strict=True):
                    out[f"{key}:{rule}:{field}"] = part[:experts]
                    if field != "correct" and len(part) > experts:
                        out[f"{key}:{rule}:{GENERALIST}"] = part[experts:]
            seconds[rule] = time.perf_counter() - start
            print(f"  {rule}: {len(tokens)} windows in {seconds[rule]:.1f} s", flush=True)
        return out, seconds


def with_seed(params, seed=None):
    """params [E, ...] with a seed's [1, ...] (by default the first's) as the last expert."""
    join = lambda x, s: jnp.concatenate([x, s])
    return jax.tree.map(join, params, seed or jax.tree.map(lambda x: x[:1], params))


@functools.cache
def scorer(model, sizes, scoring):
    """jitted (params, tokens, mask) -> sums per window, each [E, B]; the paper's rule gives
    nll and correct tokens, another its residual alone."""

    def sums(params, tokens, mask):
        found = score_windows(model, params, tokens, mask, scoring.residual_rule, sizes)
        if scoring.residual_rule != SEEN:
            return {"residual": found.residual}
        return {"nll": found.residual, "correct": found.exact.astype(jnp.float32)}

    return jax.jit(sums)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", required=True)
    p.add_argument("--plan", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--compilers", type=int, default=4, help="runs compiled side by side")
    p.add_argument("--commit", default="", help="of the code, where it runs outside git")
    a = p.parse_args(arguments)
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        runs = [Run(spec, Path(a.tokens)) for spec in json.loads(Path(a.plan).read_text())]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sets = read_sets(Path(a.tokens) / "sets.npz")
    # Host cores compile the next runs while the device trains one.
    with concurrent.futures.ThreadPoolExecutor(a.compilers) as pool:
        compiled = [pool.submit(run.compile) for run in runs]
        for run, ready in zip(runs, compiled, strict=True):
            print(f"{run.name}: compiled in {ready.result():.0f} s", flush=True)
            seed = run.start and parameters.read_stacked([out / run.start], run.model)
            params, record = run.fit(seed)
            if seed:
                params = with_seed(params, seed)
            if run.domains == [GENERALIST]:
                (out / run.name).mkdir(exist_ok=True)
                one = jax.tree.map(lambda x: np.asarray(x[0]), params)
                parameters.write(out / run.name / parameters.FILE, one)
            print(f"{run.name}: {record['seconds']:.0f} s, {record['tokens_per_s']:,.0f} tokens/s, "
                  f"TRA {np.mean(record['log'][-1]['tra']):.2%}", flush=True)
            sums, seconds = run.score(params, sets)
            # Half precision would do for the picture, not for ties.
            np.savez_compressed(out / f"{run.name}.npz", **sums)
            record = {"spec": run.spec, "params": models.count_parameters(run.model), **record,
                      "score_seconds": seconds, "device": jax.devices()[0].device_kind,
                      "jax": jax.__version__, "commit": a.commit or commit()}
            (out / f"{run.name}.json").write_text(json.dumps(record))
            del params
    return 0


if __name__ == "__main__":
    sys.exit(main())
