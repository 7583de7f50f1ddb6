"""What is timed: model sizes, token ids, FLOP counts and datasheet rates.

Imports neither JAX nor PyTorch, so that both sides are given the same work.
"""

import dataclasses

import numpy as np

from cr_jax.config import ModelConfig, check_model
from cr_jax.errors import UserError

# `87m` is the paper's size at `ModelConfig`'s defaults.  `10m` takes an 8,192-piece vocabulary:
# with GPT-2's, 10 M parameters would be nearly all embedding.
SIZES = {
    "10m": ModelConfig(vocab_size=8192, d_model=256, d_latent=256, heads=4, d_ff=768,
                       fold_channels=32, encoder_blocks=3, decoder_blocks=3),
    "87m": ModelConfig(vocab_size=50304),
    "350m": ModelConfig(vocab_size=50304, d_model=1024, heads=16, d_ff=3072,
                        encoder_blocks=9, decoder_blocks=9),
    "1b": ModelConfig(vocab_size=50304, d_model=2048, heads=16, d_ff=6144,
                      encoder_blocks=8, decoder_blocks=8),
    "tiny": ModelConfig(vocab_size=512, window=64, d_model=32, d_latent=16, heads=2, d_ff=96,
                        fold_channels=8, encoder_blocks=1, decoder_blocks=1),
}

# Windows per step that are tried, in this order; `r`: blocks rematerialised.
BATCHES = {
    "10m": ("512", "1024", "256"),
    "87m": ("128", "256", "64"),
    "350m": ("64", "128", "32"),
    "1b": ("32", "64r", "16"),
    "tiny": ("4",),
}

# Dense bf16 TFLOP/s by the vendors' datasheets; the longest name found in the device's wins.
DATASHEET_TFLOPS = {
    "H100": 989.4, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H200": 989.4, "GH200": 989.4,
    "B200": 2250.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.2,
    "TPU v4": 275.0, "TPU v5 lite": 197.0, "TPU v5p": 459.0, "TPU v6 lite": 918.0,
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
        raise UserError(f"--batches: '{text}' must be a number of windows such as 128, or 64r "
                        "with rematerialised blocks")
    return Batch(int(digits), text.endswith("r"))


def size(name: str, changes: tuple[str, ...] = ()) -> ModelConfig:
    """The named size, with `field=value` changes.  Raises `UserError` naming what is wrong."""
    if name not in SIZES:
        raise UserError(f"--models: unknown size '{name}'; there are {', '.join(SIZES)}")
    config = SIZES[name]
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
        config = dataclasses.replace(config, **{field: new})
    check_model(config)
    return config


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


def forward_flops(config: ModelConfig) -> dict[str, float]:
    """Floating-point operations of one window's forward pass, by part.

    A product [m, k] x [k, n] is 2 m k n operations.  With width d, feed-forward width f, window
    L, M latents of Dz, vocabulary V, and T = L (+ M in the `query` decoder):

        a stack of n blocks     2 n (T (4 d^2 + 3 d f) + 2 T^2 d)
        fold, r channels        2 (2 L d r + 2 M ceil(L/M) r Dz)
        cross-attention         2 (2 M d^2 + 2 L d^2 + 2 M L d + 3 M d f)
        latent projections      2 (2 M d Dz)
        vocabulary              2 L d V

    2 T^2 d are attention's scores and values.  Norms, rotary positions, softmax, the embedding
    gather and the optimiser (also Muon's products) count as nothing.
    """
    c = config
    d, f, latent, window, m = c.d_model, c.d_ff, c.d_latent, c.window, c.latents
    span = -(-window // m)
    decoded = window + (m if c.bottleneck == "query" else 0)
    stack = lambda n, t: n * (t * (4 * d * d + 3 * d * f) + 2 * t * t * d)
    fold = 2 * window * d * c.fold_channels + 2 * m * span * c.fold_channels * latent
    cross = 2 * m * d * d + 2 * window * d * d + 2 * m * window * d + 3 * m * d * f
    bottleneck = {"fold": fold, "query": cross + 2 * m * d * latent,
                  "query_fold": fold + cross + 2 * m * d * latent}[c.bottleneck]
    products = {
        "encoder": stack(c.encoder_blocks, window), "bottleneck": bottleneck,
        "decoder": stack(c.decoder_blocks, decoded), "vocabulary": window * d * c.vocab_size}
    return {name: 2.0 * n for name, n in products.items()}


def train_flops_per_token(config: ModelConfig) -> float:
    """3 x the forward pass: backward forms one product for each operand.

    Recomputation (rematerialised blocks, flash attention's second pass) is not counted.
    """
    return 3.0 * sum(forward_flops(config).values()) / config.window


def datasheet_tflops(device: str) -> float | None:
    """Dense bf16 TFLOP/s by the device's name; None when the table does not know it."""
    found = [name for name in DATASHEET_TFLOPS if name.lower() in device.lower()]
    return DATASHEET_TFLOPS[max(found, key=len)] if found else None
