"""Validation while training: when, on which windows, what the best step was.

Not in the paper.  Figures come from `Loss.score`, so from `models.objective.token_scores`, as in
every evaluation.
"""

import functools
import math
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from cr_jax.config import Experiment, validation_period
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.parallel.plan import Plan
from cr_jax.training.clock import Clock
from cr_jax.training.losses import Loss, of_a_step

Look = dict[str, Any]  # {"step", "seconds", "loss", "experts": {name: figures}}


class Validation:
    """The looks at valid of one run, in step order in `looks`.

    A look has "step", "seconds" of steps until then, per expert "valid_nll" (nats/token),
    "valid_tra", of a predictive model "valid_predicted_nll" (nats/token), and "loss": what training
    lowers, nll + predict_weight x predicted nll, mean over the experts.  The best step is the one
    with the lowest loss.
    """

    def __init__(
        self, experiment: Experiment, loss: Loss, windows: Mapping[str, Windows], clock: Clock
    ):
        """windows: of each expert; `eval.every_windows` of them are used, evenly spread."""
        e = experiment.eval
        self.period, self.unit = validation_period(e.every)
        self.clock, self.loss, self.names = clock, loss, tuple(windows)
        self.rows = min(e.batch, experiment.train.batch)
        self.weight = experiment.train.predict_weight
        self.windows = [w.spread(e.every_windows) for w in windows.values()]
        for name, w in zip(self.names, self.windows, strict=True):
            if not w.mask.any():
                raise UserError(
                    f"{name}: its valid text has no token to validate on; give more, "
                    "or config.eval.every=''"
                )
        self.looks: list[Look] = []
        self.passed = 0  # periods that a look was made for

    def compile(self, plan: Plan, experts_by, params: Any) -> None:
        """Puts the windows on the devices and compiles the one program that scores them."""
        devices = plan.row_devices
        most = max(len(w) for w in self.windows)
        pieces = -(-most // (max(1, self.rows // devices) * devices))
        each = -(-most // (pieces * devices)) * devices

        def filled(field, value):
            out = np.full(
                (len(self.windows), pieces * each, *self.windows[0].tokens.shape[1:]), value
            )
            for e, w in enumerate(self.windows):
                out[e, : len(w)] = getattr(w, field)
            return out

        rows = {"tokens": filled("tokens", np.int32(0)), "counted": filled("mask", False)}
        if not all(w.mask.all() for w in self.windows):
            # Rows that only fill up are whole: attention needs a token to look at.
            rows["mask"] = rows["counted"] | ~rows["counted"].any(-1, keepdims=True)

        rows = plan.put_whole(rows)
        make_sums = functools.partial(_make_sums, of_a_step(self.loss), pieces)
        program = plan.compile_sums(make_sums, experts_by, params, rows)
        self.run = lambda params: program(params, rows)

    def due(self, step: int) -> bool:
        """Whether a period has ended since the last look."""
        return self._periods(step) > self.passed

    def _periods(self, step: int) -> int:
        done = {
            "steps": lambda: step,
            "tokens": lambda: self.clock.tokens(step),
            "seconds": self.clock.seconds,
        }[self.unit]()
        return math.floor(done / self.period)

    def look(self, step: int, params: Any) -> bool:
        """Scores the windows and waits for it; whether the step is the best so far.

        Every process gets the same figures.
        """
        host = jax.device_get(self.run(params))
        experts = {}
        for e, name in enumerate(self.names):
            one = {k: float(v[e]) for k, v in host.items()}
            figures = objective.metrics(one)
            experts[name] = {"valid_nll": figures["nll"], "valid_tra": figures["tra"]}
            if "predicted_nll" in one:
                experts[name]["valid_predicted_nll"] = one["predicted_nll"] / figures["tokens"]
        loss = float(np.mean([loss_of(x, self.weight) for x in experts.values()]))
        best = self.best
        self.passed = max(self.passed + 1, self._periods(step)) if step else 0
        self.looks.append(
            {"step": step, "seconds": self.clock.seconds(), "loss": loss, "experts": experts}
        )
        return best is None or loss < best["loss"]

    @property
    def best(self) -> Look | None:
        """The first look with the lowest loss."""
        return best_of(self.looks)

    @property
    def improved(self) -> Bool[np.ndarray, " E"]:
        """Whose loss was lower at the last look than at any before."""
        losses = np.array(
            [[loss_of(x["experts"][n], self.weight) for n in self.names] for x in self.looks]
        )
        return (losses[-1] < losses[:-1].min(0, initial=np.inf)) | (len(losses) == 1)

    def to_record(self) -> dict:
        return {"every": f"{self.period:g} {self.unit}", "passed": self.passed, "looks": self.looks}

    def go_on(self, record: Mapping[str, Any] | None, step: int) -> None:
        """Takes up what the checkpoint of `step` remembers."""
        record = record or {}
        self.looks = list(record.get("looks", ()))
        same = record.get("every") == f"{self.period:g} {self.unit}"
        self.passed = record["passed"] if same else self._periods(step)


def _make_sums(loss: Loss, pieces: int, axis_name: str | None):
    """sums(params, rows) of one expert: `Loss.score`, in so many pieces, over all devices."""

    def sums(params, rows):
        # Every pieces-th row: a block of rows would lie on few of the devices.
        split = jax.tree.map(lambda x: x.reshape(-1, pieces, x.shape[-1]).swapaxes(0, 1), rows)
        parts = jax.lax.map(lambda piece: loss.score(params, piece), split)
        found = jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)
        return jax.lax.psum(found, axis_name) if axis_name else found

    return sums


def loss_of(figures: Mapping[str, float], predict_weight: float = 0.0) -> float:
    """What training lowers of one expert, nats/token, from its figures at a look."""
    return figures["valid_nll"] + predict_weight * figures.get("valid_predicted_nll", 0.0)


def best_of(looks: list[Look]) -> Look | None:
    """The first look with the lowest loss; None without looks."""
    return min(looks, key=lambda look: look["loss"], default=None)


def seconds_to(looks: list[Look], target: float) -> dict[str, float | None]:
    """Per expert: seconds of steps until the first look with TRA >= target on valid, or None."""
    names = looks[0]["experts"] if looks else ()
    return {
        n: next((x["seconds"] for x in looks if x["experts"][n]["valid_tra"] >= target), None)
        for n in names
    }


NEVER = types.SimpleNamespace(  # a run without validation
    looks=[],
    best=None,
    due=lambda step: False,
    unit="",
    to_record=dict,
    compile=lambda *_: None,
    go_on=lambda *_: None,
)
