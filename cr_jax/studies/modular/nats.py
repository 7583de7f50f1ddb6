"""What every model says of one domain's test windows: the arrays that all arms are computed from.

Letters: E experts, K models of another set, N windows, L tokens of a window.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Integer


@dataclasses.dataclass(frozen=True)
class DomainNats:
    """float32 nats of each token given those before it in its window.

    mask: True on real tokens.  bytes: UTF-8 bytes that each token stands for.
    experts: by the experts' language models; seed: by the one that they are branches of.
    singles: by other single models ("dense").  sets: by other sets of models ("partition_8").
    code_length: by the compressors' predictive encoders, NaN where their rule scores none.
    bigrams: by the experts' bigram models.
    choices: scores of the experts on the first n tokens by what is no model of tokens, such as a
    gate: name -> n -> [E, N]; the lowest wins.
    merged: by one model of several experts' weights, by the n first tokens that chose them.
    label: the expert that each token's text is labelled with; segment: numbers of stretches of one
    kind, where the kinds are known and the experts are not.
    """

    mask: Bool[np.ndarray, "N L"]
    bytes: Integer[np.ndarray, "N L"]
    experts: Float[np.ndarray, "E N L"]
    seed: Float[np.ndarray, "N L"]
    singles: Mapping[str, Float[np.ndarray, "_ _"]] = dataclasses.field(default_factory=dict)
    sets: Mapping[str, Float[np.ndarray, "_ _ _"]] = dataclasses.field(default_factory=dict)
    code_length: Float[np.ndarray, "E N L"] | None = None
    bigrams: Float[np.ndarray, "E N L"] | None = None
    choices: Mapping[str, Mapping[int, Float[np.ndarray, "_ _"]]] = dataclasses.field(
        default_factory=dict
    )
    merged: Mapping[int, Float[np.ndarray, "_ _"]] = dataclasses.field(default_factory=dict)
    label: Integer[np.ndarray, "N L"] | None = None
    segment: Integer[np.ndarray, "N L"] | None = None

    def take(self, at: Integer[np.ndarray, " _"]) -> "DomainNats":
        """The windows `at`, of the tokens' own fields; the mappings are left out."""
        own = {
            f.name: np.take(getattr(self, f.name), at, axis=-2)
            for f in dataclasses.fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return DomainNats(**own)

    def speakers(self, name: str) -> np.ndarray | None:
        """The models of a set [K, N, L]: "experts", "code_length" or one of `sets`; None: it was
        not measured."""
        if name in ("experts", "code_length"):
            return getattr(self, name)
        return self.sets.get(name)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the models of an arm have cost: parameters of one, how many there are, and the tokens
    and floating-point operations of their training and of the seed they began as."""

    params: int
    models: int
    train_tokens: int
    train_flops: float
