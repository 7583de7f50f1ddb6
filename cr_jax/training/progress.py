"""What a run tells on its way: a line per expert in the metrics, the bar, a callback."""

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.training.optimizer import rate
from cr_jax.training.speed import flops_per_token, peak_flops

_KEPT = ("what was saved before is kept: lower config.optimizer.learning_rate and "
         "muon_learning_rate, and start in a new --workdir")


class Progress:
    """Turns the device's sums into metrics; call it with a step, its sums [E] and the progress [E]
    that it was made at.

    Seconds per phase since the line before are written as `seconds_data`, `seconds_step` and
    `seconds_checkpoint` (`cr_jax.training.phases`).
    """

    def __init__(self, experiment, model, names, clock, phases, writer, bar, on_log):
        self.experiment, self.names, self.clock, self.phases = experiment, names, clock, phases
        self.writer, self.bar, self.on_log = writer, bar, on_log
        self.flops = flops_per_token(model)
        self.last = None

    def __call__(self, step: int, sums, progress) -> None:
        host = jax.device_get(sums)
        self.phases.enter("log")
        now = self.clock.seconds()
        spent = self.phases.news()
        speed = {f"seconds_{name}": spent[name] for name in ("data", "step", "checkpoint")}
        if self.last and now > self.last[1]:
            tokens = self.clock.tokens(step) - self.clock.tokens(self.last[0])
            speed["tokens_per_s"] = tokens * len(self.names) / (now - self.last[1])
            peak = peak_flops()
            if peak:
                speed["mfu"] = speed["tokens_per_s"] * self.flops / peak / jax.device_count()
        self.last = (step, now)
        values = {}
        for i, name in enumerate(self.names):
            one = {k: float(v[i]) for k, v in host.items()}
            values[name] = {
                **{k: v for k, v in objective.metrics(one).items() if k in ("tra", "nll")},
                "gradient_norm": one["gradient_norm"], "seconds": now,
                "rate": float(rate(self.experiment.optimizer, jnp.float32(progress[i]))), **speed}
            if self.writer:
                self.writer.write(step, name, values[name])
        self._show(step, values)
        if self.on_log:
            self.on_log(step, values)
        self.phases.enter("step")

    def _show(self, step, values) -> None:
        tra = [v["tra"] for v in values.values()]
        speed = next(iter(values.values())).get("tokens_per_s")
        fast = f", {speed:,.0f} tokens/s" if speed else ""
        self.bar.set_postfix_str(f"step {step}, TRA {min(tra):.1%}-{max(tra):.1%}{fast}"
                                 .replace("%-", "-", 1) if len(tra) > 1
                                 else f"step {step}, TRA {tra[0]:.2%}{fast}")
        self.bar.update(max(0.0, min(100.0, 100 * self.clock.progress(step)) - self.bar.n))


def check_finite(step: int, sums, names) -> None:
    """`UserError` that names the experts whose loss or gradient [E] is not finite."""
    nll, norm = jax.device_get((sums["nll"], sums["gradient_norm"]))
    bad = [n for n, ok in zip(names, np.isfinite(nll) & np.isfinite(norm), strict=True) if not ok]
    if bad:
        raise UserError(f"the loss of {', '.join(bad)} is not finite at step {step}; {_KEPT}")


def check_state(step: int, state) -> None:
    """`UserError` when a parameter or a moment is not finite after a step.

    state: a tree as `Plan.gather` gives it; of several processes all must call it.
    """
    if not _all_finite([x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]):
        raise UserError(f"the parameters are not finite after step {step}; {_KEPT}")


@jax.jit
def _all_finite(leaves):
    # One truth, not one per expert: every process can read it however the leaves are split.
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
