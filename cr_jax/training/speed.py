"""Arithmetic of a training step, for MFU: operations per token over the chip's bf16 peak."""

import jax

from cr_jax.config import ModelConfig

# Dense bf16 matrix rates in TFLOP/s from the vendors' data sheets, by a part of `device_kind`;
# the first match counts.  `benchmarks/throughput.py` measures a large matrix product instead.
PEAKS = (
    ("H100 PCIe", 756), ("H100 NVL", 835), ("H100", 989), ("H200", 989), ("GH200", 989),
    ("B200", 2250), ("B100", 1750), ("A100", 312), ("L40S", 362), ("L4", 121), ("A10G", 70),
    ("RTX 4090", 165), ("V100", 125),
    ("TPU v4", 275), ("TPU v5 lite", 197), ("TPU v5e", 197), ("TPU v5p", 459), ("TPU v5", 459),
    ("TPU v6", 918), ("TPU7", 2307),
)


def peak_flops(device: jax.Device | None = None) -> float | None:
    """Data-sheet bf16 FLOP/s of one device; None when it is not in the table (CPUs)."""
    kind = (device or jax.devices()[0]).device_kind
    return next((1e12 * rate for part, rate in PEAKS if part.lower() in kind.lower()), None)


def flops_per_token(model: ModelConfig) -> float:
    """Training FLOPs per token: three times the forward matrix products, 2 per multiply-add.

    Blocks, attention scores and values, bottleneck and vocabulary; element-wise work, the
    embedding gather and recomputation do not count.
    """
    m, d, length = model, model.d_model, model.window
    tokens = {"encoder": length, "decoder": length}
    if m.bottleneck == "query":
        tokens["decoder"] += m.latents
    macs = 0.0
    for blocks, n in ((m.encoder_blocks, tokens["encoder"]), (m.decoder_blocks, tokens["decoder"])):
        macs += blocks * n * (4 * d * d + 3 * d * m.d_ff + 2 * n * d)
    row = -(-length // m.latents) * m.fold_channels
    if m.bottleneck != "query":
        macs += 2 * length * d * m.fold_channels + 2 * m.latents * row * m.d_latent
    if m.bottleneck != "fold":
        per_latent = 2 * d * d + 3 * d * m.d_ff + 2 * length * d + 2 * d * m.d_latent
        macs += m.latents * per_latent + 2 * length * d * d
    macs += length * d * m.vocab_size
    return 3 * 2 * macs / length
