"""Lab note: how many tokens L fit into M latents of width d_z before copying fails?

Claim: a law of near-lossless capacity (paper, open question 1), TRA >= 99 % on held-out text.
Command: python main.py --config=configs/ablate_latents.py --workdir=runs/ablation
  --config=configs/ablate_latents.py:tiny   half a minute on 2 CPU cores, shows the machinery
  --config=configs/ablate_latents.py:cpu    six minutes of CPU time, results/ablation.json
  --config=configs/ablate_latents.py        one H100, L to 1,024; data.root has code_python, wiki
Each finished cell is a line of WORKDIR/ablation.jsonl; the same command goes on where it was.
Hardware: see the three variants.
status: cpu measured 2026-11-22 (L* = 0.32 M^0.98 d_z^0.89 bytes, two predictions within 3 %);
  gpu not run
"""

from ml_collections import ConfigDict

from cr_jax.config import default, domain


def get_config(variant="gpu"):
    config = {"tiny": tiny, "cpu": cpu, "gpu": gpu}[variant]()
    config.name = f"ablate_latents_{variant}"
    return config


def tiny():
    """Two shapes of two seeds on novels, 8 and 16 bytes long: no law, and it says so."""
    config = _small()
    config.train.tokens = 100_000
    config.eval.windows = 256
    config.ablation = ConfigDict(dict(
        windows=(8, 16), latents=(2,), d_latent=(32,), seeds=(0, 1), thresholds=(0.99, 0.9)))
    return config.lock()


def cpu():
    """Seven settings, two windows each; one inside and one beyond the grid is predicted first."""
    config = _small()
    config.train.tokens = 200_000
    config.eval.windows = 1024
    config.ablation = ConfigDict(dict(
        windows=(4, 8, 16, 32, 64), latents=(2, 4, 8), d_latent=(16, 32),
        numbers_per_token=(4, 8), seeds=(0, 1), holdout=((4, 32), (16, 16)),
        thresholds=(0.99, 0.95)))
    return config.lock()


def gpu():
    """L 32 to 1,024, M 1 to 32, two widths, two domains of different entropy."""
    config = default().unlock()
    for name in ("code_python", "wiki"):
        config.data.domains[name] = domain(
            f"jsonl:{{root}}/{name}/train*.jsonl.zst", f"jsonl:{{root}}/{name}/valid.jsonl.zst",
            f"jsonl:{{root}}/{name}/test.jsonl.zst")
    config.tokenizer.vocab_size = 8192
    config.model.update(window=512, d_model=256, heads=4, d_ff=768, encoder_blocks=3,
                        decoder_blocks=3)
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=64, tokens=60_000_000, loss_chunk=32768, log_every=100)
    config.eval.windows = 2048
    config.ablation = ConfigDict(dict(
        windows=(32, 64, 128, 256, 512, 1024), latents=(1, 2, 4, 8, 16, 32),
        d_latent=(256, 512), seeds=(0, 1, 2), numbers_per_token=(2, 32),
        holdout=((8, 512), (16, 256)), thresholds=(0.99, 0.999)))
    return config.lock()


def _small():
    config = default().unlock()
    config.data.domains.novels_en = domain(
        *(f"samples/novels_en@{split}" for split in ("train", "valid", "test")))
    config.tokenizer.kind = "bytes"
    config.model.update(window=32, d_model=64, heads=2, d_ff=128, encoder_blocks=1,
                        decoder_blocks=1, fold_channels=32, tie_embeddings=True)
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=32, log_every=50, checkpoint_every=30.0)
    return config
