"""How every expert gets a language model: one seed, a branch of it per domain, arms to compare.

    seed           all domains equally often, at a constant rate after the warm-up
    branches       from the seed, one per domain, its own text; the rate falls to its end.  With
                   `config.modular.tries` in several ways, and valid chooses one for each domain;
                   with `config.modular.averages` their weights may then lean on the others'
    dense          from the seed, all domains, as many tokens as all branches together
    dense_large    a larger model, all domains, as many training FLOPs as seed and branches
    noise          one per domain from fresh weights, its share of all tokens
    random_split   as branches, of as many random parts of all documents
    partition_K    as branches, of K parts by code length; no label is read

Branch-Train-Merge (arXiv 2208.03306).  Not in the paper.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cr_jax import bank
from cr_jax.config import (
    BranchConfig,
    Experiment,
    LmConfig,
    OptimizerConfig,
    partition_parts,
    to_dict,
)
from cr_jax.data import Windows
from cr_jax.data.experiment_text import Corpora, sized
from cr_jax.errors import UserError
from cr_jax.host.files import expanded
from cr_jax.models.layers import attention_kernel, row_kernels
from cr_jax.models.lm import count_lm_parameters, make_lm
from cr_jax.modular.averages import averaged, by_valid
from cr_jax.modular.partition import PartitionOptions, split_corpora
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
from cr_jax.modular.training_text import Partition, Texts, all_domains, own_and_all, random_parts
from cr_jax.modular.tries import chosen, named
from cr_jax.training.speed import lm_flops_per_token

FOLDER = "lm"  # below a workdir
SEED, BRANCHES = "seed", "branches"


@dataclasses.dataclass(frozen=True)
class ArmModels:
    """The models of one arm, and what they and the seed that they began as have cost.

    params: of each model by its name, float32 numpy arrays.
    """

    config: LmConfig
    params: Mapping[str, Any]
    train_tokens: int
    train_flops: float
    from_seed: bool

    @property
    def active_params(self) -> int:
        """Parameters that score a token."""
        return count_lm_parameters(self.config)

    @property
    def total_params(self) -> int:
        return self.active_params * len(self.params)


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModels(bank.LanguageModels):
    """What the recipe made: float32 numpy arrays.

    arms: "branches" (the experts with their cost), "seed", and those of `config.modular.arms`.
    notes: stage -> `training_stage.Finished.note`.
    """

    arms: Mapping[str, ArmModels] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def check(e: Experiment) -> None:
    """`UserError`, before text is read, where this computer cannot train the language models."""
    models = [e.lm, *([e.lm_large] if "dense_large" in e.modular.arms else [])]
    for lm in models:
        window = lm.window or e.modular.window
        make_lm(dataclasses.replace(lm, vocab_size=lm.vocab_size or 256, window=window))
        attention_kernel(lm)
        row_kernels(lm, True)
    if not e.modular.seed_tokens:
        return
    if jax.process_count() > 1:
        raise UserError(
            "config.modular: language models are trained in one process; leave seed_tokens at 0 "
            "here and train them in a run of one process"
        )
    batches = {name: getattr(e.modular, name) for name in ("seed_batch", "branch_batch")}
    batches |= {f"tries.{n}.batch": t.batch for n, t in e.modular.tries.items() if t.batch != -1}
    for name, batch in batches.items():
        if batch % jax.device_count():
            raise UserError(
                f"config.modular.{name}={batch} must be a multiple of the "
                f"{jax.device_count()} devices"
            )


def check_files(e: Experiment) -> None:
    """`UserError` where `config.modular.seed_from` is no finished seed."""
    if e.modular.seed_from and not (expanded(e.modular.seed_from) / NOTE).is_file():
        raise UserError(
            f"config.modular.seed_from={e.modular.seed_from} holds no {NOTE}: give the folder "
            "WORKDIR/lm/seed of a run that trained one, or leave it empty"
        )


def least_bytes(e: Experiment, ids: int) -> int:
    """Less than the language models take on disk, with so many ids: seed and branches."""
    if not e.modular.seed_tokens:
        return 0
    lm = dataclasses.replace(e.lm, vocab_size=e.lm.vocab_size or ids)
    return 4 * count_lm_parameters(lm) * (1 + len(e.data.domains))


def train_all(
    e: Experiment,
    text: Corpora,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
    partition: Partition | None = None,
) -> LanguageModels:
    """Trains every stage below FOLDER/lm; finished ones are read, a stopped one goes on.

    partition: makes the parts of the arms partition_K; None: `modular.partition`.  Raises what
    `run_stage` raises.
    """
    recipe = Recipe(e, text, sized(e.lm, text.tokenizer), partition or by_code_length(e, say))
    run = lambda stage: run_stage(stage, e, text.tokenizer, folder / FOLDER, say)
    if e.modular.seed_from:
        same = {"model": shape_of(recipe.lm), "tokenizer": text.tokenizer.fingerprint}
        seed = stored_stage(expanded(e.modular.seed_from), recipe.lm, same)
        say(f"language models, seed: of {e.modular.seed_from}")
    else:
        seed = run(recipe.seed())
    start = seed.params[SEED]
    if e.modular.tries:
        branches = chosen({t: run(recipe.branches(start, t)) for t in e.modular.tries})
        say(f"language models: of each domain the best try on valid: {named(branches.note)}")
    else:
        branches = run(recipe.branches(start))
    if e.modular.averages:
        score = by_valid(recipe.lm, e.train.loss_chunk, e.eval.batch)
        valid = {n: w.spread(e.eval.every_windows) for n, w in text.valid.items()}
        branches = averaged(branches, valid, e.modular.averages, folder / FOLDER, score)
    notes = {SEED: seed.note, BRANCHES: branches.note}
    arms = {SEED: _arm(seed, seed, True), BRANCHES: _arm(branches, seed, True)}
    for name in dict.fromkeys(e.modular.arms):
        place = folder / FOLDER / name
        if partition_parts(name) and (place / NOTE).exists():
            # The same text in the same parts, which take minutes to make.
            finished, from_seed = stored_stage(place, recipe.lm, recipe.of_parts(start)), True
        else:
            stage = recipe.arm(name, start, branches.note["train_tokens"])
            finished, from_seed = run(stage), stage.start is not None
        notes[name] = finished.note
        arms[name] = _arm(finished, seed, from_seed)
    lm = dataclasses.replace(recipe.lm, window=recipe.lm.window or e.modular.window)
    return LanguageModels(lm, start, branches.params, arms, notes)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The stages of an experiment.  lm: with its vocabulary; partition: for the arms of parts."""

    e: Experiment
    text: Corpora
    lm: LmConfig
    partition: Partition

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.text.train)

    def seed(self) -> Stage:
        m = self.e.modular
        return self._of_all(SEED, self.lm, m.seed_tokens, self._rates("constant"))

    def branches(self, start: Any, one_try: str = "") -> Stage:
        """One branch of each domain, as all are trained or as `one_try` says."""
        m, members = self.e.modular, {}
        usual = BranchConfig(m.share, m.rate, m.branch_tokens, m.branch_batch)
        if one_try:
            usual = _differing(usual, m.tries[one_try])
        for name, text in self.text.train.items():
            own = _differing(usual, m.domains.get(name, BranchConfig()))
            rows = own_and_all(self.text.train, name, own.share)
            valid = self.text.valid[name]
            members[name] = Member(rows, text, own.tokens, own.rate, own.share, valid)
        stage = self._of_parts(f"{BRANCHES}_{one_try}".rstrip("_"), members, start)
        return dataclasses.replace(stage, batch=usual.batch)

    def of_parts(self, start: Any) -> dict[str, Any]:
        """What a stored stage of parts must have been made by, but for its text."""
        m = self.e.modular
        job = {"seed": self.e.seed, "window": m.window, "batch": m.branch_batch}
        return {
            "model": shape_of(self.lm),
            "tokenizer": self.text.tokenizer.fingerprint,
            "optimizer": to_dict(self._rates()),
            "job": {**job, "start": sha256_of(start)},
        }

    def arm(self, name: str, start: Any, branch_tokens: Mapping[str, int]) -> Stage:
        """The stage of an arm of `config.modular.arms`.  branch_tokens: that the experts read."""
        m, total = self.e.modular, sum(branch_tokens.values())
        if name == "dense":
            return self._of_all(name, self.lm, total, self._rates(), start)
        if name == "dense_large":
            large = sized(self.e.lm_large, self.text.tokenizer)
            each = [lm_flops_per_token(c, m.window) for c in (self.lm, large)]
            tokens = int((m.seed_tokens + total) * each[0] / each[1])
            # Constant and then falling, each as long as for the small models.
            rates = self._rates(cooldown=total / (m.seed_tokens + total))
            return self._of_all(name, large, tokens, rates)
        if name == "noise":
            more = m.seed_tokens // len(self.names)
            members = {
                n: Member(source, source, branch_tokens[n] + more, valid=self.text.valid[n])
                for n, source in self.text.train.items()
            }
            return self._of_parts(name, members, None)
        if name == "random_split":
            parts: Texts = random_parts(self.text.train, len(self.names), self.e.seed)
            valid = _spread(self.text.valid, self.e.eval.every_windows)
        else:
            parts = self.partition(self.text.train, partition_parts(name))
            valid = None
        members = {
            n: Member(source, source, total // len(parts), m.rate, valid=valid)
            for n, source in parts.items()
        }
        return self._of_parts(name, members, start)

    def _rates(self, schedule: str = "", cooldown: float = 1.0) -> OptimizerConfig:
        o = self.e.lm_optimizer
        return dataclasses.replace(o, schedule=schedule or o.schedule, cooldown=cooldown)

    def _of_all(
        self, name: str, lm: LmConfig, tokens: int, optimizer: OptimizerConfig, start: Any = None
    ) -> Stage:
        """One model of all domains."""
        rows = all_domains(self.text.train)
        valid = _spread(self.text.valid, self.e.eval.every_windows)
        member = Member(rows, rows, tokens, valid=valid)
        # The seed goes on at full rate, so a look before its end would be no better start.
        best = self.e.modular.keep_best and name != SEED
        model = SEED if name == SEED else "dense"
        return Stage(name, lm, {model: member}, self.e.modular.seed_batch, optimizer, start, best)

    def _of_parts(self, name: str, members: Mapping[str, Member], start: Any) -> Stage:
        m = self.e.modular
        return Stage(name, self.lm, members, m.branch_batch, self._rates(), start, m.keep_best)


def _differing(usual: BranchConfig, own: BranchConfig) -> BranchConfig:
    """`usual` where `own` says -1."""
    own_or = {k: v if v != -1 else getattr(usual, k) for k, v in vars(own).items()}
    return BranchConfig(**own_or)


def _spread(valid: Mapping[str, Windows], count: int) -> Windows:
    """About `count` windows, as many of every domain."""
    parts = [w.spread(max(1, count // len(valid))) for w in valid.values()]
    fields = (
        np.concatenate([getattr(w, k) for w in parts]) for k in ("tokens", "mask", "document")
    )
    return Windows(*fields)


def by_code_length(e: Experiment, say: Callable[[str], None]) -> Partition:
    """All domains' documents, unlabelled, in parts that need few nats for their own."""

    def partition(texts: Texts, parts: int) -> Texts:
        return dict(split_corpora(texts, PartitionOptions(parts, seed=e.seed), say).corpora)

    return partition


def _arm(stage: Finished, seed: Finished, from_seed: bool) -> ArmModels:
    """With the seed's cost, where it began as the seed."""
    stages = [seed.note, stage.note] if from_seed and stage is not seed else [stage.note]
    return ArmModels(
        stage.lm,
        stage.params,
        sum(sum(note["train_tokens"].values()) for note in stages),
        sum(note["train_flops"] for note in stages),
        from_seed,
    )
