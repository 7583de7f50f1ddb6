"""A finished run's models on its test windows -> the nats that the table is made of."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cr_jax.config import SEEN, LmConfig
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.modular import score
from cr_jax.router import score_bank, score_tokens
from cr_jax.scoring import bigram
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import baselines
from cr_jax.studies.modular.models import BRANCHES, LABELLED, SEED, LanguageModels
from cr_jax.studies.modular.nats import DomainNats


@dataclasses.dataclass(frozen=True)
class Models:
    """Everything that scores windows: the run and its language models, and the fitted gate."""

    context: Any
    language_models: LanguageModels
    gate: baselines.Baseline | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, in the order of E."""
        return self.context.bank.names

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of models without labels."""
        several = [n for n, arm in self.language_models.arms.items() if len(arm.params) > 1]
        return tuple(n for n in several if n not in LABELLED)


def measure(
    models: Models,
    windows: Mapping[str, Windows],
    prefixes: Sequence[int],
    labels: Mapping[str, np.ndarray],
) -> dict[str, DomainNats]:
    """nats of every window by every model, all domains in one go.

    labels: of domains whose tokens have one, the expert of each [N, L].
    """
    whole = joined(windows.values())
    cuts = np.cumsum([len(w) for w in windows.values()])[:-1]
    split = lambda x: dict(zip(windows, np.split(x, cuts, axis=-2), strict=True))
    lms, names = models.language_models, models.names
    experts = split(model_nats(models, lms.config, [lms.experts[n] for n in names], whole))
    seed = split(model_nats(models, lms.config, [lms.seed], whole)[0])
    singles, sets = {}, {}
    for name, arm in lms.arms.items():
        if name in (BRANCHES, SEED):
            continue
        chosen = [arm.params[n] for n in (names if name in LABELLED else arm.params)]
        found = model_nats(models, arm.config, chosen, whole)
        if len(chosen) == 1:
            singles[name] = split(found[0])
        else:
            sets[name] = split(found)
    code_length = _split_or_none(_code_length(models, whole), split)
    bigrams = _split_or_none(_bigrams(models, whole), split)
    choices = {
        name: _by_domain(found, windows, cuts)
        for name, found in _choices(models, whole, prefixes).items()
    }
    lengths = np.zeros(lms.config.vocab_size, np.int32)
    token_bytes = models.context.text.tokenizer.token_bytes
    lengths[: len(token_bytes)] = token_bytes
    return {
        name: DomainNats(
            mask=w.mask,
            bytes=lengths[w.tokens],
            experts=experts[name],
            seed=seed[name],
            singles={k: v[name] for k, v in singles.items()},
            sets={k: v[name] for k, v in sets.items()},
            code_length=code_length and code_length[name],
            bigrams=bigrams and bigrams[name],
            choices={k: v[name] for k, v in choices.items()},
            label=labels.get(name),
            segment=_segments(labels[name]) if name in labels else None,
        )
        for name, w in windows.items()
    }


def model_nats(
    models: Models, config: LmConfig, params: Sequence[Any], windows: Windows
) -> Float[np.ndarray, "K N L"]:
    """nats of each token by each of K language models."""
    e = models.context.experiment
    return score.token_nats(
        config, score.stacked(params), windows.tokens, e.train.loss_chunk, e.eval.batch
    )


def _code_length(models: Models, windows: Windows) -> Float[np.ndarray, "E N L"] | None:
    """By the compressors' own predictions; None where the bank's rule is another, or scores a
    sample of the tokens.  Rebuilding is no code length: it has seen what comes."""
    bank, e = models.context.bank, models.context.experiment
    if not bank.scoring.predicted:
        return None
    sizes = BatchSizes.of(e.eval)
    parts = [
        score_tokens(bank, windows.take(slice(i, i + 1024)), sizes, seen=False).residual
        for i in range(0, len(windows), 1024)
    ]
    return np.concatenate(parts, axis=1)


def _bigrams(models: Models, windows: Windows) -> Float[np.ndarray, "E N L"] | None:
    bigrams = models.context.bank.bigrams
    if any(n not in bigrams for n in models.names):
        return None
    return bigram.bigram_nats(bigram.table(bigrams[n] for n in models.names), windows.tokens)


def _choices(models: Models, windows: Windows, prefixes) -> dict[str, dict[int, np.ndarray]]:
    """Scores of the experts on the first tokens [E, N], the lowest wins: how well the compressors
    rebuild them (the paper's rule), and the gate's."""
    bank, e = models.context.bank, models.context.experiment
    sizes = BatchSizes.of(e.eval)
    choices: dict[str, dict[int, np.ndarray]] = {"rebuilding": {}}
    for prefix in prefixes:
        mask = windows.mask & (np.arange(windows.mask.shape[1]) < prefix)[None]
        cut = Windows(windows.tokens, mask, windows.document)
        choices["rebuilding"][prefix] = score_bank(bank, cut, sizes, SEEN).residual
    if models.gate:
        logits = models.gate.predict(windows.tokens, windows.mask, tuple(prefixes))
        choices["gate"] = {prefix: -x for prefix, x in zip(prefixes, logits, strict=True)}
    return choices


def _by_domain(choice: Mapping[int, np.ndarray], windows, cuts):
    """{prefix: [E, N of all]} -> {domain: {prefix: [E, N]}}"""
    parts = {prefix: np.split(scores, cuts, axis=-1) for prefix, scores in choice.items()}
    return {
        name: {prefix: part[i] for prefix, part in parts.items()} for i, name in enumerate(windows)
    }


def _split_or_none(nats, split):
    return None if nats is None else split(nats)


def joined(windows: Iterable[Windows]) -> Windows:
    """The windows of all domains.  `UserError` where there are none."""
    parts = list(windows)
    if not sum(map(len, parts)):
        raise UserError("there are no test windows to score language models on")
    return Windows(
        *(np.concatenate([getattr(w, x) for w in parts]) for x in ("tokens", "mask", "document"))
    )


def _segments(label) -> np.ndarray:
    """Numbers of the stretches of one label [N, L]."""
    changes = np.diff(label, axis=1, prepend=label[:, :1]) != 0
    return np.cumsum(changes, axis=1)
