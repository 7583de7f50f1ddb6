"""What a run tells on its way: a line per expert in the metrics, the bar, a callback."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.training.optimizer import rate
from cr_jax.training.speed import peak_flops

BAR = "train {percentage:5.1f}% |{bar:24}| {desc}"
_KEPT = (
    "lower config.optimizer.learning_rate and muon_learning_rate; a workdir keeps what was "
    "saved before, start in a new one"
)


class Progress:
    """Turns the device's sums into metrics; call it with a step, its sums [E] and the progress [E]
    that it was made at.

    Seconds per phase since the line before are written as `seconds_data`, `seconds_step`,
    `seconds_validate` and `seconds_checkpoint` (`cr_jax.training.phases`).  The bar shows the
    seconds of steps of all starts, and the time left at the speed of this start, pauses included.
    job.rates: of each expert, what its learning rates are multiplied by.
    """

    def __init__(self, job, clock, phases, writer, bar, on_log):
        self.experiment, self.names = job.experiment, job.names
        self.clock, self.phases, self.flops = clock, phases, job.loss.flops_per_token
        self.rates = job.rates or (1.0,) * len(job.names)
        self.writer, self.bar, self.on_log = writer, bar, on_log
        self.last = self.began = None
        self.text = self.valid = ""

    def start(self, step: int) -> None:
        """The next step is this start's first; the clock stands."""
        self.began = (self.clock.progress(step), time.perf_counter())
        self.last = (step, self.clock.seconds())

    def validated(self, look) -> None:
        """Writes what `Validation.look` found."""
        tra = [v["valid_tra"] for v in look["experts"].values()]
        self.valid = f", valid {_range(tra)}"
        if self.writer:
            for name, values in look["experts"].items():
                self.writer.write(look["step"], name, {"seconds": look["seconds"], **values})
        self._show()

    def __call__(self, step: int, sums, progress) -> None:
        host = jax.device_get(sums)
        self.phases.enter("log")
        now = self.clock.seconds()
        spent = self.phases.news()
        speed = {
            f"seconds_{name}": spent[name] for name in ("data", "step", "validate", "checkpoint")
        }
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
                "gradient_norm": one["gradient_norm"],
                "seconds": now,
                "rate": self.rates[i]
                * float(rate(self.experiment.optimizer, jnp.float32(progress[i]))),
                **speed,
            }
            if self.writer:
                self.writer.write(step, name, values[name])
        speed = speed.get("tokens_per_s")
        self.text = f"step {step}, TRA {_range([v['tra'] for v in values.values()])}" + (
            f", {speed:,.0f} tokens/s" if speed else ""
        )
        self._show()
        if self.on_log:
            self.on_log(step, values)
        self.phases.enter("step")

    def _show(self) -> None:
        done, passed = min(1.0, self.clock.progress(self.last[0])), self.clock.seconds()
        share = done - self.began[0]
        left = (
            (1 - done) / share * (time.perf_counter() - self.began[1])
            if share > 0
            else float("inf")
        )
        until = tqdm.format_interval(round(left)) if np.isfinite(left) else "?"
        self.bar.set_description_str(
            f"{tqdm.format_interval(passed)} passed, {until} left, {self.text}{self.valid}",
            refresh=False,
        )
        self.bar.update(max(0.0, 100 * done - self.bar.n))


def _range(tra: list[float]) -> str:
    """ "99.12%" of one expert, "98.1-99.9%" of several."""
    low, high = min(tra), max(tra)
    return f"{low:.2%}" if len(tra) == 1 else f"{100 * low:.1f}-{high:.1%}"


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
