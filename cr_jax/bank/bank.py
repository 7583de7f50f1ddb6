"""`ExpertBank`: a folder of experts <-> parameters stacked on a leading expert axis E.

Paper, routing rule: an unknown domain gets a new compressor while all old experts stay frozen.
Here frozen means the same bytes: `mount` and `add` never touch another expert's numbers.
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
from jaxtyping import Int

from cr_jax import config, models
from cr_jax.bank import parameters
from cr_jax.bank.expert import (
    bank_model,
    bank_scoring,
    bank_text_form,
    check_belongs,
    copy_expert,
    read_bigram,
    read_calibration,
    write_expert,
)
from cr_jax.bank.files import BankFolder, check_manifest, check_name, create_folder, read_json
from cr_jax.config import SEEN, ModelConfig, Scoring
from cr_jax.data.text_form import LF_NFC, Form
from cr_jax.errors import UserError
from cr_jax.files import expanded
from cr_jax.scoring.bigram import BigramModel, BigramTable, table, with_bigrams
from cr_jax.scoring.calibration import Calibration


@dataclasses.dataclass(eq=False)
class ExpertBank:
    """Experts that share one tokenizer and one model shape.

    names: E of them; params: pytree of float32 arrays [E, ...], None when E is 0; calibration,
    about and, where it was stored, bigram model (`scoring.bigram`): per expert.  Arrays are
    immutable.  `mount`, `unmount` and `select` give a new bank that lives in memory; `add`,
    `remove` and `verify` also work on `folder`, where there is one.
    """

    model: ModelConfig
    tokenizer: Any  # cr_jax.data.tokenizers.Tokenizer
    names: tuple[str, ...] = ()
    params: Any = None
    calibration: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    folder: Path | None = None
    scoring: Scoring = SEEN  # its residual_rule is the one that calibrations were made with
    bigrams: Mapping[str, BigramModel] = dataclasses.field(default_factory=dict)
    text_form: Form = LF_NFC  # of the text that tokens are made of (cr_jax.data.text_form)

    def __post_init__(self):
        if not 0 < self.tokenizer.vocab_size <= self.model.vocab_size:
            raise UserError(
                f"the model's vocabulary ({self.model.vocab_size}) must hold the "
                f"tokenizer's {self.tokenizer.vocab_size} pieces: set "
                "config.model.vocab_size"
            )

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        model: ModelConfig,
        tokenizer,
        scoring: Scoring = SEEN,
        text_form: Form = LF_NFC,
    ) -> "ExpertBank":
        """An empty bank in `folder`, which must be empty or not exist."""
        config.check_scoring(scoring, model)
        models.check_bottleneck(model, scoring.rate)
        bank = cls(model, tokenizer, scoring=scoring, text_form=text_form)
        rule = config.to_dict(scoring)
        bank.folder = create_folder(folder, config.to_dict(model), tokenizer, rule, text_form).path
        return bank

    @classmethod
    def load(
        cls, folder: str | os.PathLike, names: Iterable[str] | None = None, verify: bool = True
    ) -> "ExpertBank":
        """Reads `names` (None: all experts; a str: that one).  `verify` compares every byte read
        with its SHA-256.

        `UserError` when there is no bank, a name is unknown, a file is missing, was changed or cut
        short, or an expert's tokenizer or shapes are not the bank's.
        """
        files = BankFolder(folder)
        names = files.names if names is None else _listed(names)
        folders = [files.expert(name) for name in names]
        model = bank_model(files)
        scoring = bank_scoring(files, model)
        files.check_tokenizer()
        tokenizer = _tokenizer(files)
        for name, path in zip(names, folders, strict=True):
            files.check_expert(name) if verify else check_name(name)
            check_belongs(path, model, scoring)
        read = {n: read_bigram(p, model) for n, p in zip(names, folders, strict=True)}
        return cls(
            model,
            tokenizer,
            names,
            parameters.read_stacked(folders, model),
            {n: read_calibration(p) for n, p in zip(names, folders, strict=True)},
            {
                n: read_json(p / "config.json").get("about", {})
                for n, p in zip(names, folders, strict=True)
            },
            files.path,
            scoring,
            {n: s for n, s in read.items() if s is not None},
            bank_text_form(files),
        )

    def add(
        self,
        name: str,
        params: Any,
        calibration: Calibration,
        about: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        bigram: BigramModel | None = None,
    ) -> None:
        """Stores one expert (params without the expert axis) in the folder and mounts it here.

        All or nothing.  `about` is provenance in JSON types; bigram: for a cascade, and for rules
        with a bigram_weight.  dtype "bfloat16" halves the file, "int8" quarters it; what is mounted
        is what the file holds.  `UserError` as in `mount`, or when the folder has the name already,
        cannot be written, or has another tokenizer by now.
        """
        if dtype not in parameters.DTYPES:
            raise UserError(
                f"an expert is stored as {' or '.join(parameters.DTYPES)}, not {dtype!r}"
            )
        files = self._files()
        given = parameters.checked(f"expert {name!r}", params, self.model)
        rounded = parameters.rounded(given, dtype)
        mounted = self.mount(name, rounded, calibration, about, bigram)
        with files.adding(name) as draft:
            write_expert(
                draft,
                rounded,
                calibration,
                bigram,
                model=self.model,
                scoring=self.scoring,
                fingerprint=self.tokenizer.fingerprint,
                about=about,
                dtype=dtype,
            )
        self._become(mounted)

    def remove(self, name: str) -> None:
        """Deletes one expert from the folder and unmounts it; the others keep their bytes."""
        files = self._files()
        unmounted = self.unmount(name) if name in self.names else self
        files.remove(name)
        self._become(unmounted)

    def verify(self) -> list[str]:
        """Every problem of the folder as one line; [] when each byte is as it was written."""
        return self._files().verify()

    def mount(
        self,
        name: str,
        params: Any,
        calibration: Calibration,
        about: Mapping[str, Any] | None = None,
        bigram: BigramModel | None = None,
    ) -> "ExpertBank":
        """A new bank with one more expert, last; the others' parameters are the same bytes.

        `UserError` when the name is bad or taken, shapes or numbers are not a model's, the bigram
        model has another vocabulary, or there is none and the bank's rule has a bigram_weight.
        """
        if check_name(name) in self.names:
            raise UserError(
                f"the bank already has an expert {name!r}: unmount it first or choose another name"
            )
        given = parameters.checked(f"expert {name!r}", params, self.model)
        if bigram is None and self.scoring.bigram_weight:
            raise UserError(
                f"expert {name!r} has no bigram model, and the bank's rule has a "
                "bigram_weight: count one from its training text "
                "(cr_jax.scoring.bigram.count)"
            )
        if bigram is not None and len(bigram.alone) != self.model.vocab_size:
            raise UserError(
                f"the bigram model of expert {name!r} knows {len(bigram.alone)} "
                f"tokens, the bank's model has {self.model.vocab_size}: count it with "
                "these"
            )
        # Joined on the host: no compilation, and a copy that the caller cannot change later.
        if self.params is None:
            stacked = jax.tree.map(lambda x: jnp.asarray(np.stack([x])), given)
        else:
            join = lambda a, x: jnp.asarray(np.concatenate([np.asarray(a), x[None]]))
            stacked = jax.tree.map(join, self.params, given)
        return self._with(
            self.names + (name,),
            stacked,
            {**self.calibration, name: calibration},
            {**self.about, name: dict(about or {})},
            {**self.bigrams, **({} if bigram is None else {name: bigram})},
        )

    def unmount(self, name: str) -> "ExpertBank":
        """A new bank without one expert."""
        self.index(name)
        return self.select(n for n in self.names if n != name)

    def select(self, names: Iterable[str]) -> "ExpertBank":
        """A new bank with these experts, in this order; a str is one name."""
        names = _listed(names)
        if len(set(names)) != len(names):
            raise UserError(f"an expert is named twice: {', '.join(names)}")
        rows = np.array([self.index(n) for n in names], int)
        pick = lambda x: jnp.asarray(np.asarray(x)[rows])
        params = jax.tree.map(pick, self.params) if names else None
        return self._with(
            names,
            params,
            {n: self.calibration[n] for n in names},
            {n: self.about[n] for n in names},
            {n: self.bigrams[n] for n in names if n in self.bigrams},
        )

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
        check_bigrams(self)
        return table(self.bigrams[n] for n in self.names)

    def expert_params(self, name: str) -> Any:
        """One expert's parameters, without the expert axis."""
        row = self.index(name)
        return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[row]), self.params)

    def index(self, name: str) -> int:
        """Place of an expert on the expert axis; `UserError` when it is not mounted."""
        if name not in self.names:
            raise UserError(
                f"the bank has no expert {name!r}; it has: {', '.join(self.names) or 'none yet'}"
            )
        return self.names.index(name)

    def _with(self, names, params, calibration, about, bigrams):
        frozen = types.MappingProxyType
        return ExpertBank(
            self.model,
            self.tokenizer,
            names,
            params,
            frozen(calibration),
            frozen(about),
            scoring=self.scoring,
            bigrams=frozen(bigrams),
            text_form=self.text_form,
        )

    def _become(self, other: "ExpertBank") -> None:
        self.names, self.params = other.names, other.params
        self.calibration, self.about = other.calibration, other.about
        self.bigrams = other.bigrams
        for made in ("weights", "bigram_table"):  # of the experts as they were
            self.__dict__.pop(made, None)

    def _files(self) -> BankFolder:
        if self.folder is None:
            raise UserError(
                "this bank lives in memory only: use mount and unmount, or add to a "
                "bank from ExpertBank.create or ExpertBank.load"
            )
        files = BankFolder(self.folder)
        if files.index["tokenizer"] != self.tokenizer.fingerprint:
            raise UserError(
                f"the bank {self.folder} was replaced by one with another tokenizer: load it again"
            )
        return files


def selected(bank: ExpertBank, rows: Int[np.ndarray, " K"]) -> ExpertBank:
    """`bank.select` by place, without a way through the host's memory."""
    names = tuple(bank.names[e] for e in rows)
    weights = _pick(bank.weights, np.asarray(rows, np.int32))
    found = dataclasses.replace(
        bank,
        names=names,
        params={k: weights[k] for k in bank.params},
        folder=None,
        calibration={n: bank.calibration[n] for n in names},
        about={n: bank.about[n] for n in names},
        bigrams={n: bank.bigrams[n] for n in names if n in bank.bigrams},
    )
    found.weights = weights  # not made anew from the bigram models
    return found


@jax.jit
def _pick(params: Any, rows: Any) -> Any:
    # The rows are data: any selection of as many experts is one program.
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), params)


def check_bigrams(bank: ExpertBank) -> None:
    """`UserError` unless every expert has a bigram model."""
    lacking = [n for n in bank.names if n not in bank.bigrams]
    if lacking:
        raise UserError(
            f"no bigram model for {', '.join(lacking)}: experts have one if they were "
            "trained by this version; or store them again with `ExpertBank.add(..., "
            "bigram=cr_jax.scoring.bigram.count(...))`"
        )


def import_expert(
    bank_folder: str | os.PathLike, expert_folder: str | os.PathLike, name: str | None = None
) -> str:
    """Copies an expert's folder, of another bank say, into a bank; -> its name there.

    `name`: None takes the folder's.  All or nothing.  `UserError` when a byte of it was changed, or
    its tokenizer or shapes are not the bank's, or the name is taken.
    """
    files, source = BankFolder(bank_folder), expanded(expert_folder)
    name = check_name(source.resolve().name if name is None else name)
    if not os.path.isfile(source / "manifest.json"):  # pathlib raises for names too long
        what = "is a bank" if os.path.isfile(source / "bank.json") else "has no manifest.json"
        raise UserError(
            f"no expert at {source}: it {what}; give the folder of one expert, as in "
            "BANK/experts/NAME"
        )
    model = bank_model(files)
    with files.adding(name) as draft:
        # The copy is checked, not the source: nothing can change in between.
        try:
            copy_expert(source, draft)
            check_manifest(draft, files.index["tokenizer"])
            check_belongs(draft, model, bank_scoring(files, model))
            read_calibration(draft)
            read_bigram(draft, model)
            parameters.read_stacked([draft], model)
        except UserError as error:
            raise UserError(str(error).replace(str(draft), str(source))) from error
    return name


def set_typicality_weight(bank_folder: str | os.PathLike, weight: float) -> None:
    """Changes how a stored bank ranks experts (`config.Scoring.typicality_weight`).

    Only bank.json is written: experts and their calibrations keep their bytes.  `UserError` when
    there is no bank, or the weight is not finite or below 0.  Not in the paper.
    """
    files = BankFolder(bank_folder)
    model = bank_model(files)
    rule = dataclasses.replace(bank_scoring(files, model), typicality_weight=float(weight))
    config.check_scoring(rule, model)
    files.set_scoring(config.to_dict(rule))


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _tokenizer(files: BankFolder):
    from cr_jax.data.tokenizers import load_tokenizer  # the readers of all kinds are slow to import

    tokenizer = load_tokenizer(files.path / "tokenizer")
    if tokenizer.fingerprint != files.index["tokenizer"]:
        raise UserError(
            f"{files.path / 'tokenizer'} is not the tokenizer that the experts were "
            "trained with (its fingerprint differs): restore it from a copy"
        )
    return tokenizer
