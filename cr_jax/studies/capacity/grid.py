"""The axes of the latent-length ablation, and the cells they span.

A cell is one compressor to train: shape, budget, domain, seed.  Cells of equal shape and budget
form a group, which is trained as one program.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from cr_jax.config import Experiment, ModelConfig, TrainConfig, check_model
from cr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Grid:
    """Axes; an empty one keeps the experiment's own value.

    sizes: name -> fields of `ModelConfig` to replace (d_model, heads, encoder_blocks, ...).
    numbers_per_token: (least, most) M x d_z / L that is measured, empty: all; it keeps the grid
    near the bend.  holdout: (M, d_z) settings that are predicted first and measured afterwards.
    thresholds: TRA of the laws, the first one is predicted from.  together: most cells in one
    program.
    """

    windows: tuple[int, ...] = ()
    latents: tuple[int, ...] = ()
    d_latent: tuple[int, ...] = ()
    sizes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    train_tokens: tuple[int, ...] = ()  # per cell
    seeds: tuple[int, ...] = (0, 1)
    numbers_per_token: tuple[float, ...] = ()
    holdout: tuple[tuple[int, int], ...] = ()
    thresholds: tuple[float, ...] = (0.99,)
    together: int = 8


@dataclasses.dataclass(frozen=True)
class Cell:
    """One compressor of the grid.  `budget`: tokens it is trained on; None when a time is set."""

    model: ModelConfig
    train: TrainConfig
    size: str
    budget: int | None
    domain: str
    seed: int

    @property
    def label(self) -> str:
        m = self.model
        size = f" {self.size}" if self.size else ""
        budget = f", {self.budget:,} tokens" if self.budget else ""
        return f"L={m.window} M={m.latents} d_z={m.d_latent}{size}{budget}"


def make_grid(raw: Mapping[str, Any]) -> Grid:
    """`config.ablation` as plain data -> `Grid`.  Raises `UserError` naming the bad field."""
    known = {f.name: f for f in dataclasses.fields(Grid)}
    wrong = sorted(set(raw) - set(known))
    if wrong:
        raise UserError(f"config.ablation has no field '{wrong[0]}'; there are: {', '.join(known)}")
    values = dict(raw)
    for name in ("windows", "latents", "d_latent", "train_tokens"):
        values[name] = _numbers(raw, name, int, lambda v: v >= 1, "whole numbers of 1 or more")
    values["seeds"] = _numbers(
        raw, "seeds", int, lambda v: v >= 0, "whole numbers, at least one", (0, 1)
    )
    values["numbers_per_token"] = _numbers(
        raw, "numbers_per_token", (int, float), lambda v: v > 0, "two numbers"
    )
    values["thresholds"] = _numbers(
        raw, "thresholds", float, lambda v: 0 < v < 1, "shares between 0 and 1", (0.99,)
    )
    if not (
        values["seeds"] and values["thresholds"] and len(values["numbers_per_token"]) in (0, 2)
    ):
        raise UserError(
            "config.ablation needs at least one seed and one threshold, and none or "
            "two numbers_per_token (least and most M x d_z / L)"
        )
    pairs = tuple(tuple(pair) for pair in raw.get("holdout", ()))
    if not all(len(p) == 2 and all(isinstance(v, int) and v >= 1 for v in p) for p in pairs):
        raise UserError(
            "config.ablation.holdout must be pairs (latents, d_latent), for example "
            "((16, 64), (4, 48))"
        )
    values["holdout"] = pairs
    if not isinstance(raw.get("together", 8), int) or raw.get("together", 8) < 1:
        raise UserError("config.ablation.together must be at least 1")
    sizes = raw.get("sizes", {})
    fields = {f.name for f in dataclasses.fields(ModelConfig)} - {"window", "latents", "d_latent"}
    for size, changes in sizes.items():
        bad = sorted(set(changes) - fields)
        if bad:
            raise UserError(
                f"config.ablation.sizes.{size} has no field '{bad[0]}'; there are: "
                f"{', '.join(sorted(fields))}"
            )
    values["sizes"] = types.MappingProxyType(
        {n: types.MappingProxyType(dict(v)) for n, v in sizes.items()}
    )
    return Grid(**values)


def groups(experiment: Experiment, grid: Grid, held_out: bool) -> list[dict[str, Cell]]:
    """The cells of the grid, or of its held-out settings, as groups {name: cell} of equal shape.

    Every step sees the same number of tokens whatever L is (train.batch x model.window of the
    config), so equal budgets are equal steps.  Cells with M > L or outside `numbers_per_token` are
    left out.  Raises `UserError` when a shape is impossible or nothing is left.
    """
    base, settings = experiment.model, experiment.train
    pairs = [
        (m, d) for m in grid.latents or (base.latents,) for d in grid.d_latent or (base.d_latent,)
    ]
    pairs = list(grid.holdout) if held_out else [p for p in pairs if p not in grid.holdout]
    low, high = grid.numbers_per_token or (0, float("inf"))
    per_step = settings.batch * base.window
    batches = []
    for size, changes in (grid.sizes or {"": {}}).items():
        for budget in grid.train_tokens or (None,):
            for latents, width in pairs:
                for window in grid.windows or (base.window,):
                    if window < latents or not low <= latents * width / window <= high:
                        continue
                    if per_step % window:
                        raise UserError(
                            f"config.ablation.windows: {window} does not divide the {per_step} "
                            "tokens of a step (config.train.batch x config.model.window)"
                        )
                    model = dataclasses.replace(
                        base, **{**changes, "window": window, "latents": latents, "d_latent": width}
                    )
                    check_model(model)
                    train = dataclasses.replace(
                        settings,
                        batch=per_step // window,
                        **({"tokens": budget, "steps": 0, "seconds": 0.0} if budget else {}),
                    )
                    if train.batch % train.accumulate:
                        raise UserError(
                            f"config.ablation.windows: {window} leaves {train.batch} windows a "
                            f"step, no multiple of config.train.accumulate={train.accumulate}"
                        )
                    seen = train.tokens or train.steps * per_step or None
                    batches.append(
                        {
                            f"{domain}-{seed}": Cell(model, train, size, seen, domain, seed)
                            for domain in experiment.data.domains
                            for seed in grid.seeds
                        }
                    )
    if not batches:
        raise UserError(
            "config.ablation leaves nothing to measure: no window holds as many "
            "tokens as there are latents, within numbers_per_token"
        )
    return batches


def _numbers(raw, name, kind, good, wanted, default=()):
    values = raw.get(name, default)
    values = tuple(values) if isinstance(values, (list, tuple)) else (values,)
    if not all(isinstance(v, kind) and not isinstance(v, bool) and good(v) for v in values):
        raise UserError(f"config.ablation.{name} must hold {wanted}, got {values}")
    return values
