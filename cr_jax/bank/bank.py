"""`ExpertBank`: a folder of experts <-> parameters stacked on a leading expert axis E.

Paper, routing rule: an unknown domain gets a new compressor while all old experts stay frozen.
Here frozen means the same bytes: a bank never changes, and `mount` and `add` give a new one that
holds the very same experts and one more.
"""

import dataclasses
import functools
import os
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from cr_jax import config, models
from cr_jax.bank import own_documents_file, parameters, screen_file, shown, stacks
from cr_jax.bank.creation import create_folder
from cr_jax.bank.expert import Expert, LanguageModels
from cr_jax.bank.expert_folder import check_memory, read_expert, write_expert
from cr_jax.bank.files import BankFolder, consistent
from cr_jax.bank.fitting import fitted, rounded, whose_lm
from cr_jax.bank.language_models import check_language_models, read_seed
from cr_jax.bank.screen_file import Screen
from cr_jax.bank.settings import (
    BankSettings,
    check_same_lm,
    check_vocabulary,
    read_settings,
    read_tokenizer,
    to_index,
)
from cr_jax.config import SEEN, LmConfig, ModelConfig, Scoring
from cr_jax.data.text_form import LF_NFC, Form
from cr_jax.errors import UserError
from cr_jax.scoring.bigram import BigramModel, BigramTable, table, with_bigrams
from cr_jax.scoring.calibration import Calibration


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExpertBank:
    """Experts that share one tokenizer and one model shape.  It never changes.

    Experts come in by `mount`, `add` and `load`, which check them; their arrays are numpy's and
    cannot be written to.  `params` [E, ...] and the other stacks are made when they are first asked
    for.  `mount`, `unmount`, `select` and `with_lms` give a new bank that lives in memory; `add`
    and `remove` change `folder` and give the bank that is there then.

    scoring: its residual rule is the one that calibrations were made with; text_form: of the text
    that tokens are made of; lm: shape of the experts' language models, None: they have none;
    seed_lm: parameters of the language model that was trained on all domains before the experts'
    branched off, which speaks for unknown text, or None; screen: where bigram models decide alone,
    as stored with these experts, or what is wrong with it.  `UserError` when the model's vocabulary
    does not hold the tokenizer's.
    """

    model: ModelConfig
    tokenizer: Any  # cr_jax.data.tokenizers.Tokenizer
    experts: tuple[Expert, ...] = ()
    scoring: Scoring = SEEN
    text_form: Form = LF_NFC
    folder: Path | None = None
    lm: LmConfig | None = None
    seed_lm: Any = None
    screen: Screen | UserError | None = None

    __repr__ = shown.lines

    def __post_init__(self):
        if not 0 < self.tokenizer.vocab_size <= self.model.vocab_size:
            raise UserError(
                f"the model's vocabulary ({self.model.vocab_size}) must hold the "
                f"tokenizer's {self.tokenizer.vocab_size} pieces: set "
                "config.model.vocab_size"
            )
        if self.lm is not None:
            check_vocabulary(self.lm, self.model, self.tokenizer.vocab_size)
        if len(set(self.names)) != len(self.names):
            raise UserError(f"an expert is named twice: {', '.join(self.names)}")

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        model: ModelConfig,
        tokenizer,
        scoring: Scoring = SEEN,
        text_form: Form = LF_NFC,
        lm: LmConfig | None = None,
    ) -> "ExpertBank":
        """An empty bank in `folder`, which must be empty or not exist."""
        config.check_scoring(scoring, model)
        models.check_bottleneck(model, scoring.rate)
        if lm is not None:
            parameters.shapes(lm)  # of a kind and of sizes that there are
        bank = cls(model, tokenizer, (), scoring, text_form, lm=lm)
        files = create_folder(folder, to_index(bank.settings), tokenizer)
        return bank.changed(folder=files.path)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        names: Iterable[str] | None = None,
        verify: bool = True,
        lms: bool = True,
    ) -> "ExpertBank":
        """Reads `names` (None: all experts; a str: that one).  `verify` compares every byte read
        with its SHA-256; lms: read language models too, which routing does not need.

        `UserError` when there is no bank, a name is unknown, a file is missing, was changed or cut
        short, or an expert's tokenizer or shapes are not the bank's.
        """
        chosen = names if names is None else _listed(names)
        return consistent(folder, lambda files: cls.of(files, chosen, verify, lms))

    @classmethod
    def of(
        cls,
        files: BankFolder,
        names: tuple[str, ...] | None = None,
        verify: bool = True,
        lms: bool = True,
    ) -> "ExpertBank":
        """`load` of a bank that is open: `files.consistent` reads it again where it changes."""
        settings = read_settings(files)
        chosen = files.names if names is None else names
        check_memory(settings, files.path, len(chosen), lms)
        own = own_documents_file.read_of(files)
        experts = [
            dataclasses.replace(
                read_expert(
                    name,
                    files.open_expert(name),
                    settings,
                    lms,
                    files.seals(name) if verify else None,
                ),
                own_documents=own.get(name),
            )
            for name in chosen
        ]
        return cls(
            settings.model,
            read_tokenizer(files, verify),
            tuple(experts),
            settings.scoring,
            settings.text_form,
            files.path,
            settings.lm,
            read_seed(files, settings, verify) if lms else None,
            screen_file.found(files) if tuple(chosen) == files.names else None,
        )

    def add(self, expert: Expert, dtype: str = "float32") -> "ExpertBank":
        """Stores one expert in the folder -> the bank with it, last.

        All or nothing, and no other expert is read, written or copied.  dtype "bfloat16" halves its
        files, "int8" quarters them; what is mounted is what the files hold.  `UserError` as in
        `mount`, or when the folder has the name already, cannot be written, or has another
        tokenizer or other language models by now.
        """
        files = self._files()
        self._free(expert.name)
        stored = rounded(fitted(expert, self.settings), dtype)
        with files.adding(expert.name) as draft:
            self._check_same(files)  # it may have been replaced meanwhile
            write_expert(draft, stored, self.settings, dtype)
        files.tell()
        return self.changed(experts=(*self.experts, stored))

    def remove(self, name: str) -> "ExpertBank":
        """Deletes one expert from the folder -> the bank without it; others keep their bytes."""
        files = self._files()
        files.remove(name)
        files.tell()
        return self.changed(experts=tuple(e for e in self.experts if e.name != name))

    def verify(self) -> list[str]:
        """Every problem of the folder as one line; [] when each byte is as it was written."""
        return self._files().verify()

    def mount(self, expert: Expert) -> "ExpertBank":
        """A new bank with one more expert, last.  `UserError` when its name is taken or it does not
        fit (`fitting.fitted`)."""
        self._free(expert.name)
        return self.changed(experts=(*self.experts, fitted(expert, self.settings)), folder=None)

    def unmount(self, name: str) -> "ExpertBank":
        """A new bank without one expert."""
        self.index(name)
        return self.select(n for n in self.names if n != name)

    def select(self, names: Iterable[str]) -> "ExpertBank":
        """A new bank with these experts, in this order; a str is one name."""
        return self.changed(experts=tuple(map(self.expert, _listed(names))), folder=None)

    def with_lms(self, lm: LmConfig, lms: Mapping[str, Any], seed: Any = None) -> "ExpertBank":
        """A new bank whose experts have these language models; `store_lms` does so on disk.

        lms: an expert's name -> parameters; experts without any may stand beside them; seed: None
        keeps the bank's.  `UserError` when a name is not mounted, or shapes, numbers or vocabulary
        do not fit.
        """
        given = LanguageModels(lm, seed, lms)
        check_language_models(given, self.settings, self.tokenizer.vocab_size)
        for name in lms:
            self.index(name)
        spoken = {n: parameters.checked(whose_lm(n), x, lm) for n, x in lms.items()}
        experts = [
            dataclasses.replace(e, lm=spoken[e.name]) if e.name in spoken else e
            for e in self.experts
        ]
        first = self.seed_lm if seed is None else parameters.checked("the seed", seed, lm)
        return self.changed(experts=tuple(experts), folder=None, lm=lm, seed_lm=first)

    def changed(self, **fields) -> "ExpertBank":
        """`dataclasses.replace` that keeps the stacks which the change leaves as they are.

        A screen is of the experts and the rule that it was measured with, and stays with those.
        """
        if not fields.keys().isdisjoint(("experts", "scoring", "folder")):
            fields = {"screen": None, **fields}
        return stacks.keep(self, dataclasses.replace(self, **fields))

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Of the E experts, in the order of the expert axis."""
        return tuple(e.name for e in self.experts)

    @functools.cached_property
    def calibration(self) -> Mapping[str, Calibration]:
        """Per expert."""
        return types.MappingProxyType({e.name: e.calibration for e in self.experts})

    @functools.cached_property
    def about(self) -> Mapping[str, Mapping[str, Any]]:
        """Per expert."""
        return types.MappingProxyType({e.name: e.about for e in self.experts})

    @functools.cached_property
    def bigrams(self) -> Mapping[str, BigramModel]:
        """Of each expert that has one (`scoring.bigram`)."""
        known = {e.name: e.bigram for e in self.experts if e.bigram is not None}
        return types.MappingProxyType(known)

    @functools.cached_property
    def params(self) -> Any:
        """All experts' parameters: a pytree of float32 [E, ...], None when E is 0."""
        return parameters.stacked([e.params for e in self.experts])

    @functools.cached_property
    def weights(self) -> Any:
        """What residuals are computed from: `params`, with the bigram models where the rule has a
        bigram_weight.  `UserError` when an expert then has no bigram model.
        """
        if not self.scoring.bigram_weight or not self.names:
            return self.params
        return with_bigrams(self.params, self.bigram_table)

    @functools.cached_property
    def bigram_table(self) -> BigramTable:
        """All experts' bigram models, stacked.  `UserError` unless every expert has one."""
        stacks.check_bigrams(self)
        return table(self.bigrams[n] for n in self.names)

    @functools.cached_property
    def rivals(self) -> Bool[np.ndarray, "E E"]:
        """Which of the others each expert's own documents were measured against; none where they
        were not measured."""
        made = np.zeros((len(self.names),) * 2, bool)
        for row, expert in zip(made, self.experts, strict=True):
            if expert.own_documents is not None:
                known = frozenset(expert.own_documents.against) - {expert.name}
                row[:] = [name in known for name in self.names]
        return made

    @functools.cached_property
    def lm_params(self) -> Any:
        """All experts' language models: a pytree of float32 [E, ...], None when E is 0.

        `UserError` unless every expert has one.
        """
        stacks.check_lms(self)
        return parameters.stacked([e.lm for e in self.experts])

    @property
    def settings(self) -> BankSettings:
        """What all experts share."""
        fingerprint = self.tokenizer.fingerprint
        return BankSettings(self.model, fingerprint, self.scoring, self.text_form, self.lm)

    def expert(self, name: str) -> Expert:
        """`UserError` when it is not mounted."""
        return self.experts[self.index(name)]

    def expert_params(self, name: str) -> Any:
        """One expert's parameters on the device, without the expert axis."""
        return jax.tree.map(jnp.asarray, self.expert(name).params)

    def index(self, name: str) -> int:
        """Place of an expert on the expert axis; `UserError` when it is not mounted."""
        if name not in self.names:
            raise UserError(
                f"the bank has no expert {name!r}; it has: {', '.join(self.names) or 'none yet'}"
            )
        return self.names.index(name)

    def _free(self, name: str) -> None:
        if name in self.names:
            raise UserError(
                f"the bank already has an expert {name!r}: unmount it first or choose another name"
            )

    def _files(self) -> BankFolder:
        if self.folder is None:
            raise UserError(
                "this bank lives in memory only: use mount and unmount, or add to a "
                "bank from ExpertBank.create or ExpertBank.load"
            )
        files = BankFolder(self.folder)
        self._check_same(files)
        return files

    def _check_same(self, files: BankFolder) -> None:
        if files.index["tokenizer"] != self.tokenizer.fingerprint:
            raise UserError(
                f"the bank {self.folder} was replaced by one with another tokenizer: load it again"
            )
        stored = read_settings(files).lm
        if self.lm is not None and stored is not None:
            check_same_lm(f"the bank in memory of {self.folder}", self.lm, stored)


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
