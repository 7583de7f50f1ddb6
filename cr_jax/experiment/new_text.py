"""The text of experts that are to join a bank, in the bank's tokens.  Not in the paper."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cr_jax.bank import ExpertBank
from cr_jax.config import DOCUMENT_WINDOWS, Experiment
from cr_jax.data import (
    Corpus,
    Mixture,
    Reading,
    Tokenizer,
    document_windows,
    eval_windows,
    load_corpus,
    sources,
)
from cr_jax.data.corpus_specs import training_specs, weighted
from cr_jax.data.encoding import Encoder
from cr_jax.data.experiment_text import Corpora
from cr_jax.data.held_out import SHARE, hold_out
from cr_jax.data.overlap import lines as overlap_lines
from cr_jax.data.overlap import overlap
from cr_jax.errors import UserError


def check(train: Mapping[str, Sequence[str]], valid: Mapping[str, Sequence[str]]) -> None:
    """`UserError`, which quotes NAME=SPEC, for a source that is not understood or not there."""
    for flag, given in (("", train), ("--valid ", valid)):
        for name, specs in given.items():
            for spec in specs:
                try:
                    sources.check(spec if flag else weighted(spec)[1])
                except UserError as error:
                    raise UserError(f"{flag}{name}={spec}: {error}") from error


def read(
    e: Experiment,
    tokenizer: Tokenizer,
    valid: Mapping[str, Sequence[str]],
    workdir: Path,
    say: Callable[[str], None],
) -> Corpora:
    """Training corpora and validation windows of each of the experiment's domains.

    valid: sources of validation text; for a domain without any a tenth of its documents is held
    out.  `UserError` where a domain has too little text for that, or for one window.
    """
    train: dict[str, Corpus | Mixture] = {}
    held: dict[str, Corpus] = {}
    with Encoder(tokenizer) as encoder:
        for name in e.data.domains:
            specs, shares = training_specs(e, name)
            room = 1.0 if name in valid else 1 / (1 - SHARE)  # for what is held out
            try:
                corpora = [
                    _corpus(e, encoder, workdir, s.specs, s.max_tokens and int(s.max_tokens * room))
                    for s in specs
                ]
                if name in valid:
                    held[name] = _corpus(e, encoder, workdir, valid[name])
                else:
                    corpora, held[name] = hold_out(corpora, tokenizer)
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
            tokens = sum(len(c.tokens) for c in corpora)
            if tokens < e.model.window:
                raise UserError(
                    f"{name}: too little text to train on: {tokens} tokens, and one window has "
                    f"{e.model.window}"
                )
            train[name] = corpora[0] if shares is None else Mixture(corpora, shares)
            say(
                f"{name}: {tokens:,} tokens in {sum(len(c.names) for c in corpora):,} documents; "
                f"held out {len(held[name].tokens):,} in {len(held[name].names):,}"
            )
            for line in filter(None, (c.left_out for c in corpora)):
                say(f"{name}: {line}")
    found = _windows(e, tokenizer, held)
    counts = overlap(
        {n: x.corpora if isinstance(x, Mixture) else [x] for n, x in train.items()},
        {n: {"valid": x} for n, x in held.items()},
    )
    for line in overlap_lines(counts, train.keys()):
        say(line)
    return dataclasses.replace(found, train=train, overlap=counts)


def of_others(
    e: Experiment, bank: ExpertBank, valid: Mapping[str, Sequence[str]], workdir: Path
) -> Corpora:
    """Validation windows of the experts that `bank` has and the experiment does not train."""
    names = [n for n in bank.names if n not in e.data.domains]
    with Encoder(bank.tokenizer) as encoder:
        held = {n: _corpus(e, encoder, workdir, valid[n]) for n in names}
    return _windows(e, bank.tokenizer, held)


def _corpus(e, encoder, workdir, specs, most=None) -> Corpus:
    reading = Reading(e.data.max_document_bytes, e.data.group_key, e.data.text_form)
    return load_corpus(list(specs), encoder, workdir / "cache", most, reading)


def _windows(e: Experiment, tokenizer: Tokenizer, held: Mapping[str, Corpus]) -> Corpora:
    """As of a run: windows and whole documents."""
    window, pad = e.model.window, tokenizer.pad_id
    valid = {
        n: eval_windows(
            x, window, limit=e.eval.calibration_windows, mode=e.data.mode, pad_id=pad, seed=e.seed
        )
        for n, x in held.items()
    }
    whole = {
        n: document_windows(
            x,
            window,
            pad,
            limit=e.eval.calibration_documents,
            most_tokens=DOCUMENT_WINDOWS[-1] * window,
            least_tokens=window + 1,
        )
        for n, x in held.items()
    }
    return Corpora(tokenizer, {}, valid, {}, whole)
