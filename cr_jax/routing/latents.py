"""Texts -> one expert's latents -> texts, and the residuals of many texts by all experts.

Letters: E experts, D documents, B windows, L tokens of a window, M latents, Dz their width.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Int32

from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.routing.chosen import Scorer, joined
from cr_jax.routing.document import Text, whole
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ready import experts_of
from cr_jax.scoring.batching import BatchSizes, check_bank, in_batches


class Latents(NamedTuple):
    """Windows of texts as an expert's latents.

    values: of each window; tokens: how many each stands for; document: the text it comes from, by
    its place in the list.
    """

    values: Float[np.ndarray, "B M Dz"]
    tokens: Int[np.ndarray, " B"]
    document: Int[np.ndarray, " B"]


class Decoded(NamedTuple):
    """A text rebuilt from latents: itself, its T tokens, and the probability that the expert gives
    each of them."""

    text: str
    tokens: Int32[np.ndarray, " T"]
    confidence: Float[np.ndarray, " T"]


def encode(
    bank: ExpertBank, texts: Iterable[Text], expert: str, sizes: BatchSizes | None = None
) -> Latents:
    """Each text's windows as one expert's latents.  texts: str or paths; all windows lie in memory
    at once.  `UserError` when one is empty, or the bank has no such expert.

    >>> import cr_jax
    >>> found = encode(cr_jax.load(), ["def f(x):\\n    return x\\n" * 9], "python")
    >>> found.values.shape[1:], found.document.tolist()
    ((8, 128), [0, 0])
    """
    params, documents = bank.expert_params(expert), _documents(bank, texts)
    windows, sizes = joined(documents), sizes or BatchSizes.for_device()
    run = functools.partial(_encode, bank.model, params)
    values = in_batches(run, windows, sizes.rows(len(windows)), axis=0)
    owner = np.repeat(np.arange(len(documents)), [len(x) for x in documents])
    return Latents(np.asarray(values, np.float32), windows.mask.sum(-1), owner)


def decode(
    bank: ExpertBank, latents: Latents, expert: str, sizes: BatchSizes | None = None
) -> list[Decoded]:
    """The texts that latents stand for, rebuilt by the expert that made them; one for each
    document.  `UserError` when their shape is not the bank's, or the bank has no such expert.

    >>> import cr_jax
    >>> bank, text = cr_jax.load(), "def f(x):\\n    return x + 1\\n"
    >>> back = decode(bank, encode(bank, [text], "python"), "python")
    >>> back[0].text == text, bool(back[0].confidence.min() > 0.3)
    (True, True)
    """
    params, sizes, model = bank.expert_params(expert), sizes or BatchSizes.for_device(), bank.model
    values = np.asarray(latents.values, np.float32)
    if values.shape[1:] != (model.latents, model.d_latent):
        raise UserError(
            f"latents of shape {values.shape} do not fit a bank whose windows have {model.latents} "
            f"latents of {model.d_latent}"
        )
    mask = np.arange(model.window) < np.asarray(latents.tokens)[:, None]
    # The windows' tokens are what is asked for; the places of the latents stand for them.
    places = np.zeros(mask.shape, np.int32)
    places[:, 0] = np.arange(len(values))
    run = functools.partial(_decode_rows, model, params, values, chunk=sizes.tokens)
    found = in_batches(
        run,
        Windows(places, mask, np.asarray(latents.document, np.int64)),
        sizes.rows(len(values)),
        axis=0,
    )
    ids, confidence = (np.asarray(x) for x in found)
    decoded = []
    for d in range(int(latents.document.max(initial=-1)) + 1):
        at = latents.document == d
        own = ids[at][mask[at]]
        known = np.where(own < bank.tokenizer.vocab_size, own, bank.tokenizer.pad_id)
        decoded.append(Decoded(bank.tokenizer.decode(known), own, confidence[at][mask[at]]))
    return decoded


def residual_matrix(
    bank: ExpertBank, texts: Iterable[Text], sizes: BatchSizes | None = None
) -> Float[np.ndarray, "D E"]:
    """nats/token of each text by each expert, in the order of `bank.names`: what exact routing
    compares, without a typicality penalty.  Texts, errors: as in `encode`.

    >>> import cr_jax
    >>> bank = cr_jax.load()
    >>> found = residual_matrix(bank, ["def f(x):\\n    return x\\n", "Es war einmal ein König."])
    >>> [bank.names[i] for i in found.argmin(1)]
    ['python', 'novels_de']
    """
    check_bank(bank)
    documents = _documents(bank, texts)
    windows = joined(documents)
    with Scorer(experts_of(bank), RouteOptions(), sizes) as scorer:
        every = np.ones((len(bank.names), len(windows)), bool)
        nats = scorer.begin(windows, every, surprise=False)().residual
    starts = np.cumsum([0, *(len(x) for x in documents[:-1])])
    tokens = np.add.reduceat(windows.mask.sum(-1), starts)
    return (np.add.reduceat(nats, starts, axis=1) / tokens).T


def _documents(bank: ExpertBank, texts: Any) -> list[Windows]:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise UserError(f"give a list of texts, not {type(texts).__name__}")
    documents = [whole(bank, text) for text in texts]
    if not documents:
        raise UserError("the list of texts is empty: give at least one")
    return documents


@functools.partial(jax.jit, static_argnames="model")
def _encode(model, params, tokens, mask):
    return models.Autoencoder(model).apply(params, tokens, mask, method="encode")


def _decode_rows(model, params, values, places, mask, chunk):
    return _decode(model, params, values[places[:, 0]], mask, chunk)


@functools.partial(jax.jit, static_argnames=("model", "chunk"))
def _decode(model, params, z, mask, chunk):
    h = models.Autoencoder(model).apply(params, z, mask, method="decode")
    targets = jax.numpy.zeros(mask.shape, jax.numpy.int32)
    scores = objective.token_scores(h, models.head(model, params), targets, chunk)
    return scores.predicted, scores.confidence
