"""What a baseline is given and what it gives back.

    fit(TrainingText, lengths, Budget) -> predict(tokens, mask, lengths) -> scores [K, E, N]

Scores grow with likelihood: the answer for a window is the argmax over E.  K lengths, E domains, N
windows, L tokens.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int32

from cr_jax.config import Experiment
from cr_jax.data import Corpus, Mixture, Tokenizer, WindowBatches, Windowing, sample, train_iterator
from cr_jax.parallel.plan import Plan
from cr_jax.training.loop import Job, train
from cr_jax.training.losses import Loss


@runtime_checkable
class Predict(Protocol):
    """A fitted baseline."""

    def __call__(
        self,
        tokens: Int32[np.ndarray, "N L"],
        mask: Bool[np.ndarray, "N L"],
        lengths: Sequence[int],
    ) -> Float[np.ndarray, "K E N"]:
        """Scores of each window cut to its first l tokens, for every l of `lengths`.

        `mask`: True on real tokens, which come first.
        """


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A fitted baseline and how its figures are to be read.

    independent: each domain's score was fitted on that domain's text alone, so dropping it leaves
    exactly what would have been fitted without that domain.
    unit: what the scores are, negated where less is more likely; all are means over a window.
    """

    predict: Predict
    independent: bool
    unit: Literal["nats/token", "nats/byte", "bytes/byte", "logit", "distance"]
    note: dict = dataclasses.field(default_factory=dict)  # sizes and the like, for the table


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much of each domain's training text, or of time, a baseline may use; 0: no limit."""

    tokens: int = 0  # naive_bayes: per domain, each token at most once
    ngram_tokens: int = 4_000_000  # ngram: per domain
    sample_bytes: int = 8_000_000  # ppm: per domain
    dictionary_bytes: int = 1_000_000  # zstd: per domain
    embedding_windows: int = 1500  # embedding: per domain
    gate_steps: int = 600
    gate_batch: int = 16  # windows per domain and step
    lm_tokens: int = 0  # per domain; 0: as many as the compressors, `config.train`
    seconds: float = 0.0  # gate, lm: training of each stops here, its learning rate at the end


@dataclasses.dataclass(frozen=True)
class TrainingText:
    """The text that the compressors are trained on: one corpus per domain."""

    names: tuple[str, ...]
    corpora: tuple[Corpus | Mixture, ...]
    tokenizer: Tokenizer
    window: int
    mode: str = "packed"
    seed: int = 0

    def windows(
        self, domain: int, tokens: int = 0
    ) -> tuple[Int32[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
        """(tokens, mask) of a domain's windows in random order: one epoch, each token at most once.

        `tokens`: at most about so many; 0: all of them.
        """
        return sample(self.names[domain], self.corpora[domain], self._windowing, tokens)

    def batches(self, batch: int):
        """Endless {"tokens" [E, B, L], in padded mode "mask"}, as the compressors' own training."""
        every = dict(zip(self.names, self.corpora, strict=True))
        return train_iterator(WindowBatches(every, batch, self._windowing))

    @property
    def _windowing(self) -> Windowing:
        return Windowing(self.window, self.seed, self.mode, self.tokenizer.pad_id)


def fitted(
    experiment: Experiment,
    loss: Loss,
    names: Sequence[str],
    plan: Plan,
    batches: Callable[[int], Iterator],
) -> tuple[Any, dict]:
    """Trains a baseline's models by the compressors' own loop, in memory.

    -> (parameters stacked [E, ...] on the devices; steps, seconds of steps, and the last step's
    loss of each model in nats).  `config.train` may give steps and seconds: the learning rate
    reaches its end whichever comes first.  `UserError` when a loss is not finite.
    """
    last = {}

    def note(step, values):
        last.update({name: figures["nll"] for name, figures in values.items()})

    trained = train(Job(experiment, loss, tuple(names), batches), plan, on_log=note)
    return jax.device_put(trained.params), {
        "steps": trained.step,
        "seconds": trained.seconds,
        "last_loss": list(last.values()),
    }


def cut(mask: Bool[np.ndarray, "N L"], length: int) -> Bool[np.ndarray, "N L"]:
    """The mask of windows cut to their first `length` tokens."""
    return mask & (np.arange(mask.shape[1]) < length)[None]
