"""A run's trained parameters -> the bank in its workdir.  Not in the paper."""

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from cr_jax import parameter_files
from cr_jax.bank import ExpertBank, import_expert
from cr_jax.bank_folder import CASCADE, BankFolder
from cr_jax.calibrating import calibrate
from cr_jax.cascade import KEEP, Cascade
from cr_jax.config import Experiment, ModelConfig
from cr_jax.corpora import Corpora
from cr_jax.data import sample
from cr_jax.errors import UserError
from cr_jax.scouts import COUNTED, count
from cr_jax.training.loop import Trained


def make(experiment: Experiment, model: ModelConfig, text: Corpora, trained: Trained, folder: Path,
         say: Callable[[str], None]) -> ExpertBank:
    """The bank of a run's experts, in FOLDER/bank: each calibrated on its own valid windows, with a
    scout of its own training text; of more than `KEEP` experts also how many a cascade keeps.

    Written beside the bank of an earlier call, which it then replaces: a stop leaves one of them.
    Experts that were added to that bank since (`cr-jax bank add`) go along.
    """
    names = tuple(text.train)
    place, final, old = (folder / name for name in ("bank.partial", "bank", "bank.old"))
    if old.exists() and not final.exists():  # stopped between the two renames below
        old.rename(final)
    for litter in (place, old):
        shutil.rmtree(litter, ignore_errors=True)
    bank = ExpertBank.create(place, model, text.tokenizer, experiment.scoring,
                             experiment.data.text_form)
    for e, name in enumerate(names):
        params = parameter_files.rounded(
            jax.tree.map(lambda x, e=e: np.asarray(x[e]), trained.params), experiment.bank_dtype)
        own = sample(name, text.train[name], model.window, seed=experiment.seed,
                     tokens=COUNTED, mode=experiment.data.mode, pad_id=text.tokenizer.pad_id)
        scout = count(*own, model.vocab_size)
        calibration = calibrate(model, params, text.valid[name], scoring=experiment.scoring,
                                documents=text.valid_documents.get(name), scout=scout,
                                batch=experiment.eval.batch)
        bank.add(name, params, calibration, {
            "experiment": experiment.name, "steps": trained.step, "tokens": trained.tokens,
            "sources": list(experiment.data.domains[name].train)}, experiment.bank_dtype, scout)
    if len(names) > KEEP:
        say(f"choosing how many of {len(names)} experts a cascade keeps")
        try:
            say(_choose(bank, text.valid, experiment.eval))
        except UserError as error:  # the bank routes without
            say(f"no cascade: {error}")
    if final.exists():
        aside = old
        try:
            for name in [n for n in BankFolder(final).names if n not in names]:
                import_expert(place, final / "experts" / name)
                (place / CASCADE).unlink(missing_ok=True)  # it knows nothing of this one
                say(f"{name}: added to the bank earlier, kept")
        except UserError as error:
            aside = folder / "bank.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            say(f"warning: {error}; the bank is written anew, the old one kept in {aside}")
        final.rename(aside)
    place.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    bank.folder = final
    return bank


def _choose(bank, valid, settings) -> str:
    """Stores how many experts the scouts keep; -> a line about it."""
    made = Cascade.choose(bank, valid, keep=KEEP, batch=settings.batch,
                          expert_chunk=settings.expert_chunk)
    made.save()
    return (f"cascade: {made.choice.kept:.1f} of {len(bank.names)} experts are scored in full on "
            f"average, {made.choice.agreement:.2%} of validation windows go where exact routing "
            "sends them")
