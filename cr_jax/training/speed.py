"""Arithmetic of a training step, for MFU: operations per token over the chip's bf16 rate.

The one FLOP formula of the project: `benchmarks` counts by it too.
"""

import dataclasses
import re

import jax

from cr_jax.config import LmConfig, ModelConfig
from cr_jax.models import lm, make_bottleneck

# Dense bf16 TFLOP/s of one chip from the vendors' data sheets, by a name within `device_kind`; the
# longest one found counts.  `benchmarks/throughput.py` measures a large matrix product instead.
PEAKS = {
    "A100": 312.0,
    "A10G": 70.0,
    "L4": 121.0,
    "L40S": 362.0,
    "RTX 4090": 165.2,
    "H100": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H200": 989.4,
    "GH200": 989.4,
    "B100": 1750.0,
    "B200": 2250.0,
    "TPU v4": 275.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v6": 918.0,
    "TPU v6e": 918.0,
    "TPU7x": 2307.0,
}


def peak_flops(device: jax.Device | str | None = None) -> float | None:
    """Data-sheet bf16 FLOP/s of one device or `device_kind`; None when the table lacks it (CPUs).

    Names match as whole words: an L40 is not an L4, nor a GB200 a B200.
    """
    kind = device if isinstance(device, str) else (device or jax.devices()[0]).device_kind
    matching = [
        name for name in PEAKS if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", kind, re.IGNORECASE)
    ]
    return 1e12 * PEAKS[max(matching, key=len)] if matching else None


def forward_flops(config: ModelConfig) -> dict[str, float]:
    """Floating-point operations of one window's forward pass, by part.

    A product [m, k] x [k, n] is 2 m k n operations.  With width d, feed-forward width f, window
    L, vocabulary V, and T positions (L, in the decoder + the bottleneck's `prefix`):

        a stack of n blocks     2 n (T (4 d^2 + 3 d f) + 2 T^2 d)
        bottleneck              its own `forward_flops`
        vocabulary              2 L d V
        prediction              2 (L d^2 + L d V), of a predictive model

    2 T^2 d are attention's scores and values.  Norms, rotary positions, softmax, the embedding
    gather and the optimiser (also Muon's products) count as nothing.
    """
    c = config
    d, f, window = c.d_model, c.d_ff, c.window
    form = make_bottleneck(c)
    stack = lambda n, t: n * (t * (4 * d * d + 3 * d * f) + 2 * t * t * d)
    products = {
        "encoder": stack(c.encoder_blocks, window),
        "decoder": stack(c.decoder_blocks, window + form.prefix),
        "vocabulary": window * d * c.vocab_size,
    }
    if c.predictive:
        products["prediction"] = window * d * (d + c.vocab_size)
    return {"bottleneck": form.forward_flops(), **{n: 2.0 * v for n, v in products.items()}}


def classifier_flops_per_token(model: ModelConfig) -> float:
    """Training FLOPs per token of a classifier of windows by all the compressor's blocks."""
    parts = forward_flops(dataclasses.replace(model, bottleneck="fold", predictive=False))
    return 3.0 * (parts["encoder"] + parts["decoder"]) / model.window


def lm_flops_per_token(config: LmConfig, window: int) -> float:
    """Training FLOPs per token of a language model: 3 x its kind's, counted as here."""
    return 3.0 * lm.forward_flops(config, window)


def flops_per_token(model: ModelConfig) -> float:
    """Training FLOPs per token: 3 x `forward_flops`, as backward forms one product per operand.

    Recomputation (rematerialised blocks, flash attention's second pass) is not counted.
    """
    others = sum(n for part, n in forward_flops(model).items() if part != "bottleneck")
    return (3.0 * others + make_bottleneck(model).training_flops()) / model.window
