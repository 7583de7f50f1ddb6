"""Text of three alphabets in memory, bytes as tokens, for the baselines."""

import numpy as np
import tiny_run

from cr_jax import config as settings
from cr_jax.data import ByteTokenizer, Corpus, eval_windows, random_windows
from cr_jax.data.experiment_text import RANDOM, Corpora

WINDOW = 64
NAMES = ("digits", "letters", "marks")
TOKENIZER = ByteTokenizer()


def words(kind: str, seed: int, alphabet: str | None = None, count: int = 400) -> str:
    """Words of `alphabet` (default: of the kind's own), the same in every split, in any order."""
    pool = tiny_run.text(alphabet or kind, 0).split()
    return " ".join(np.random.default_rng([seed, NAMES.index(kind)]).choice(pool, count))


def corpus(text: str) -> Corpus:
    """One document."""
    tokens = np.append(TOKENIZER.encode(text), TOKENIZER.end_id).astype(np.uint16)
    return Corpus(tokens, np.array([0, len(tokens)]), len(tokens) - 1, "tiny", ["tiny"])


def windows(text: str, window: int = WINDOW, limit: int = 24):
    return eval_windows(corpus(text), window, limit=limit, pad_id=TOKENIZER.pad_id)


def corpora(texts=None, unseen=(), window: int = WINDOW) -> Corpora:
    """Train, valid and test text of each name; `texts`: name -> function of the split's seed."""
    texts = texts or {n: lambda seed, n=n: words(n, seed) for n in NAMES}
    known = {n: make for n, make in texts.items() if n not in unseen}
    test = {n: windows(make(2), window) for n, make in texts.items()}
    test[RANDOM] = random_windows(40, window, TOKENIZER.vocab_size, 0)
    return Corpora(TOKENIZER, {n: corpus(make(0)) for n, make in known.items()},
                   {n: windows(make(1), window) for n, make in known.items()}, test)


def experiment(window: int = WINDOW, **train) -> settings.Experiment:
    """Settings of a model without depth; the domains' sources are never read."""
    model = {"window": window, "latents": 3, "d_model": 16, "d_latent": 16, "heads": 2,
             "d_ff": 24, "encoder_blocks": 1, "decoder_blocks": 0, "dtype": "float32"}
    return settings.build({
        "model": model, "data": {"domains": {n: settings.domain("x", "x", "x").to_dict()
                                             for n in NAMES}},
        "optimizer": {"learning_rate": 0.01},
        "eval": {"batch": 64}, "train": {"batch": 8, "steps": 30, **train}})
