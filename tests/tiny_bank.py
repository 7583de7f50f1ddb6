"""Tiny experts for tests: windows of 16 bytes, width 16, fresh or trained for a moment."""

import flax.traverse_util
import jax
import numpy as np

from cr_jax import parameter_files
from cr_jax.bank import ExpertBank
from cr_jax.calibration import Calibration
from cr_jax.config import SEEN, ModelConfig, Scoring
from cr_jax.data.tokenizers import ByteTokenizer

TINY = ModelConfig(
    vocab_size=258, window=16, latents=4, d_model=16, d_latent=16, heads=2, d_ff=32,
    encoder_blocks=1, decoder_blocks=1, fold_channels=8, dtype="float32")
FLAT = Calibration({8: np.linspace(1, 9, 40), 16: np.linspace(1, 9, 40)})


def fresh(experts: int, model: ModelConfig = TINY, seed: int = 0):
    """Stacked parameters [E, ...] of untrained experts; expert i does not depend on E."""
    # Drawn by numpy: compiling the real initialiser takes longer than all tests of the bank.
    draw = [np.random.default_rng(100 * seed + i) for i in range(experts)]
    flat = {path: np.stack([d.normal(0, 0.3, shape).astype(np.float32) for d in draw])
            for path, shape in parameter_files.shapes(model).items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def one(params, index: int):
    return jax.tree.map(lambda x: x[index], params)


def in_memory(experts: int = 3, model: ModelConfig = TINY, seed: int = 0, rule: Scoring = SEEN,
              tokenizer=None) -> ExpertBank:
    """A bank of untrained experts e0, e1, ... that lives in memory."""
    bank = ExpertBank(model, tokenizer or ByteTokenizer(), scoring=rule)
    for i in range(experts):
        bank = bank.mount(f"e{i}", one(fresh(experts, model, seed), i), FLAT)
    return bank


def on_disk(folder, experts: int = 2) -> ExpertBank:
    """The same in a folder."""
    bank = ExpertBank.create(folder, TINY, ByteTokenizer())
    for i in range(experts):
        bank.add(f"e{i}", one(fresh(experts), i), FLAT, {"seed": i})
    return bank


def leaves(params) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(params)]


class OtherTokenizer(ByteTokenizer):
    """The same ids under another fingerprint."""

    def __init__(self):
        super().__init__()
        self.fingerprint = "another"
