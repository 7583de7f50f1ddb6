"""Lab note: the bank that ships with the package, ten small compressors on free texts.

Claim: `cr-jax route FILE` works right after the install, with no training and no network.
Command: python main.py --config=configs/pretrained.py:VARIANT --workdir=runs/pretrained \
    --config.data.root=DATA
  compressors  (default) ten compressors, 20 minutes on 2 CPU cores beside other work
  lms          their language models, 1.4 M parameters each, for `cr-jax bank add-lms`; one GPU
  technical    eight compressors of the same size, three of code and five of everyday and technical
               prose: for documents that mix both
status: measured 2026-11-22 (results/pretrained.json): TRA at home 99.5% to 99.98%, routing
  of 64 tokens 98.3% (97.9% with a bigram weight of 0); technical 2026-12-01
  (docs/results/2026-12-01-mixed-documents.md): code told from prose in 90.4 % of tokens; with
  latent queries, 6,000 steps and 8 M tokens of text 98.5 % routed, but strange documents are let in
  more often (docs/results/2026-12-01-strange-domains.md), so the fold's bank ships
"""

from cr_jax.bank import pretrained
from cr_jax.config import default, domain

# The expert's name and the folder of its texts; all free to use (cr_jax/bank/pretrained/README.md).
DOMAINS = {
    "python": "code_python",
    "javascript": "code_js",
    "go": "code_go",
    "rust": "code_rust",
    "novels_en": "literature",
    "novels_de": "lang_de",
    "novels_ru": "lang_ru",
    "poems_zh": "lang_zh",
    "statutes": "legal",
    "word_problems": "math",
}

TECHNICAL = {
    "python": "code_python",
    "javascript": "code_js",
    "c": "code_c",
    "tech_docs": "tech_docs",
    "wiki": "wiki",
    "scientific": "scientific",
    "social": "social",
    "news": "news",
}

TOKENIZER = pretrained.folder() / "tokenizer"


def get_config(variant="compressors"):
    config = _compressors()
    VARIANTS[variant](config)
    return config


def _compressors():
    config = default()
    config.name = "pretrained"
    config.bank_dtype = "int8"
    config.data.domains = {
        name: domain(
            *(f"jsonl:{{root}}/{folder}/{split}.jsonl.zst" for split in ("train*", "valid", "test"))
        )
        for name, folder in DOMAINS.items()
    }
    config.data.unseen = {
        name: domain(test=f"jsonl:{{root}}/{name}/test.jsonl.zst")
        for name in ("code_java", "lang_fr", "medical", "news", "logs")
    }
    config.data.max_train_tokens = 3_000_000
    config.tokenizer.update(vocab_size=4096, train_bytes=1_000_000)
    config.model.update(
        window=64,
        latents=8,
        d_model=128,
        d_latent=128,
        heads=4,
        d_ff=256,
        encoder_blocks=2,
        decoder_blocks=1,
        bottleneck="fold",
        tie_embeddings=True,
        predictive=True,
    )
    config.optimizer.learning_rate = 3e-3
    config.train.update(
        batch=16, log_every=20, steps=1000, checkpoint_every=60.0, short=0.25, predict_weight=0.5
    )
    config.scoring.update(predicted=True, bigram_weight=0.35)
    config.eval.update(windows=256, calibration_windows=1000)
    return config


def _lms(config):
    """Language models that read the bank's tokens, beside compressors that only stand there."""
    config.name = "pretrained_lms"
    config.tokenizer.folder = str(TOKENIZER)
    config.data.update(max_train_tokens=6_000_000, count_overlap=False)
    config.data.unseen = {}
    config.train.steps = 1
    config.lm.update(d_model=128, heads=4, d_ff=384, blocks=4, tie_embeddings=True)
    config.lm_optimizer.update(learning_rate=3e-3, muon_learning_rate=0.02)
    config.modular.update(
        seed_tokens=1500 * 128 * 256,
        branch_tokens=500 * 32 * 256,
        window=256,
        seed_batch=128,
        branch_batch=32,
    )
    config.modular.tries = {
        "full": {},
        "third": {"rate": 1 / 3},
        "long": {"tokens": 1500 * 32 * 256},
    }
    config.studies = ()


def _technical(config):
    config.name = "pretrained_technical"
    config.data.domains = {
        name: domain(
            *(f"jsonl:{{root}}/{folder}/{split}.jsonl.zst" for split in ("train*", "valid", "test"))
        )
        for name, folder in TECHNICAL.items()
    }
    config.data.unseen = {}
    config.data.count_overlap = False
    config.model.bottleneck = "query"
    config.eval.windows = 128
    config.studies = ("fingerprint", "routing")


VARIANTS = {"compressors": lambda config: None, "lms": _lms, "technical": _technical}
