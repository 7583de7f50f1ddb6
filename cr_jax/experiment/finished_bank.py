"""A run's trained parameters -> the bank in its workdir.  Not in the paper."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from cr_jax.bank import (
    Expert,
    ExpertBank,
    LanguageModels,
    own_documents_file,
    parameters,
    screen_file,
    stacks,
    store_lms,
)
from cr_jax.bank.changes import take
from cr_jax.bank.creation import put_in_place, recover
from cr_jax.bank.files import CASCADE, SCREEN, BankFolder
from cr_jax.bank.fitting import rounded_lms
from cr_jax.bank.manifest import SealedFiles
from cr_jax.config import Experiment
from cr_jax.data import Windowing, Windows, sample
from cr_jax.data.experiment_text import Corpora, sized
from cr_jax.errors import UserError
from cr_jax.routing.cascade import MIN_CANDIDATES, Cascade
from cr_jax.routing.scored_documents import (
    documents_each,
    first_documents,
    own_documents,
    score_documents,
    with_own_documents,
)
from cr_jax.routing.screen_fit import fit_screen, said
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram import TRAINING_TOKENS, count, with_bigram
from cr_jax.scoring.calibrate import calibrate
from cr_jax.scoring.devices import split
from cr_jax.training.loop import Trained


def make(
    experiment: Experiment,
    text: Corpora,
    trained: Trained,
    folder: Path,
    say: Callable[[str], None],
    language_models: LanguageModels | None = None,
) -> ExpertBank:
    """The bank of a run's experts, in FOLDER/bank: each calibrated on its own valid windows, with a
    bigram model of its own training text and its language model, if there are any; of more than
    `MIN_CANDIDATES` experts also how many a cascade scores, and what bigram models decide alone.

    Written beside the bank of an earlier call, which it then replaces: a stop leaves one of them.
    Experts that were added to that bank since (`cr-jax bank add`) go along.
    """
    place, final = folder / "bank.partial", folder / "bank"
    recover(final, say)
    shutil.rmtree(place, ignore_errors=True)  # of a run that was stopped
    bank = ExpertBank.create(
        place,
        sized(experiment.model, text.tokenizer),
        text.tokenizer,
        experiment.scoring,
        experiment.data.text_form,
        None if language_models is None else language_models.config,
    )
    for row, name in enumerate(text.train):
        params = jax.tree.map(lambda x, row=row: np.asarray(x[row]), trained.params)
        expert = _measured(experiment, text, name, params)
        about = {
            "experiment": experiment.name,
            "steps": trained.step,
            "tokens": trained.tokens,
            "sources": list(experiment.data.domains[name].train),
            **trained.start,
        }
        bank = bank.add(dataclasses.replace(expert, about=about), experiment.bank_dtype)
    if language_models is not None:
        store_lms(place, language_models, experiment.bank_dtype)
        kept = rounded_lms(language_models, experiment.bank_dtype)
        bank = bank.with_lms(kept.config, kept.experts, kept.seed).changed(folder=place)
    sizes = sizes_of(experiment)
    if sizes.fsdp > 1:
        bank = stacks.placed(bank, lambda params: split(params, sizes))
    bank = fit(bank, text.valid, text.valid_documents, sizes, say)

    def keep(added: SealedFiles, name: str) -> None:
        take(BankFolder(place), added.folder, name)
        for fit in (CASCADE, SCREEN):  # they know nothing of this one
            (place / fit).unlink(missing_ok=True)
        say(f"{name}: added to the bank earlier, kept")

    put_in_place(place, final, keep, say)
    return bank.changed(folder=final)


def sizes_of(experiment: Experiment) -> BatchSizes:
    """How a run measures: on all processes, each copy of the weights over as many devices as one
    has in training, of one process at most."""
    return BatchSizes.of(experiment.eval, experiment.mesh_fsdp).over_processes()


def _measured(experiment: Experiment, text: Corpora, name: str, params: Any) -> Expert:
    """One expert with its bigram model and, as it is stored and by the bank's rule, calibration."""
    params = parameters.rounded(params, experiment.bank_dtype)
    model = sized(experiment.model, text.tokenizer)
    windowing = Windowing(
        model.window, experiment.seed, experiment.data.mode, text.tokenizer.pad_id
    )
    own = sample(name, text.train[name], windowing, TRAINING_TOKENS)
    bigram = count(*own, model.vocab_size)
    weights = with_bigram(params, bigram) if experiment.scoring.bigram_weight else params
    calibration = calibrate(
        model,
        weights,
        text.valid[name],
        text.valid_documents.get(name),
        experiment.scoring,
        sizes_of(experiment),
    )
    return Expert(name, params, calibration, bigram=bigram)


def fit(
    bank: ExpertBank,
    valid: Mapping[str, Windows],
    documents: Mapping[str, Windows],
    sizes: BatchSizes,
    say: Callable[[str], None],
) -> ExpertBank:
    """Stores how far experts lead on their own documents and, of a large bank, how many of them a
    cascade scores and what its bigram models decide alone, measured on windows and on whole
    documents of each expert's validation text; -> the bank with the margins."""
    large = len(bank.names) > MIN_CANDIDATES
    if large:
        say(f"choosing how many of {len(bank.names)} experts a cascade scores in full")
        try:
            say(_choose(bank, valid, sizes))
        except UserError as error:  # the bank routes without
            say(f"no cascade: {error}")
    if len(bank.names) > 1:
        try:
            return _fit_documents(bank, documents, sizes, say if large else None)
        except UserError as error:
            say(f"no screen and no margins of documents: {error}")
    return bank


def _choose(bank, valid, sizes) -> str:
    """Stores how many experts a cascade scores in full; -> a line about it."""
    made = Cascade.fit(bank, valid, min_candidates=MIN_CANDIDATES, sizes=sizes)
    made.save()
    fit = made.fitted
    return (
        f"cascade: {fit.mean_candidates:.1f} of {len(bank.names)} experts are scored in full "
        f"on average, {fit.agreement:.2%} of validation windows go where exact routing "
        "sends them"
    )


def _fit_documents(bank, documents, sizes, say) -> ExpertBank:
    """Stores what whole documents show: margins, and for `say` the screen."""
    most = documents_each(len(bank.names))
    few = {name: first_documents(own, most) for name, own in documents.items()}
    scored = score_documents(bank, few, sizes)
    measured = own_documents(bank, scored)
    try:
        own_documents_file.write(bank.folder, measured)
        bank = with_own_documents(bank, measured).changed(folder=bank.folder)
    except UserError as error:  # of very many experts; the bank routes without
        (say or logging.warning)(f"no margins of documents: {error}")
    if not say:
        return bank
    try:
        made = fit_screen(bank, scored)
        screen_file.write(bank.folder, made)
        say(said(made))
    except UserError as error:
        say(f"no screen: {error}")
    return bank
