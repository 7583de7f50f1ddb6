"""Lab note: domains arrive one after another; a growing bank beside what could replace it.

Claim: a bank that mounts one frozen compressor for each domain forgets nothing but what routing
loses, less than 0.5 points over twenty domains, where one compressor that learns them in sequence
forgets, and a learned gate over the same experts does (the paper's third claim, not measured there;
CN-DPM, arXiv 2001.00689, on images: experts 88.2 -> 88.2 %, gate 48 %).
Command: python main.py --config=configs/continual.py:VARIANT --workdir=runs/continual \
    --config.data.root=DATA
  small     (default) the twenty domains, experts of 0.2 M parameters, windows of 64 tokens, 80
            steps, all rivals, in the order of --config.continual.order; two CPU cores
  eight     eight of them, near and far ones
  longer    small with experts of 0.7 M parameters and 300 steps of twice the windows
  twenty    the experts of configs/bank.py:half, no rivals; one GPU
  rivals    the same with all rivals, each of 25 M parameters; one GPU
  narrow64  64 narrow domains (benchmarks/bank/subdomains.py), no rivals; one GPU
Several seeds: --config.seed=S; python -m benchmarks.continual.collect joins their reports.
Hardware: two CPU cores (small), one GPU.
status: frozen experts of configs/bank.py (half, half_weight1, twenty, narrow64) measured from their
  stored residuals (results/continual.json): BWT after routing -0.2 to -0.3 points with the rule
  that validation chooses, flips 0.05 % a mount; eight, compressors alone: too little training to
  tell (73 % TRA by experts, 88 % in sequence); the other commands not run
"""

import importlib.util
from pathlib import Path

from cr_jax.config import RIVALS, default


def get_config(variant="small"):
    config = VARIANTS[variant]()
    config.name = f"continual_{variant}"
    return config


def _bank():
    place = Path(__file__).with_name("bank.py")
    spec = importlib.util.spec_from_file_location("bank", place)
    bank = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bank)
    return bank


def _small():
    bank, config = _bank(), default()
    config.data.domains = bank.get_config("twenty").data.domains
    config.data.update(max_train_tokens=200_000, count_overlap=False)
    config.tokenizer.update(vocab_size=2048, train_bytes=100_000)
    config.model.update(
        window=64,
        latents=8,
        d_model=64,
        d_latent=64,
        heads=4,
        d_ff=128,
        encoder_blocks=1,
        decoder_blocks=1,
        tie_embeddings=True,
        predictive=True,
    )
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=8, steps=80, log_every=40, checkpoint_every=600.0)
    config.scoring.update(predicted=True, typicality_weight=2.0)
    config.eval.update(windows=64, calibration_windows=64, calibration_documents=0, batch=64)
    config.continual.rivals = RIVALS
    config.studies = ("fingerprint", "routing", "continual")
    return config


def _eight():
    bank, config = _bank(), _small()
    config.data.domains = bank.get_config("eight").data.domains
    return config


def _longer():
    config = _small()
    config.data.max_train_tokens = 1_000_000
    config.tokenizer.update(vocab_size=4096, train_bytes=250_000)
    config.model.update(d_model=128, d_latent=128, d_ff=256)
    config.train.update(batch=16, steps=300)
    config.eval.update(windows=256, calibration_windows=256, calibration_documents=100)
    config.continual.replay_windows = 2048
    return config


def _twenty():
    config = _bank().get_config("half")
    config.studies = ("fingerprint", "routing", "continual")
    return config


def _rivals():
    config = _twenty()
    config.continual.update(rivals=RIVALS, replay_windows=2048)
    return config


def _narrow():
    config = _bank().get_config("narrow64")
    config.studies = ("fingerprint", "routing", "continual")
    return config


VARIANTS = {
    "small": _small,
    "eight": _eight,
    "longer": _longer,
    "twenty": _twenty,
    "rivals": _rivals,
    "narrow64": _narrow,
}
