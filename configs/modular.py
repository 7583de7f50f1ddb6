"""Lab note: an expert is a compressor and a language model; a text is spoken by its expert's.

Claim: twenty language models of 19 M parameters, branches of one seed, predict text of their
domains better than one model of the same size trained on as many tokens in all (Branch-Train-Merge,
arXiv 2208.03306; not in the paper), and the compressors' routing says which is to speak.
Command: python main.py --config=configs/modular.py:VARIANT --workdir=runs/modular \
    --config.data.root=DATA
  twenty     (default) the bank of configs/bank.py:half, with a language model for each expert;
             seed 164 M tokens, branches of 8 or 16 M in four ways, of which valid chooses, then
             averages of branches, and all arms to compare
  tries      its language models and the dense one alone, beside compressors of 100 steps
  small      three of the sample texts, minutes on two CPU cores
Hardware: one GPU.
status: measured 2026-12-01 (docs/results/2026-11-30-modular.md) with the bottleneck query and the
  arms dense and dense_large: 15.2 % below dense; random_split and partitions not run with this
  recipe
"""

import importlib.util
from pathlib import Path

from cr_jax.config import default, domain

ARMS = ("dense", "random_split", "dense_large", "partition_20", "partition_8")
BRANCH = 250 * 64 * 512  # tokens
AVERAGES = (0.25, 0.5, 0.75, 1.0)


def get_config(variant="twenty"):
    config = _small() if variant == "small" else _bank()
    config.name = "modular" if variant == "twenty" else f"modular_{variant}"
    VARIANTS[variant](config)
    return config


def _bank():
    """The twenty compressors of configs/bank.py, and language models of 19.3 M parameters."""
    place = Path(__file__).with_name("bank.py")
    spec = importlib.util.spec_from_file_location("bank", place)
    bank = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bank)
    config = bank.get_config("half")
    # A power of two, which the row kernels want; 16.8 M of the parameters are embedding and head.
    config.lm.update(d_model=256, heads=4, d_ff=768, blocks=3)
    config.lm_optimizer.update(learning_rate=3e-3, muon_learning_rate=0.02)
    config.modular.update(window=512, seed_batch=128)
    config.lm_large.update(d_model=512, heads=8, d_ff=1536, blocks=8)  # 60.8 M
    return config


# Ways to train a branch, of which valid chooses one for each domain.  A domain whose held-out text
# is unlike its training text stays near the seed, by small steps or a share of all domains' text;
# prose and languages want longer branches.
TRIES = {
    "usual": {},
    "long": {"tokens": 2 * BRANCH},
    "share": {"share": 0.5},
    "gentle": {"rate": 1 / 3, "batch": 16},
}


def _twenty(config):
    config.modular.update(
        seed_tokens=2500 * 128 * 512, branch_tokens=BRANCH, branch_batch=64, averages=AVERAGES
    )
    config.modular.tries = TRIES
    config.modular.domains = {"logs": {"share": 0.9}}
    config.modular.arms = ARMS
    config.eval.windows = 128
    config.studies = ("fingerprint", "routing", "modular")
    # Real documents that switch between prose and code.
    config.data.unseen.mixed = domain(test="jsonl:{root}/mixed/test.jsonl.zst")


def _tries(config):
    """The language models of `twenty` beside the dense one, and compressors of 100 steps."""
    _twenty(config)
    config.modular.arms = ("dense",)
    config.train.tokens = 100 * 32 * 512
    config.eval.every = ""
    config.studies = ()


def _small():
    config = default()
    config.data.domains = {
        name: domain(*(f"samples/{name}@{split}" for split in ("train", "valid", "test")))
        for name in ("novels_en", "novels_de", "statutes")
    }
    config.tokenizer.vocab_size = 2048
    config.model.update(
        window=64,
        latents=8,
        d_model=128,
        d_latent=128,
        heads=4,
        d_ff=256,
        encoder_blocks=1,
        decoder_blocks=1,
        tie_embeddings=True,
        predictive=True,
    )
    config.scoring.update(predicted=True, bigram_weight=0.35)
    config.optimizer.learning_rate = 3e-3
    config.train.update(batch=16, log_every=10, steps=100, checkpoint_every=30.0)
    config.eval.update(windows=256, every_windows=128)
    config.lm.update(d_model=128, heads=4, d_ff=256, blocks=2, tie_embeddings=True)
    config.lm_optimizer.update(learning_rate=3e-3, muon_learning_rate=0.02)
    config.modular.update(
        seed_tokens=300 * 16 * 128,
        branch_tokens=100 * 16 * 128,
        window=128,
        seed_batch=16,
        branch_batch=16,
        looks=4,
        arms=("dense", "random_split", "partition_3"),
    )
    config.studies = ("fingerprint", "routing", "modular")
    config.lm_large.update(d_model=256, heads=4, d_ff=512, blocks=2, tie_embeddings=True)
    return config


VARIANTS = {"twenty": _twenty, "tries": _tries, "small": lambda config: None}
