"""Training of readers: an adapter for each expert's language model, on frozen latents.

    a row of consecutive windows of one document -> their expert's z, no gradient
    a window's tokens + z of the windows before it -> each token is predicted

An expert's adapter reads what this expert's compressor wrote, because every compressor has a code
of its own; windows by others are not read.  Compressor and language model stay as they are.  What
the adapter is: `models.lm.latent_reader`; how it reads a memory: `memory_reader`.  Not in the
paper.
Letters: B rows, W windows of one, L tokens of a window, M latents, Dz their width.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.config import Experiment, LmConfig, ModelConfig
from cr_jax.data import Corpus, Mixture
from cr_jax.data.experiment_text import Corpora
from cr_jax.errors import UserError
from cr_jax.host.files import read_sealed
from cr_jax.models import lm as language_models
from cr_jax.models import objective
from cr_jax.models.layers import row_kernels
from cr_jax.models.lm import latent_reader
from cr_jax.modular import memory_codes
from cr_jax.modular.language_models import BankLms
from cr_jax.modular.memory_experts import compressor_hash
from cr_jax.modular.memory_reader import Adapters
from cr_jax.modular.training_stage import (
    NOTE,
    Finished,
    Member,
    Stage,
    run_stage,
    sha256_of,
    shape_of,
    stored_stage,
)
from cr_jax.training import speed
from cr_jax.training.losses import logits_chunk

NAME = "latent_reader"  # of the stage, and of its folder below a workdir
DTYPE = "bfloat16"  # in which latents are kept while the adapter is trained


@dataclasses.dataclass(frozen=True)
class LatentReaderLoss:
    """Cross-entropy of a document's windows but the first, nats/token, each given the latents of
    those before it: a token sees the tokens of its own window and no others.

    lm: of the experts; compressor: likewise; windows: of a row; chunk: tokens whose logits stand in
    memory at once.  Parameters are "compressor", "lm" and "reader", of which "reader" is trained.
    """

    lm: LmConfig
    compressor: ModelConfig
    windows: int
    chunk: int = 8192

    frozen: ClassVar[tuple[str, ...]] = ("compressor", "lm")

    @property
    def model(self) -> LmConfig:
        return self.lm

    @property
    def window(self) -> int:
        return self.windows * self.compressor.window

    @property
    def past(self) -> int:
        """Windows that the last one of a row reads: the most that the adapter knows."""
        return self.windows - 1

    @property
    def flops_per_token(self) -> float:
        """The frozen decoder passes gradients on and has none itself; the encoder has neither."""
        c = self.compressor
        parts = speed.forward_flops(c)
        sizes = (self.lm, c.latents, c.d_latent, self.past // 2)
        each, project = latent_reader.forward_flops(*sizes)
        written = parts["encoder"] + parts["bottleneck"] / 2 + 3 * project
        read = 2 * language_models.forward_flops(self.lm, c.window) + 3 * each
        return written / c.window + read

    def init(self, key):
        c = self.compressor
        return {
            "compressor": models.init(c, key),
            "lm": language_models.init(self.lm, key),
            "reader": latent_reader.init(self.lm, c.latents, c.d_latent, key),
        }

    def rows(self, batch, key, axis_name):
        fields = dict(batch)
        counted = self._counted(fields)[:, self.compressor.window :]
        return fields, jnp.maximum(jnp.sum(counted, dtype=jnp.float32), 1.0)

    def __call__(self, params, rows, count):
        targets, counted = (
            x[:, self.compressor.window :] for x in (rows["tokens"], self._counted(rows))
        )
        value, scores = objective.linear_cross_entropy(
            self._states(params, rows),
            language_models.head(self.lm, params["lm"]),
            targets,
            counted.astype(jnp.float32) / count,
            self.chunk,
            row_kernels(self.lm),
        )
        return value, objective.score_sums(scores, counted)

    def score(self, params, rows):
        h, head = self._states(params, rows), language_models.head(self.lm, params["lm"])
        own = lambda x: x[:, self.compressor.window :]
        scores = objective.token_scores(h, head, own(rows["tokens"]), self.chunk)
        return objective.score_sums(scores, own(rows["counted"]))

    def _states(self, params, rows):
        """Of all windows but the first, [B, (W - 1) L, D]."""
        z = jax.lax.stop_gradient(self._latents(params["compressor"], rows))
        ages = jnp.asarray(np.arange(1, self.windows)[:, None] - np.arange(self.past))[None]
        tokens = rows["tokens"][:, self.compressor.window :]
        return latent_reader.states(self.lm, params["lm"], params["reader"], tokens, z, ages)

    def _latents(self, params, rows) -> Float[Array, "B W M Dz"]:
        c, cut = self.compressor, lambda x: x[:, : self.past * self.compressor.window]
        tokens = cut(rows["tokens"]).reshape(-1, c.window)
        mask = cut(self._counted(rows)).reshape(-1, c.window)
        # What only fills up is whole: attention needs a token to look at.  Nothing reads it.
        mask |= ~mask.any(-1, keepdims=True)
        z = models.Autoencoder(c).apply(params, tokens, mask, method="encode")
        z = memory_codes.values(memory_codes.stored(z, DTYPE), DTYPE, c.d_latent)
        return z.reshape(len(rows["tokens"]), self.past, c.latents, c.d_latent)

    def _counted(self, rows):
        return rows.get("mask", jnp.ones(rows["tokens"].shape, bool))


def loss_of(e: Experiment, bank: ExpertBank, experts: int) -> LatentReaderLoss:
    """What the settings lower for language models of the bank.  `UserError` for a window
    (`config.modular.window`) that is not two or more of the bank's; for packed ones."""
    lms = BankLms(bank)
    config = dataclasses.replace(lms.config, window=lms.window)
    length = bank.model.window
    chunk = logits_chunk(e.train, config.vocab_size, experts)
    latent_reader.make_reader(config, bank.model.latents, bank.model.d_latent)
    loss = LatentReaderLoss(config, bank.model, e.modular.window // length, chunk)
    if e.modular.window % length or e.modular.window < 2 * length:
        raise UserError(
            f"config.modular.window={e.modular.window} must be two or more of the bank's windows "
            f"of {length} tokens"
        )
    if e.data.mode != "padded":
        raise UserError(
            f"config.data.mode={e.data.mode!r}: latents are read within a document; use 'padded'"
        )
    return loss


def train(
    e: Experiment,
    bank: ExpertBank,
    text: Corpora,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Finished:
    """Trains an adapter for each domain of `text`, whose expert in the bank has its name.

    text: cut by the bank's tokenizer, in rows of `config.modular.window` tokens; documents of one
    window are left out.  -> params of each: {"reader": ...}.  Goes on below
    FOLDER/latent_reader, or reads what is finished there; raises as `run_stage`.
    """
    lms, names, length = BankLms(bank), tuple(text.train), bank.model.window
    loss = loss_of(e, bank, len(names))
    if text.tokenizer.fingerprint != bank.tokenizer.fingerprint:
        raise UserError(
            "config.tokenizer: give the bank's own, config.tokenizer.folder=BANK/tokenizer"
        )
    places = np.array([lms.place(n) for n in names])
    sizes = (loss.lm, loss.compressor.latents, loss.compressor.d_latent)
    keys = jax.random.split(jax.random.key(e.seed), len(names))
    fresh = jax.jit(jax.vmap(lambda key: latent_reader.init(*sizes, key)))(keys)
    starts = {
        "compressor": jax.tree.map(lambda *x: np.stack(x), *(bank.expert(n).params for n in names)),
        "lm": lms.stack(places),
        "reader": jax.device_get(fresh),
    }
    members = {}
    for n, source in text.train.items():
        rows, valid = long_only(source, length), text.valid[n]
        valid = valid.take(np.flatnonzero(valid.mask.sum(-1) > length))
        if not len(valid):
            raise UserError(f"{n}: no document of its valid text is longer than {length} tokens")
        members[n] = Member(rows, rows, e.modular.branch_tokens, valid=valid)
    stage = Stage(
        NAME,
        loss.lm,
        members,
        e.modular.branch_batch,
        e.lm_optimizer,
        keep_best=e.modular.keep_best,
        loss=loss,
        starts=starts,
        about=_about(bank, names) | {"past": loss.past},
    )
    return run_stage(stage, e, text.tokenizer, folder, say)


def stored(folder: Path, bank: ExpertBank) -> Adapters:
    """The adapters that `train` stored below a folder.  `UserError` where they are of experts that
    the bank has not, or has with other weights, or were changed."""
    lms, place = BankLms(bank), folder / NAME
    record = read_sealed(place / NOTE)["record"]
    config = dataclasses.replace(lms.config, window=lms.window)
    fits = {"model": shape_of(config), "tokenizer": bank.tokenizer.fingerprint}
    found = stored_stage(place, config, fits | _about(bank, tuple(record["experts"])))
    return Adapters({n: p["reader"] for n, p in found.params.items()}, record["past"])


def _about(bank: ExpertBank, names: tuple[str, ...]) -> dict[str, Any]:
    """What an adapter was trained beside, and reads alone."""
    lms = BankLms(bank)
    return {
        "compressors": {n: compressor_hash(bank.expert(n)) for n in names},
        "language_models": {n: sha256_of(lms.params(lms.place(n))) for n in names},
    }


def long_only(source: Corpus | Mixture, longer: int) -> Corpus | Mixture:
    """The documents of more than so many tokens.  `UserError` where there are none."""
    if isinstance(source, Mixture):
        return Mixture([long_only(c, longer) for c in source.corpora], source.weights)
    lengths = np.diff(source.starts)
    kept = np.flatnonzero(lengths - 1 > longer)  # without the token that ends a document
    if not len(kept):
        raise UserError(f"no document of a training text is longer than {longer} tokens")
    parts = [source.tokens[source.starts[i] : source.starts[i + 1]] for i in kept]
    return dataclasses.replace(
        source,
        tokens=np.concatenate(parts),
        starts=np.cumsum([0, *lengths[kept]], dtype=np.int64),
        fingerprint=f"{source.fingerprint} longer than {longer}",
        names=[source.names[i] for i in kept] if source.names else source.names,
    )
