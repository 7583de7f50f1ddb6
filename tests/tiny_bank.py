"""Tiny experts for tests: windows of 16 bytes, width 16, fresh or trained for a moment.

Beside them scouts of as little, a text and windows of bytes to route, and how a refusal and a
folder's files are compared.
"""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cr_jax import models, objective, parameter_files, scouts
from cr_jax.bank import ExpertBank
from cr_jax.calibrating import calibrate
from cr_jax.calibration import Calibration
from cr_jax.config import SEEN, ModelConfig, Scoring
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError

TINY = ModelConfig(
    vocab_size=258, window=16, latents=4, d_model=16, d_latent=16, heads=2, d_ff=32,
    encoder_blocks=1, decoder_blocks=1, fold_channels=8, dtype="float32")
FLAT = Calibration({8: np.linspace(1, 9, 40), 16: np.linspace(1, 9, 40)})
SAMPLE = Scoring(parts=4, hidden=1, passes=1)
BYTES = ByteTokenizer()
TEXT = "def route(text):\n    return min(experts, key=residual)  # it is argmin\n" * 3


def windows(rows: int, seed: int = 0, low: int = 97, high: int = 123) -> Windows:
    """Random bytes from [low, high), every window full but the last, which has 9 tokens."""
    tokens = np.random.default_rng(seed).integers(low, high, (rows, TINY.window)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    mask[-1, 9:] = False
    return Windows(tokens, mask, np.zeros(rows, np.int64))


def spread(rows=16):
    """Windows of many alphabets, so that different experts win; some are cut to 9 tokens."""
    parts = [windows(rows // 4, 10 + i, low, low + 40) for i, low in enumerate((0, 60, 120, 200))]
    return Windows(*(np.concatenate([getattr(w, field) for w in parts])
                     for field in ("tokens", "mask", "document")))


def fresh(experts: int, model: ModelConfig = TINY, seed: int = 0):
    """Stacked parameters [E, ...] of untrained experts; expert i does not depend on E."""
    # Drawn by numpy: compiling the real initialiser takes longer than all tests of the bank.
    draw = [np.random.default_rng(100 * seed + i) for i in range(experts)]
    flat = {path: np.stack([d.normal(0, 0.3, shape).astype(np.float32) for d in draw])
            for path, shape in parameter_files.shapes(model).items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def one(params, index: int):
    return jax.tree.map(lambda x: x[index], params)


def scout(seed: int = 0) -> scouts.Scout:
    """Of a text of its own: bytes that stay near those before them, from a range that wanders."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-3, 4, (40, TINY.window))
    text = (np.cumsum(steps, 1) + rng.integers(0, 256, (40, 1))) % 256
    return scouts.count(text, np.ones(text.shape, bool), TINY.vocab_size)


def in_memory(experts: int = 3, model: ModelConfig = TINY, seed: int = 0, rule: Scoring = SEEN,
              tokenizer=None, scouts_from: int = 70) -> ExpertBank:
    """A bank of untrained experts e0, e1, ..., and scouts of other text, that lives in memory."""
    bank = ExpertBank(model, tokenizer or ByteTokenizer(), scoring=rule)
    for i in range(experts):
        bank = bank.mount(f"e{i}", one(fresh(experts, model, seed), i), FLAT,
                          scout=scout(scouts_from + i))
    return bank


def on_disk(folder, experts: int = 2, **more) -> ExpertBank:
    """The same in a folder; more: of `ExpertBank.create`."""
    bank = ExpertBank.create(folder, TINY, ByteTokenizer(), **more)
    for i in range(experts):
        bank.add(f"e{i}", one(fresh(experts), i), FLAT, {"seed": i})
    return bank


def stored(folder, bank):
    made = ExpertBank.create(folder, bank.model, bank.tokenizer, bank.scoring)
    for name in bank.names:
        made.add(name, bank.expert_params(name), bank.calibration[name],
                 scout=bank.scouts.get(name))
    return made


@functools.cache
def trained():
    """Two experts trained together for a moment: e0 on letters a-j, e1 on letters q-z."""

    def loss(params, tokens):
        h, _ = models.Autoencoder(TINY).apply(params, tokens)
        kernel = models.head(TINY, params)
        return objective.linear_cross_entropy(
            h, kernel, tokens, jnp.full(tokens.shape, 1 / tokens.size))[0]

    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, state, tokens):
        grads = jax.vmap(jax.grad(loss))(params, tokens)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, fresh(2))
    state = tx.init(params)
    for i in range(60):
        pair = windows(33, 2 * i, 97, 107), windows(33, 2 * i + 1, 113, 123)
        params, state = step(params, state, jnp.stack([w.tokens[:32] for w in pair]))
    return jax.tree.map(np.asarray, params)


@functools.cache
def trained_bank() -> ExpertBank:
    bank = ExpertBank(TINY, BYTES)
    for i, (low, high) in enumerate(((97, 107), (113, 123))):
        params = one(trained(), i)
        calibration = calibrate(TINY, params, windows(300, 1000 + i, low, high))
        own = windows(300, 2000 + i, low, high)
        bank = bank.mount(f"e{i}", params, calibration, scout=scouts.count(
            own.tokens, own.mask, TINY.vocab_size))
    return bank


def leaves(params) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(params)]


class OtherTokenizer(ByteTokenizer):
    """The same ids under another fingerprint."""

    def __init__(self):
        super().__init__()
        self.fingerprint = "another"


def contents(folder) -> dict:
    """Path below the folder -> bytes, of every file."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refuses(call, *words):
    """`call` raises one line that holds every word."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
