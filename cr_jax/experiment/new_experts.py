"""New experts for a bank that exists: text -> training -> calibration -> the bank.

Not in the paper, whose routing rule trains a new compressor for an unknown domain while all others
stay frozen; this is the command for it.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence

from cr_jax import config
from cr_jax.bank import ExpertBank, parameters
from cr_jax.bank.changes import take
from cr_jax.bank.entry_checks import check_free, check_own, unused_fits
from cr_jax.bank.files import TOKENIZER, BankFolder, writable
from cr_jax.bank.headers import stored_dtype
from cr_jax.bank.parameters import FILE
from cr_jax.bank.settings import read_settings, read_tokenizer
from cr_jax.config import Experiment
from cr_jax.errors import UserError
from cr_jax.experiment import checks, finished_bank, new_text
from cr_jax.experiment.compressors import Start, train_compressors
from cr_jax.host.files import expanded, write_whole
from cr_jax.host.inside import Inside
from cr_jax.parallel.plan import make_plan
from cr_jax.scoring.calibration import few_documents, too_few
from cr_jax.training.workdir import check_in_place, locked

RECORD = "config.json"  # of the settings by which the workdir's bank was made


@dataclasses.dataclass(frozen=True)
class NewExperts:
    """What is trained, by default as the experts of the shipped bank were (configs/pretrained.py).

    train: a new expert's name -> its sources; valid: likewise, where missing a tenth of the
    documents is held out.  Of experts that the bank has, `valid` is their validation text: where it
    names all of them, cascade and screen are fitted anew.  learning_rate: AdamW's; Muon's keeps its
    ratio to it.
    """

    train: Mapping[str, Sequence[str]]
    valid: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    steps: int = 1000
    batch: int = 16
    learning_rate: float = 3e-3
    seed: int = 0
    start: str = ""


def train_new(
    bank: str | os.PathLike, new: NewExperts, workdir: str | os.PathLike, say: Callable[[str], None]
) -> list[str]:
    """Trains new experts with a bank's tokenizer, model, text form and rule, and adds them to it;
    -> their names.

    Other experts keep their bytes.  Until all are trained and calibrated the bank is as it was;
    then each joins it whole.  After a stop the same call goes on from the workdir's checkpoint.
    `UserError` for a name that is taken, a bad source, too little text, a bank that cannot be
    written or ships with the package, a workdir of another run; `training.loop.Interrupted` when it
    was asked to stop and has saved itself.
    """
    check_own(bank)
    files = BankFolder(bank)
    experiment = _experiment(files, new)
    names = list(new.train)
    start = _start(files, new.start) if new.start else None
    record = _record(experiment, start)
    there = _joined_before(files, names, record, expanded(workdir))
    check_free(files, [n for n in names if n not in there])
    if odd := [n for n in new.valid if n not in names and n not in files.names]:
        raise UserError(f"validation text for {odd[0]!r}, which is neither new nor in the bank")
    new_text.check(new.train, new.valid)
    with writable(files.path), files.changing():
        pass  # before anything is trained
    with locked(workdir) as folder:
        plan = make_plan(experiment.parallel, len(names), experiment.train.batch)
        checks.settings(experiment)
        checks.devices(experiment, plan)
        checks.place(experiment, folder)
        text = new_text.read(experiment, read_tokenizer(files), new.valid, folder, say)
        checks.text(experiment, text)
        for name in there:
            say(f"{name}: added to {files.path} by an earlier start of this command")
        if len(there) < len(names):
            ready = _ready(experiment, text, plan, folder, say, start)
            for name in (n for n in names if n not in there):
                take(files, ready.sealed_expert(name).folder, name)
                say(f"{name}: added to {files.path}")
        for note in files.notes:
            say(note)
        if "lm" in files.index:
            say(f"{', '.join(names)}: no language model; `cr-jax bank add-lms` can give one")
        _refit(files, experiment, text, new.valid, folder, say)
    return names


def _start(files: BankFolder, name: str) -> Start:
    """An expert that others begin with.  `UserError` where the bank has none of this name."""
    sealed = files.sealed_expert(name)
    params = parameters.read(sealed, FILE, read_settings(files).model)
    return Start(params, {"start": name, "start_sha256": sealed.manifest.files[FILE]})


def _joined_before(files, names, record, workdir) -> list[str]:
    """The new experts that the same call has added to the bank already, before it was stopped."""
    try:
        same = (workdir / RECORD).read_text("utf-8") == record
        ready = BankFolder(workdir / "bank") if same else None
    except (OSError, ValueError):
        return []
    if ready is None:
        return []
    own = {n: ready.seals(n)[0] for n in names if n in ready.names}
    return [n for n in own if n in files.names and own[n] in files.seals(n)]


def _ready(experiment, text, plan, folder, say, start) -> BankFolder:
    """The workdir's bank: the new experts alone, trained and calibrated."""
    with Inside.at(folder) as place:
        place.sweep()
        trained = train_compressors(experiment, text, plan, folder, say, start)
        check_in_place(place)
    made = finished_bank.make(experiment, text, trained, folder, say)
    write_whole(folder / RECORD, _record(experiment, start))
    windows = too_few(made.calibration, experiment.eval.alpha)
    documents = few_documents(made.calibration, experiment.eval.calibration_documents)
    for line in filter(None, (windows, documents)):
        say(line)
    return BankFolder(folder / "bank")


def _record(experiment: Experiment, start: Start | None) -> str:
    begin = {} if start is None else start.record
    return json.dumps({**config.to_dict(experiment), **begin}, indent=1)


def _refit(files, experiment, text, valid, folder, say) -> None:
    """Cascade and screen of the larger bank, where there is validation text of every expert."""
    missing = [n for n in files.names if n not in text.valid and n not in valid]
    if not missing:
        bank = ExpertBank.load(files.path, lms=False)
        more = new_text.of_others(experiment, bank, valid, folder)
        windows = {n: (text.valid | more.valid)[n] for n in bank.names}
        documents = {n: (text.valid_documents | more.valid_documents)[n] for n in bank.names}
        finished_bank.fit(bank, windows, documents, finished_bank.sizes_of(experiment), say)
    if line := unused_fits(BankFolder(files.path)):
        say(line)


def _experiment(files: BankFolder, new: NewExperts) -> Experiment:
    """`UserError` for a number or a name that cannot be meant."""
    settings, tokenizer = read_settings(files), read_tokenizer(files)
    scoring = settings.scoring
    made = config.default()
    made.name, made.seed, made.studies = "bank train", new.seed, ()
    made.model.update(config.to_dict(settings.model))
    made.scoring.update(config.to_dict(scoring))
    made.tokenizer.update(kind=tokenizer.kind, folder=os.fspath(files.path.resolve() / TOKENIZER))
    made.bank_dtype = _dtype(files)
    made.data.text_form = settings.text_form
    made.data.max_train_tokens = 3_000_000
    for name, sources in new.train.items():
        # Of `test` nothing is read; without validation text some of `train` is held out.
        valid = new.valid.get(name, sources)
        made.data.domains[name] = config.domain(sources, valid, valid)
    ratio = new.learning_rate / 3e-3
    made.optimizer.update(
        learning_rate=float(new.learning_rate),
        muon_learning_rate=made.optimizer.muon_learning_rate * ratio,
    )
    made.train.update(steps=new.steps, batch=new.batch, short=0.25, predict_weight=0.5)
    # A rule that hides tokens, or compares at a lower rate, wants experts that were trained so.
    made.train.update(hidden=0.25 if scoring.parts else 0.0, nested=0.5 if scoring.rate else 0.0)
    made.eval.calibration_windows = 1000
    return config.build(made)


def _dtype(files: BankFolder) -> str:
    """Of the bank's stored experts; float32 in an empty bank."""
    first = next(iter(files.names), None)
    return "float32" if first is None else stored_dtype(files.open_expert(first), FILE)
