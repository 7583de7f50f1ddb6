"""Trains banks of many experts and scores every window by every rule: raw material of studies.

    python -m benchmarks.bank.run --tokens TOKENS --out OUT --plan PLAN.json

TOKENS holds NAME.train.npy [T], NAME.valid.npy and NAME.test.npy [N, 512] (uint16).  PLAN.json
lists runs: {"name", "domains", "unseen", "seed", "model", "optimizer", "train", "rules",
"lengths", "windows", "cut_windows"}.  For each, OUT/NAME.npz holds residuals per rule [E, N]
(nats/token) and OUT/NAME.json the settings, curves and times.  Programs of all runs are compiled
side by side before the first run starts.
"""

import argparse
import concurrent.futures
import functools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax import mapping, models, parallel, router
from cr_jax.config import SEEN, ModelConfig, OptimizerConfig, Scoring, TrainConfig
from cr_jax.training.step import init_state, make_train_step


class Run:
    """One stack of experts: settings, programs, results."""

    def __init__(self, spec, tokens: Path):
        self.spec, self.name = spec, spec["name"]
        self.domains, self.unseen = spec["domains"], spec.get("unseen", [])
        self.model = ModelConfig(**spec["model"])
        self.optimizer = OptimizerConfig(**spec.get("optimizer", {}))
        self.train = TrainConfig(**spec["train"])
        self.rules = {k: Scoring(**v) for k, v in spec["rules"].items()}
        self.tokens = tokens
        self.rng = np.random.default_rng(spec.get("seed", 0))
        self.data = [np.load(tokens / f"{d}.train.npy") for d in self.domains]
        make = functools.partial(init_state, self.model, self.optimizer, self.train)
        self.init = jax.jit(jax.vmap(make))
        one = make_train_step(self.model, self.optimizer, self.train)
        self.step = jax.jit(mapping.over_experts(one, len(self.domains), self.train.experts_by),
                            donate_argnums=0)

    def keys(self):
        return parallel.expert_keys(self.spec.get("seed", 0), self.domains)

    def batch(self):
        rows, window = self.train.batch, self.model.window
        at = lambda d: self.rng.integers(0, len(d) - window, rows)[:, None] + np.arange(window)
        return {"tokens": jnp.asarray(np.stack([d[at(d)] for d in self.data]).astype(np.int32))}

    def compile(self):
        """Compiles init and step; -> seconds."""
        start = time.perf_counter()
        shapes = jax.eval_shape(self.init, self.keys())
        tokens = jax.ShapeDtypeStruct((len(self.domains), self.train.batch, self.model.window),
                                      jnp.int32)
        progress = jax.ShapeDtypeStruct((), jnp.float32)
        self.init_c = self.init.lower(self.keys()).compile()
        self.step_c = self.step.lower(shapes, {"tokens": tokens}, progress).compile()
        rows = self.spec.get("rows", 32)
        ids = jax.ShapeDtypeStruct((rows, self.model.window), jnp.int32)
        mask = jax.ShapeDtypeStruct((rows, self.model.window), bool)
        for rule in self.rules.values():
            self.scorer(rule).lower(shapes.params, ids, mask).compile()
        return time.perf_counter() - start

    def scorer(self, scoring):
        return scorer(self.model, self.spec.get("expert_chunk", 8), self.spec.get("chunk", 16384),
                      scoring)

    def fit(self):
        """Trains; -> (params [E, ...], log)."""
        state, pending, log = self.init_c(self.keys()), None, []
        steps = self.train.steps or -(-self.train.tokens // (self.train.batch * self.model.window))
        jax.block_until_ready(state)
        start = time.perf_counter()
        for i in range(steps):
            state, sums = self.step_c(state, self.batch(), np.float32(i / steps))
            if pending is not None:
                jax.block_until_ready(pending["nll"])
            pending = sums
            if (i + 1) % max(1, steps // 20) == 0:
                count = np.asarray(sums["tokens"])
                log.append({"step": i + 1, "seconds": time.perf_counter() - start,
                            "nll": (np.asarray(sums["nll"]) / count).tolist(),
                            "tra": (np.asarray(sums["correct"]) / count).tolist()})
        jax.block_until_ready(state)
        seconds = time.perf_counter() - start
        tokens = steps * self.train.batch * self.model.window
        return state.params, {"seconds": seconds, "steps": steps, "tokens_per_expert": tokens,
                              "tokens_per_s": tokens * len(self.domains) / seconds, "log": log}

    def windows(self, split, length):
        """(domain, windows); cut ones come from test only, and fewer of them."""
        whole = length == self.model.window
        if split == "valid" and not whole:
            return
        for d in [*self.domains, *(self.unseen if split == "test" and whole else [])]:
            found = np.load(self.tokens / f"{d}.{split}.npy").astype(np.int32)
            yield d, found[:self.spec["windows" if whole else "cut_windows"]]

    def score(self, params):
        """All rules on all windows at all lengths: sums per window."""
        rows, window = self.spec.get("rows", 32), self.model.window
        out, cost = {}, {}
        for rule, scoring in self.rules.items():
            call = self.scorer(scoring)
            for length in self.spec.get("lengths", [window]):
                for split in ("valid", "test"):
                    for d, tokens in self.windows(split, length):
                        found = []
                        start = time.perf_counter()
                        for i in range(0, len(tokens), rows):
                            part = tokens[i:i + rows]
                            part = np.pad(part, ((0, rows - len(part)), (0, 0)), "edge")
                            mask = np.broadcast_to(np.arange(window) < length, part.shape)
                            found.append(call(params, part, mask))
                        found = jax.device_get(found)
                        for key in found[0]:
                            value = np.concatenate([x[key] for x in found], -1)[:, :len(tokens)]
                            out[f"{rule}/{length}/{split}/{d}/{key}"] = value / length
                        cost[f"{rule}/{length}"] = cost.get(f"{rule}/{length}", 0) + (
                            time.perf_counter() - start)
        return out, cost


@functools.cache
def scorer(model, expert_chunk, chunk, scoring):
    """jitted (params, tokens, mask) -> sums per window, each [E, B]; the paper's rule gives
    nll, correct tokens and residual, another its residual alone."""

    def sums(params, tokens, mask):
        scores = router.score_experts(model, params, tokens, mask, expert_chunk, chunk, scoring)
        add = lambda x: jnp.sum(jnp.where(mask[None], x, 0), -1, dtype=jnp.float32)
        if scoring == SEEN:
            return {"nll": add(scores.nll), "correct": add(scores.correct)}
        return {"residual": add(scores.residual)}

    return jax.jit(sums)


def main(arguments=None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", required=True)
    p.add_argument("--plan", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    runs = [Run(spec, Path(a.tokens)) for spec in json.loads(Path(a.plan).read_text())]
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seconds = list(pool.map(lambda run: run.compile(), runs))
    print(f"compiled in {time.perf_counter() - start:.0f} s", seconds, flush=True)
    for run in runs:
        params, log = run.fit()
        print(run.name, f"{log['seconds']:.0f} s {log['tokens_per_s']:,.0f} tok/s", "tra",
              np.round(log["log"][-1]["tra"], 4), flush=True)
        start = time.perf_counter()
        sums, cost = run.score(params)
        np.savez_compressed(out / f"{run.name}.npz",
                            **{k: v.astype(np.float32) for k, v in sums.items()})
        record = {"spec": run.spec, "params": models.count_parameters(run.model), **log,
                  "score_seconds": cost, "device": jax.devices()[0].device_kind,
                  "jax": jax.__version__}
        (out / f"{run.name}.json").write_text(json.dumps(record))
        print(f"  scored in {time.perf_counter() - start:.0f} s",
              {k: round(v, 1) for k, v in cost.items()}, flush=True)
        del params
    return 0


if __name__ == "__main__":
    sys.exit(main())
