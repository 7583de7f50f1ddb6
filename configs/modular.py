"""Lab note: an expert is a compressor and a language model; a text is spoken by its expert's.

Claim: twenty language models of 19 M parameters, branches of one seed, predict text of their
domains better than one model of the same size trained on as many tokens in all (Branch-Train-Merge,
arXiv 2208.03306; not in the paper), and the compressors' routing says which is to speak.
Command: python main.py --config=configs/modular.py:VARIANT --workdir=runs/modular \
    --config.data.root=DATA
  twenty     (default) the bank of configs/bank.py:half, with a language model for each expert;
             seed 82 M tokens, branches 12.3 M each, and all arms to compare
  lms        the same language models without arms, beside compressors of 100 steps
  tries      four ways to train each branch, of which valid chooses, and the dense model
  small      three of the sample texts, minutes on two CPU cores
Hardware: one GPU.
status: not run yet
"""

import importlib.util
from pathlib import Path

from cr_jax.config import default, domain

ARMS = ("dense", "random_split", "dense_large", "partition_20", "partition_8")
STEP = 16 * 512  # tokens of a branch


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
    config.modular.update(
        seed_tokens=1250 * 128 * 512,
        branch_tokens=500 * STEP,
        window=512,
        seed_batch=128,
        branch_batch=16,
    )
    config.lm_large.update(d_model=512, heads=8, d_ff=1536, blocks=8)  # 60.8 M
    return config


# Ways to train a branch.  A domain whose held-out text is far from its training text stays near the
# seed, by a lower rate or a share of all domains' text; prose and languages want longer branches.
LONG = 1500 * STEP
TRIES = {
    "full": {},
    "third": {"rate": 1 / 3},
    "long": {"tokens": LONG},
    "long_share": {"tokens": LONG, "share": 0.5},
}
# What valid chose of them, with half the rate where the first look was worse than the seed.
OWN = {
    **{n: {"rate": 0.5} for n in ("code_c", "code_go", "code_java")},
    **{n: {"rate": 0.5, "share": 0.5} for n in ("code_js", "code_python", "code_rust", "math")},
    "logs": {"rate": 1 / 3, "share": 0.9},
}


def _twenty(config):
    config.modular.update(branch_tokens=LONG, domains=OWN)
    config.modular.arms = ARMS
    config.eval.windows = 128
    config.studies = ("fingerprint", "routing", "modular")
    # Real documents that switch between prose and code.
    config.data.unseen.mixed = domain(test="jsonl:{root}/mixed/test.jsonl.zst")


def _tries(config):
    """Every way for every domain; valid chooses.  OWN stands on such a run."""
    config.modular.tries = TRIES
    config.modular.arms = ("dense",)
    config.train.tokens = 100 * 32 * 512
    config.eval.every = ""


def _lms(config):
    """Compressors that only stand there: what is looked at are the language models."""
    config.modular.update(branch_tokens=LONG, domains=OWN)
    config.train.tokens = 100 * 32 * 512
    config.eval.every = ""
    config.data.count_overlap = False


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


VARIANTS = {"twenty": _twenty, "lms": _lms, "tries": _tries, "small": lambda config: None}
