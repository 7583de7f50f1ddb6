"""Lab note: a language model that attends to the latents of its past, through a trained adapter.

Claim: a language model that reads the latents of past windows (8 vectors each) by a small adapter
predicts text better than the last tokens alone, and better than with another text's latents.
Command: python -m benchmarks.latent_reader --config configs/latent_reader.py:VARIANT \
    --workdir runs/reader (code, twenty: --data-root DATA; twenty: --bank BANK)
Then: python -m benchmarks.latent_memory --no-recall --reader runs/reader (and --bank, --text)
  shipped     (default) adapters of two experts of the bank that ships, on its sample texts; rows of
              16 windows of 64 tokens, 10 minutes on two CPU cores
  small       the same, a minute
  code        of the shipped bank's expert of Python, on more text than sample texts (--data-root)
  twenty      of the experts of configs/modular.py, rows of 8 windows of 512 tokens; one GPU
Hardware: two CPU cores, or one GPU.
status: shipped and code measured 2026-12-01 (docs/results/2026-11-30-latent-memory.md): no gain on
  novels, 0.3 % on code, most of it with another place's latents too; twenty not run
"""

import importlib.util
from pathlib import Path

from cr_jax.bank import pretrained
from cr_jax.config import default, domain


def get_config(variant="shipped"):
    config = default()
    config.eval.calibration_windows = 64
    VARIANTS[variant](config)
    config.name = f"latent_reader_{variant}"
    config.data.update(mode="padded", count_overlap=False)
    config.model.window = config.modular.window
    config.lm_optimizer.update(learning_rate=3e-3, muon_learning_rate=0.02)
    config.modular.seed_tokens = 1  # there is a seed already: the bank's language models
    config.train.update(steps=1, log_every=10, checkpoint_every=600.0)  # steps: of compressors
    config.eval.update(calibration_documents=0, windows=64)
    config.studies = ()
    return config


def _shipped(config):
    config.data.domains = {
        name: domain(*(f"samples/{name}@{split}" for split in ("train", "valid", "test")))
        for name in ("novels_en", "statutes")
    }
    config.tokenizer.folder = str(pretrained.folder() / "tokenizer")
    config.modular.update(window=16 * 64, branch_batch=4, branch_tokens=400 * 4 * 1024, looks=4)


def _small(config):
    _shipped(config)
    config.modular.update(branch_tokens=16 * 4 * 1024, looks=1)


def _code(config):
    _shipped(config)
    config.data.domains = {
        "python": domain(
            *(f"jsonl:{{root}}/code_python/{s}.jsonl.zst" for s in ("train*", "valid", "test"))
        )
    }
    config.data.max_train_tokens = 6_000_000


def _twenty(config):
    place = Path(__file__).with_name("modular.py")
    spec = importlib.util.spec_from_file_location("modular", place)
    modular = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modular)
    bank = modular.get_config("twenty")
    # Word problems are shorter than a window, so nothing is ever past.
    config.data.domains = {n: d for n, d in bank.data.domains.items() if n != "math"}
    config.data.max_train_tokens = bank.data.max_train_tokens
    config.eval.update(calibration_windows=256, every_windows=64)
    config.modular.update(window=8 * 512, branch_batch=8, branch_tokens=500 * 8 * 8 * 512, looks=8)


VARIANTS = {"shipped": _shipped, "small": _small, "code": _code, "twenty": _twenty}
