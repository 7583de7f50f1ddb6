"""What is timed: model sizes, token ids and the optimiser's settings.

Imports neither JAX nor PyTorch, so that both sides are given the same work.
"""

import dataclasses

import numpy as np

from cr_jax.config import ModelConfig, OptimizerConfig, model_config, to_dict
from cr_jax.errors import UserError

# All have the fold: what was timed, and what the PyTorch peer has.
# `87m` is the paper's size, as `configs/cr_87m.py` trains it.  Heads are 128 wide from there on.
# `10m` takes an 8,192-piece vocabulary:
# with GPT-2's, 10 M parameters would be nearly all embedding.
SIZES = {
    "10m": ModelConfig(
        vocab_size=8192,
        d_model=256,
        d_latent=256,
        heads=4,
        d_ff=768,
        bottleneck="fold",
        fold_channels=32,
        encoder_blocks=3,
        decoder_blocks=3,
    ),
    "87m": ModelConfig(vocab_size=50304, heads=4, bottleneck="fold"),
    "350m": ModelConfig(
        vocab_size=50304,
        d_model=1024,
        heads=8,
        d_ff=3072,
        encoder_blocks=9,
        decoder_blocks=9,
        bottleneck="fold",
    ),
    "1b": ModelConfig(
        vocab_size=50304,
        d_model=2048,
        heads=16,
        d_ff=6144,
        encoder_blocks=8,
        decoder_blocks=8,
        bottleneck="fold",
    ),
    "tiny": ModelConfig(
        vocab_size=512,
        window=64,
        d_model=32,
        d_latent=16,
        heads=2,
        d_ff=96,
        bottleneck="fold",
        fold_channels=8,
        encoder_blocks=1,
        decoder_blocks=1,
    ),
}

# Windows per step that are tried, in this order; `r`: blocks rematerialised.
BATCHES = {
    "10m": ("512", "1024", "256"),
    "87m": ("128", "256", "64"),
    "350m": ("64", "128", "32"),
    "1b": ("32", "64r", "16"),
    "tiny": ("4",),
}


@dataclasses.dataclass(frozen=True)
class Batch:
    """One entry of a batch list: windows per step and whether blocks are rematerialised."""

    windows: int
    remat: bool = False


def parse_batch(text: str) -> Batch:
    """'128' or '64r' -> `Batch`.  Raises `UserError` on anything else."""
    digits = text.removesuffix("r")
    if not digits.isdigit() or int(digits) < 1:
        raise UserError(
            f"--batches: '{text}' must be a number of windows such as 128, or 64r "
            "with rematerialised blocks"
        )
    return Batch(int(digits), text.endswith("r"))


def size(name: str, changes: tuple[str, ...] = ()) -> ModelConfig:
    """The named size, with `field=value` changes.  Raises `UserError` naming what is wrong."""
    if name not in SIZES:
        raise UserError(f"--models: unknown size '{name}'; there are {', '.join(SIZES)}")
    return changed(SIZES[name], changes)


def changed(config: ModelConfig, changes) -> ModelConfig:
    """`config` with `field=value` changes.  Raises `UserError` naming what is wrong."""
    fields = to_dict(config)
    for change in changes:
        field, _, value = change.partition("=")
        if not value or not hasattr(config, field):
            raise UserError(f"--set: '{change}' must be field=value with a field of ModelConfig")
        old = getattr(config, field)
        if isinstance(old, bool):
            if value not in ("True", "False"):
                raise UserError(f"--set: {field} must be True or False, got {value}")
            new = value == "True"
        elif isinstance(old, int):
            if not value.isdigit():
                raise UserError(f"--set: {field} must be a whole number, got {value}")
            new = int(value)
        else:
            new = value
        fields[field] = new
    return model_config(fields)


def optimizer(name: str) -> OptimizerConfig:
    """The settings that both sides train with: `configs/cr_87m.py`'s."""
    return OptimizerConfig(name=name, learning_rate=3e-3, newton_schulz="bfloat16")


def draw_tokens(config: ModelConfig, batch: int, sets: int, seed: int = 0) -> np.ndarray:
    """int32 [sets, B, L]: ids with the skew of text, so that no buffer or id pattern is special.

    One id takes a third of the positions (GPT-2's single space takes 32-37 % of Python code) and
    the others fall off as 1/rank.  Uniform ids would hide the collisions that the gradient of
    the embedding gather meets on real text.
    """
    rng = np.random.default_rng(seed)
    rank = np.arange(config.vocab_size)
    share = 1.0 / (rank + 2.7)
    share[1:] *= (2 / 3) / share[1:].sum()
    share[0] = 1 / 3
    drawn = np.searchsorted(np.cumsum(share), rng.random((sets, batch, config.window)))
    order = rng.permutation(config.vocab_size).astype(np.int32)
    return order[np.minimum(drawn, config.vocab_size - 1)]
