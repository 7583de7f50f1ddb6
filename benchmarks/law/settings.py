"""The settings of the law's grids, each with its ladder of windows, and the text they share."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.law.program import Rows
from benchmarks.law.search import next_window
from benchmarks.record.tokens import array
from cr_jax import models
from cr_jax.config import DomainConfig, Experiment, ModelConfig, TrainConfig
from cr_jax.errors import UserError
from cr_jax.models.objective import majority_rate
from cr_jax.studies.capacity.grid import Cell, Grid, groups

UNIFORM = "uniform"
UNIFORM_TOKENS = 4_000_000
SHORT = 256  # tokens


class Text:
    """The sources of one grid: rows of ids of one vocabulary, and test windows of any length."""

    def __init__(self, names, train, test, sources, eval_tokens, per_step):
        self.names, self.sources = names, sources
        self.vocab_size = sources[names[0]]["vocab_size"]
        self.train = np.zeros((len(train), max(map(len, train))), np.uint16)
        for row, ids in zip(self.train, train):
            row[: len(ids)] = ids
        self.lengths = np.array([len(ids) for ids in train], np.int32)
        # Whole batches of windows, as the scoring takes them.
        count = min(eval_tokens, *(len(t) for t in test)) // per_step * per_step
        if not count:
            raise UserError(
                f"--tokens: test text of {', '.join(names)} is shorter than a step's "
                f"{per_step} tokens"
            )
        self.test = np.stack([_spread(t, count) for t in test])
        self._on_device = None

    def windows(self, window: int) -> np.ndarray:
        """uint16 [S, N, L]."""
        return self.test.reshape(len(self.names), -1, window)

    def shapes(self, window: int) -> Rows:
        of = jax.ShapeDtypeStruct
        return Rows(
            of(self.train.shape, jnp.uint16),
            of(self.lengths.shape, jnp.int32),
            of(self.windows(window).shape, jnp.uint16),
        )

    def rows(self, window: int) -> Rows:
        """The arrays; training text is moved to the device once."""
        if self._on_device is None:
            self._on_device = jax.device_put((self.train, self.lengths))
        return Rows(*self._on_device, self.windows(window))


def read_rows(folder: Path, e: Experiment, grid: Grid, eval_tokens: int, uniform: bool) -> Text:
    """The text of a grid's domains from the folder of `tokens.py`.  Raises `UserError`."""
    path = folder / "sources.json"
    try:
        sources = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(
            f"--tokens: cannot read {path}; make it with benchmarks.law.tokens"
        ) from None
    names = list(e.data.domains)
    missing = [n for n in names if n not in sources]
    if missing:
        raise UserError(
            f"--tokens: {folder} has no {missing[0]}; run benchmarks.law.tokens with its config"
        )
    sizes = {sources[n]["vocab_size"] for n in names}
    if len(sizes) > 1:
        raise UserError(
            f"--tokens: {', '.join(names)} have vocabularies of different sizes; "
            "tokenise them with one config"
        )
    train = [array(folder / f"{n}.train.npy") for n in names]
    test = [array(folder / f"{n}.test.npy") for n in names]
    if uniform and len(names) > 1:
        size = sizes.pop()
        sources[UNIFORM] = {"vocab_size": size, "xz_bits": math.log2(size)}
        rng = np.random.default_rng(0)
        names.append(UNIFORM)
        train.append(rng.integers(0, size, UNIFORM_TOKENS, np.uint16))
        test.append(rng.integers(0, size, len(test[0]), np.uint16))
    return Text(names, train, test, sources, eval_tokens, e.train.batch * e.model.window)


def _spread(ids: np.ndarray, count: int) -> np.ndarray:
    """`count` tokens in sixteen pieces from the whole row, so that they are of many documents."""
    piece = count // 16
    first = np.linspace(0, len(ids) - piece, 16).astype(int)
    found = np.concatenate([ids[f : f + piece] for f in first])
    return np.concatenate([found, ids[: count - len(found)]])


@dataclasses.dataclass
class Setting:
    """All that a capacity belongs to but its domain and seed: (M, d_z), size, budget, grid.

    groups: per window the cells that are trained as one program.  measured: per window the TRA of
    each of them.
    """

    grid: str
    number: int  # place within the grid
    held_out: bool
    groups: Mapping[int, Sequence[Cell]]
    text: Text
    measured: dict[int, list[float]] = dataclasses.field(default_factory=dict)

    @property
    def windows(self) -> list[int]:
        return sorted(self.groups)

    def cells(self, window: int) -> Sequence[Cell]:
        return self.groups[window]

    @property
    def _first(self) -> Cell:
        return self.groups[self.windows[0]][0]

    @property
    def size_of_z(self) -> int:
        """M x d_z."""
        return self._first.model.latents * self._first.model.d_latent

    @property
    def id(self) -> str:
        c = self._first
        return f"{self.grid} {c.size} {c.budget} {c.model.latents} {c.model.d_latent} "

    @property
    def first_id(self) -> str:
        """Of the first domain's prediction."""
        return self.id + self._first.domain

    def model(self, window: int) -> ModelConfig:
        model = self.groups[window][0].model
        # Scores of short windows are small, and cuDNN's kernels are made for longer ones.
        attention = "xla" if window < SHORT and model.attention == "auto" else model.attention
        return dataclasses.replace(model, vocab_size=self.text.vocab_size, attention=attention)

    def train(self, window: int) -> TrainConfig:
        """Without the budget: a program runs any number of steps."""
        return dataclasses.replace(self.groups[window][0].train, tokens=0, steps=1, seconds=0.0)

    def steps(self, window: int) -> int:
        c = self.groups[window][0]
        return -(-c.budget // (c.train.batch * window))

    def program_key(self, window: int) -> tuple:
        return (
            self.model(window),
            self.train(window),
            len(self.groups[window]),
            self.text.train.shape,
            self.text.test.shape,
        )

    def next_window(self, threshold: float, start: float) -> int | None:
        return next_window(self.windows, self.measured, self.text.test.shape[1], threshold, start)

    def label(self, window: int) -> str:
        c, m = self._first, self._first.model
        return (f"L={window} " if window else "") + (
            f"M={m.latents} d_z={m.d_latent} d={m.d_model} {c.budget / 1e6:.1f} M tokens"
        )

    def domains(self) -> list[dict]:
        """The fields of `capacity.SETTING`, one dict per domain."""
        m, names = self._first.model, dict.fromkeys(c.domain for c in self.groups[self.windows[0]])
        return [
            {
                "domain": n,
                "size": self._first.size,
                "latents": m.latents,
                "d_latent": m.d_latent,
                "d_model": m.d_model,
                "budget_tokens": self._first.budget,
                "xz_bits": self.text.sources[n]["xz_bits"],
            }
            for n in names
        ]

    def rows(self, window: int, found: Sequence[dict], curves: Sequence[list[float]]) -> list[dict]:
        """Lines of ablation.jsonl."""
        model, lines = self.model(window), []
        fields = {d["domain"]: d for d in self.domains()}
        test = self.text.windows(window)
        for cell, scores, curve in zip(self.groups[window], found, curves):
            ids = test[self.text.names.index(cell.domain)]
            identity = [self.id, window, cell.domain, cell.seed, len(curve), scores["tokens"]]
            lines.append(
                {
                    "cell": hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
                    "held_out": self.held_out,
                    "window": window,
                    **fields[cell.domain],
                    "seed": cell.seed,
                    "bottleneck": model.bottleneck,
                    "vocab_size": model.vocab_size,
                    "parameters": _parameters(model),
                    **scores,
                    "majority_tra": majority_rate(ids, np.ones(ids.shape, bool)),
                    "train_tokens": self.steps(window) * cell.train.batch * window,
                    "train_nll": curve,
                }
            )
        return lines


@functools.cache
def _parameters(model: ModelConfig) -> int:
    return models.count_parameters(model)


def settings(grid_name: str, e: Experiment, grid: Grid, text: Text) -> list[Setting]:
    """Every setting of a grid, held-out ones too."""
    e = dataclasses.replace(
        e,
        data=dataclasses.replace(
            e.data, domains={n: e.data.domains.get(n, DomainConfig()) for n in text.names}
        ),
    )
    found: dict[tuple, dict[int, list[Cell]]] = {}
    pairs = {(m, d) for m in grid.latents for d in grid.d_latent}
    for held_out in (False, True):
        if not (grid.holdout if held_out else pairs - set(grid.holdout)):
            continue
        for group in groups(e, grid, held_out):
            cells = list(group.values())
            c = cells[0]
            key = (held_out, c.size, c.budget, c.model.latents, c.model.d_latent)
            found.setdefault(key, {})[c.model.window] = cells
    return [
        Setting(grid_name, n, key[0], ladder, text) for n, (key, ladder) in enumerate(found.items())
    ]
