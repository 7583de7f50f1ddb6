"""The records that a bank is made of: one expert, and the language models of all."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from cr_jax.config import LmConfig
from cr_jax.scoring.bigram_model import BigramModel
from cr_jax.scoring.calibration import Calibration
from cr_jax.scoring.own_documents import OwnDocuments


@dataclasses.dataclass(frozen=True, eq=False)
class Expert:
    """One domain's compressor and what was measured with it.

    params: pytree of float32 arrays, without the expert axis; about: provenance in JSON types;
    bigram: for a cascade, and for rules with a bigram_weight; lm: parameters of its language model
    (not in the paper); own_documents: how far it leads the bank's others on its validation
    documents, None: not measured.  `ExpertBank.mount` and `add` check that they fit the bank.
    """

    name: str
    params: Any = dataclasses.field(repr=False)
    calibration: Calibration = dataclasses.field(repr=False)
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    bigram: BigramModel | None = dataclasses.field(default=None, repr=False)
    lm: Any = dataclasses.field(default=None, repr=False)
    own_documents: OwnDocuments | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "about", types.MappingProxyType(dict(self.about)))


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModels:
    """Language models of experts, all of one shape.  Not in the paper.

    seed: parameters of the one that was trained on all domains before the experts' branched off; it
    speaks for unknown text; None: there is none.  experts: an expert's name -> its parameters.
    """

    config: LmConfig
    seed: Any = dataclasses.field(default=None, repr=False)
    experts: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
