"""`cr-jax bank fit-cascade`: how many of a bank's experts must be scored, measured and stored."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cr_jax.bank.files import CASCADE, OWN, SCREEN, BankFolder
from cr_jax.bank.manifest import BIGRAM
from cr_jax.cli.jax_start import start_jax
from cr_jax.cli.output import print_line, printable
from cr_jax.errors import UserError

if TYPE_CHECKING:
    from cr_jax.bank import ExpertBank
    from cr_jax.bank.cascade_file import CandidateFit
    from cr_jax.config import Experiment
    from cr_jax.data import Corpus, Windows

EPILOG = """\
  cr-jax bank fit-cascade --bank runs/bank/bank --config configs/bank.py --config.data.root=DATA
  cr-jax bank fit-cascade --bank BANK --valid 'go=jsonl:go.jsonl#text@valid' --valid law=files:law

Bigram models choose which experts `cr-jax route --cascade` scores in full: a least number of them,
and all others within a margin of the nearest.  The least margin is measured with which the winner
among all experts is one of the candidates for so many windows as --at-least says; offsets for the
bigram models are fitted too, on other windows than the margin, and stored if they leave fewer
candidates.  main.py does this for every bank of more than six experts that it trains; after
`cr-jax bank add` or `remove` it is to be done again.

Each expert needs validation text that it was not trained on: the `valid` sources of its domain in
--config, changed as for main.py by --config.GROUP.FIELD=VALUE (config.data.tokens reads a token
folder); --valid NAME=SOURCE adds an expert, or replaces what the config says of it.  n windows
without a miss say no more than that fewer than 3 / n are missed: give thousands.  BANK/cascade.json
is written once all is measured; then, from up to 100 documents of each expert's text,
BANK/own_documents.json, by which text is unknown where other experts need little more than the
nearest, and BANK/screen.json, by which `cr-jax route` leaves to bigram models what they are
certain of.
"""


def add_arguments(parser) -> None:
    """The flags of `cr-jax bank fit-cascade`."""
    parser.add_argument(
        "--config", metavar="FILE[:VARIANT]", help="says each expert's validation text"
    )
    parser.add_argument(
        "--valid",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="validation text of one expert, a source spec as in configs; may be repeated",
    )
    parser.add_argument(
        "--windows",
        type=int,
        default=1000,
        metavar="N",
        help="of each expert's validation text, at most (default 1000)",
    )
    parser.add_argument(
        "--at-least",
        type=float,
        metavar="A",
        help="agreement with exact routing, a share (default 0.999)",
    )
    parser.add_argument(
        "--min-candidates", type=int, metavar="K", help="candidates at least (default 6)"
    )
    parser.add_argument(
        "--max-windows",
        type=int,
        default=0,
        metavar="N",
        help="of a document that bigram models read (default 0: all)",
    )


def run(args) -> int:
    """Measures and stores; prints what was chosen."""
    _check_numbers(args)
    files = BankFolder(args.bank)
    bare = [name for name in files.names if not (files.expert(name) / BIGRAM).is_file()]
    if bare:
        raise UserError(f"no bigram model for {', '.join(bare)}: a cascade asks those of all")
    given = _given(args.valid, files.names)
    experiment = None
    if args.config is not None:
        from cr_jax import config
        from cr_jax.config.command_line import load

        raw = load(args.config, args.settings).to_dict()
        raw.pop("ablation", None)  # a grid varies one experiment, whose text is meant
        experiment = config.build(raw)
    elif args.settings:
        raise UserError(f"{printable(args.settings[0])} changes a setting of --config: give that")
    _check_sources(files.names, given, experiment)
    start_jax()
    from cr_jax.bank import ExpertBank
    from cr_jax.routing import cascade

    bank = ExpertBank.load(args.bank, lms=False)
    least = cascade.MIN_CANDIDATES if args.min_candidates is None else args.min_candidates
    made = cascade.Cascade.fit(
        bank,
        validation(bank, given, experiment, args.windows),
        cascade.AT_LEAST if args.at_least is None else args.at_least,
        least,
        args.max_windows,
    )
    made.save()
    for line in said(made.fitted):
        print_line(printable(line))
    print_line(printable(os.path.join(args.bank, CASCADE)))
    _fit_screen(bank, given, experiment, args.at_least)
    return 0


def _fit_screen(
    bank: "ExpertBank", given, experiment: "Experiment | None", at_least: float | None
) -> None:
    """Measures and stores margins of documents and the screen too, or says why there is none: the
    bank routes without, also without the one that it had."""
    from cr_jax.bank import own_documents_file, screen_file
    from cr_jax.routing import scored_documents, screen_fit

    try:
        scored = scored_documents.score_documents(bank, documents(bank, given, experiment))
        own = scored_documents.own_documents(bank, scored)
        try:
            own_documents_file.write(bank.folder, own)
            print_line(printable(os.path.join(str(bank.folder), OWN)))
        except UserError as error:
            print_line(printable(f"no margins of documents: {error}"))
            own = {}
        made = screen_fit.fit_screen(
            scored_documents.with_own_documents(bank, own),
            scored,
            screen_fit.AT_LEAST if at_least is None else at_least,
        )
    except UserError as error:
        print_line(printable(f"no screen: {error}"))
        if screen_file.delete(bank.folder):
            print_line(printable(f"deleted {bank.folder / SCREEN}, of an earlier fit"))
        return
    screen_file.write(bank.folder, made)
    print_line(printable(screen_fit.said(made)))
    print_line(printable(os.path.join(str(bank.folder), SCREEN)))


def _check_numbers(args) -> None:
    if args.at_least is not None and not 0 <= args.at_least <= 1:
        raise UserError(f"--at-least is a share and must lie in [0, 1], got {args.at_least}")
    for flag, number, least in (
        ("--windows", args.windows, 2),
        ("--min-candidates", args.min_candidates, 1),
        ("--max-windows", args.max_windows, 0),
    ):
        if number is not None and number < least:
            raise UserError(f"{flag} must be a whole number of at least {least}, got {number}")


def _given(words: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """NAME=SOURCE words -> sources per expert.  `UserError` for what names no expert."""
    sources: dict[str, list[str]] = {}
    for word in words:
        name = next((n for n in names if word.startswith(f"{n}=")), None)
        if name is None:
            raise UserError(
                f"--valid {printable(word[:80])}: must be NAME=SOURCE, with one of the bank's "
                f"experts: {', '.join(names)}"
            )
        sources.setdefault(name, []).append(word[len(name) + 1 :])
    return sources


def _check_sources(
    names: Sequence[str], given: Mapping[str, Sequence[str]], experiment: "Experiment | None"
) -> None:
    """`UserError` unless each expert has sources that are there; reads no text."""
    from cr_jax.data import sources
    from cr_jax.data.corpus_specs import held_out_spec

    known = {} if experiment is None else experiment.data.domains
    missing = [name for name in names if name not in given and name not in known]
    if missing:
        where = "--valid NAME=SOURCE" if known else "--config, or --valid NAME=SOURCE"
        raise UserError(f"no validation text for the experts {', '.join(missing)}: give {where}")
    specs = [spec for own in given.values() for spec in own]
    if experiment is not None and not experiment.data.tokens:
        for name in [n for n in names if n not in given]:
            specs += held_out_spec(experiment, name, "valid").placed(experiment.data.root)
    for spec in dict.fromkeys(specs):
        sources.check(spec)


def validation(
    bank: "ExpertBank",
    given: Mapping[str, Sequence[str]],
    experiment: "Experiment | None",
    most: int,
) -> "dict[str, Windows]":
    """At most `most` windows of each expert's validation text, in the bank's form and tokens."""
    from cr_jax.data import eval_windows

    mode, seed = ("packed", 0) if experiment is None else (experiment.data.mode, experiment.seed)

    def cut(corpus) -> "Windows":
        window, pad = bank.model.window, bank.tokenizer.pad_id
        return eval_windows(corpus, window, limit=most, mode=mode, pad_id=pad, seed=seed)

    return _cut(bank, given, experiment, cut)


def documents(
    bank: "ExpertBank", given: Mapping[str, Sequence[str]], experiment: "Experiment | None"
) -> "dict[str, Windows]":
    """Windows of whole documents of each expert's validation text, for a screen."""
    from cr_jax.config import DOCUMENT_WINDOWS
    from cr_jax.data import document_windows
    from cr_jax.routing.scored_documents import documents_each

    def cut(corpus) -> "Windows":
        window, pad = bank.model.window, bank.tokenizer.pad_id
        most = DOCUMENT_WINDOWS[-1] * window
        return document_windows(
            corpus,
            window,
            pad,
            limit=documents_each(len(bank.names)),
            most_tokens=most,
            least_tokens=window + 1,
        )

    return _cut(bank, given, experiment, cut)


def _cut(
    bank: "ExpertBank",
    given: Mapping[str, Sequence[str]],
    experiment: "Experiment | None",
    cut: "Callable[[Corpus], Windows]",
) -> "dict[str, Windows]":
    """Windows of each expert's validation text, in the bank's form and tokens."""
    from cr_jax.data import Reading, load_corpus
    from cr_jax.data.corpus_specs import held_out_spec

    folder = _tokens(bank, experiment) if experiment and experiment.data.tokens else None

    def corpus(name: str, cache: Path) -> "Corpus":
        if name in given:
            reading = Reading(text_form=bank.text_form)
            return load_corpus(given[name], bank.tokenizer, cache, reading=reading)
        spec = held_out_spec(experiment, name, "valid")
        if folder is not None:
            return folder.corpus(spec, cache)
        data = experiment.data
        reading = Reading(data.max_document_bytes, data.group_key, bank.text_form)
        return load_corpus(spec.placed(data.root), bank.tokenizer, cache, reading=reading)

    windows = {}
    with tempfile.TemporaryDirectory() as place:
        for name in bank.names:
            own = cut(corpus(name, Path(place)))
            # Copied: the place of the tokens goes.
            windows[name] = dataclasses.replace(own, tokens=own.tokens.copy(), mask=own.mask.copy())
    return windows


def _tokens(bank: "ExpertBank", experiment: "Experiment"):
    """The experiment's token folder.  `UserError` unless its ids are the bank's."""
    from cr_jax.data.token_folder import TokenFolder

    folder = TokenFolder(experiment.data.tokens)
    if folder.own_tokenizer().fingerprint != bank.tokenizer.fingerprint:
        raise UserError(f"{folder.path} has ids of another tokenizer than {bank.folder}")
    if experiment.data.text_form != bank.text_form:
        raise UserError(
            f"{folder.path} has text in the form {experiment.data.text_form}, {bank.folder} "
            f"reads {bank.text_form}: fit from text, without config.data.tokens"
        )
    return folder


def said(fit: "CandidateFit") -> list[str]:
    """What was chosen and measured, in lines."""
    lines = [
        f"candidates {fit.min_candidates} experts at least",
        f"margin     {fit.candidate_margin:.3f} nats/token above the nearest bigram model",
        f"agreement  {fit.agreement:.4%} with exact routing ({fit.at_least:.4%} wanted)",
        f"           {fit.mean_candidates:.2f} experts on average",
        f"           ({fit.windows:,} validation windows)",
    ]
    if fit.offsets:
        lines += [
            "offsets    nats/token off each bigram model's residual",
            *(f"           {x:.3f} {name}" for name, x in fit.offsets.items() if x),
        ]
    return lines
