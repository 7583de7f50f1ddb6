"""Lab note: how many tokens L fit into M latents of width d_z before copying fails?

Claim: a law of near-lossless capacity (paper, open question 1), TRA >= 99 % on held-out text.
Command: python main.py --config=configs/ablate_latents.py:VARIANT --workdir=runs/ablation
  tiny         a quarter of a minute on 2 CPU cores, shows the machinery
  cpu          six minutes of CPU time, results/ablation.json
  cpu_sources  data entropy: novels, Python, 10 and 94 random symbols; with cpu_tokens (training
               tokens) and cpu_width (model width) 25 minutes of CPU time
  gpu          (default) M and d_z on code_python and wiki below data.root; gpu_tokens, gpu_width
               and gpu_gpt2 are its other axes
Each finished cell is a line of WORKDIR/ablation.jsonl; the same command goes on where it was.
The four gpu variants in one run of five minutes, with uniformly random ids as a third source and
each setting's windows searched instead of all measured:
  python -m benchmarks.law.tokens --data DATA --out TOKENS
  python -m benchmarks.law.tokens --config configs/ablate_latents.py:gpu_gpt2 --gpt2 GPT2_FOLDER \
    --data DATA --train-tokens 4000000 --work runs/law_gpt2 --out TOKENS
  XLA_FLAGS="--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false" python -m \
    benchmarks.law.run --tokens TOKENS --uniform --numbers-per-token 4 --compilers 22 \
    --seconds 290 --set model.kernels=xla --out OUT
Hardware: CPU variants 2 cores; gpu variants one H100 or H200.
status: cpu measured 2026-11-22 (L* = 0.32 M^0.98 d_z^0.89 bytes, two predictions within 3 %);
  gpu measured 2026-11-22 on one H200 (M^0.93 d_z^0.83 and more; of ten predictions eight inside
  their intervals, one beyond the windows, one missed;
  docs/results/2026-11-22-capacity-gpu.md)
"""

from ml_collections import ConfigDict

from cr_jax.config import default, domain


def get_config(variant="gpu"):
    config = VARIANTS[variant]()
    config.name = f"ablate_latents_{variant}"
    return config


def tiny():
    """One shape of two seeds on novels, 8 bytes long: no law, and it says so."""
    config = _small()
    config.train.tokens = 60_000
    config.eval.windows = 256
    config.ablation = ConfigDict(
        dict(windows=(8,), latents=(2,), d_latent=(32,), seeds=(0, 1), thresholds=(0.99, 0.9))
    )
    return config.lock()


def cpu():
    """Seven settings, two windows each; one inside and one beyond the grid is predicted first."""
    config = _small()
    config.train.tokens = 200_000
    config.eval.windows = 1024
    config.ablation = ConfigDict(
        dict(
            windows=(4, 8, 16, 32, 64),
            latents=(2, 4, 8),
            d_latent=(16, 32),
            numbers_per_token=(4, 8),
            seeds=(0, 1),
            holdout=((4, 32), (16, 16)),
            thresholds=(0.99, 0.95),
        )
    )
    return config.lock()


def cpu_sources():
    """Data entropy: characters drawn from 10 and from 94 symbols, Python, novels; one seed."""
    config = _small()
    config.model.window, config.train.batch = 48, 20  # 960 tokens a step
    for name, spec in (("stdlib", "stdlib"), ("random10", "random:10"), ("random94", "random:94")):
        config.data.domains[name] = domain(*(f"{spec}@{s}" for s in ("train", "valid", "test")))
    config.train.tokens = 200_000
    config.eval.windows = 1024
    config.ablation = ConfigDict(
        dict(
            windows=(8, 12, 16, 24, 32, 48, 64),
            latents=(4, 8),
            d_latent=(16, 32),
            numbers_per_token=(2.6, 8.1),
            seeds=(0,),
            holdout=((8, 32),),
            thresholds=(0.99, 0.95),
        )
    )
    return config.lock()


def cpu_tokens():
    """Training tokens: a quarter and four times those of `cpu_sources`, on novels."""
    config = cpu_sources().unlock()
    config.data.domains = ConfigDict({"novels_en": config.data.domains.novels_en})
    config.ablation.update(
        windows=(8, 16, 24, 32, 48, 64),
        numbers_per_token=(1.9, 16.1),
        latents=(4,),
        d_latent=(32,),
        train_tokens=(50_000, 800_000),
        holdout=(),
    )
    return config.lock()


def cpu_width():
    """Model width: half and twice that of `cpu_sources`, on novels."""
    config = cpu_tokens().unlock()
    config.ablation.update(
        windows=(16, 24, 32),
        train_tokens=(200_000,),
        sizes=ConfigDict(
            dict(
                narrow=dict(d_model=32, heads=1, d_ff=64), wide=dict(d_model=128, heads=4, d_ff=256)
            )
        ),
    )
    return config.lock()


def gpu():
    """M 1 to 32 and two d_z on Python and Wikipedia; three settings are predicted first.

    A vocabulary of 4,096 pieces: with more, a small model spends its time on the vocabulary.
    """
    config = default().unlock()
    for name in ("code_python", "wiki"):
        config.data.domains[name] = _jsonl(name)
    config.tokenizer.vocab_size = 4096
    # 6,144 tokens a step, which every window of the ladder divides.
    config.model.update(
        window=512,
        d_model=256,
        heads=4,
        d_ff=768,
        encoder_blocks=2,
        decoder_blocks=2,
        bottleneck="fold",
        tie_embeddings=True,
    )
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=12, tokens=3_072_000, log_every=100)
    config.eval.windows = 2048
    config.ablation = ConfigDict(
        dict(
            windows=(16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
            latents=(1, 2, 4, 8, 16, 32),
            d_latent=(64, 256),
            seeds=(0,),
            numbers_per_token=(0.9, 33.0),
            holdout=((8, 128), (4, 512), (32, 128)),
            thresholds=(0.99, 0.95),
        )
    )
    return config.lock()


def gpu_tokens():
    """Training tokens: half and four times those of `gpu`, on Python."""
    config = gpu().unlock()
    config.data.domains = ConfigDict({"code_python": config.data.domains.code_python})
    config.ablation.update(
        latents=(4,),
        d_latent=(64, 256),
        seeds=(0, 1),
        holdout=(),
        train_tokens=(1_536_000, 12_288_000),
    )
    return config.lock()


def gpu_width():
    """Model width: half and twice that of `gpu`, on Python."""
    config = gpu_tokens().unlock()
    config.ablation.update(
        train_tokens=(3_072_000,),
        sizes=ConfigDict(
            dict(
                narrow=dict(d_model=128, heads=2, d_ff=384),
                wide=dict(d_model=512, heads=8, d_ff=1536),
            )
        ),
    )
    return config.lock()


def gpu_gpt2():
    """GPT-2's 50,257 ids of Python, predicted from the law by their entropy, then measured."""
    config = gpu().unlock()
    config.data.domains = ConfigDict({"code_gpt2": _jsonl("code_python")})
    config.tokenizer.update(kind="gpt2", folder="gpt2")
    config.model.vocab_size = 50304
    config.ablation.update(latents=(4,), d_latent=(256,), seeds=(0, 1), holdout=((4, 256),))
    return config.lock()


def _jsonl(name):
    return domain(
        f"jsonl:{{root}}/{name}/train*.jsonl.zst",
        f"jsonl:{{root}}/{name}/valid.jsonl.zst",
        f"jsonl:{{root}}/{name}/test.jsonl.zst",
    )


def _small():
    config = default().unlock()
    config.data.domains.novels_en = domain(
        *(f"samples/novels_en@{split}" for split in ("train", "valid", "test"))
    )
    config.tokenizer.kind = "bytes"
    config.model.update(
        window=32,
        d_model=64,
        heads=2,
        d_ff=128,
        encoder_blocks=1,
        decoder_blocks=1,
        bottleneck="fold",
        fold_channels=32,
        tie_embeddings=True,
    )
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=32, log_every=50, checkpoint_every=30.0)
    return config


VARIANTS = {
    f.__name__: f
    for f in (tiny, cpu, cpu_sources, cpu_tokens, cpu_width, gpu, gpu_tokens, gpu_width, gpu_gpt2)
}
