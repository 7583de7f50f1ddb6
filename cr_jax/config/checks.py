"""Every check of a setting, each with one line that says what to change; of language models in
`checks_lm`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cr_jax.config.checks_lm import check_continual, check_lm, check_modular, check_numbers
from cr_jax.config.names import check_domains, shown
from cr_jax.config.schema import Experiment, ModelConfig, OptimizerConfig, Scoring
from cr_jax.errors import UserError

LEAST_PIECES = 262  # of SentencePiece: pad, unknown, end, line end, tab, 256 bytes, a character


def check_model(model: ModelConfig) -> None:
    """Raises `UserError` when the sizes cannot make a model."""
    for name in ("window", "latents", "d_model", "d_latent", "heads", "d_ff"):
        if getattr(model, name) < 1:
            raise UserError(f"config.model.{name} must be at least 1, got {getattr(model, name)}")
    for name, value in vars(model).items():
        if type(value) is int and value > 1 << 24:  # also what a hostile bank.json may claim
            raise UserError(
                f"config.model.{name}={value} is more than {1 << 24:,}: that cannot be meant"
            )
    if min(model.encoder_blocks, model.decoder_blocks, model.vocab_size) < 0:
        raise UserError(
            "config.model: encoder_blocks, decoder_blocks and vocab_size cannot be negative"
        )
    if max(model.encoder_blocks, model.decoder_blocks) > 1000:
        raise UserError(
            "config.model.encoder_blocks, decoder_blocks: more than 1,000 blocks cannot be meant"
        )
    if model.d_model % (2 * model.heads):
        raise UserError(
            f"config.model.d_model={model.d_model} must be a multiple of 2 x heads="
            f"{2 * model.heads}: every head needs an even width for its rotary positions"
        )
    if model.levels not in (0, *range(2, 257)):
        raise UserError(f"config.model.levels must be 0 (off) or 2 to 256, got {model.levels}")
    if model.latents > model.window:
        raise UserError(
            f"config.model.latents={model.latents} must not exceed "
            f"window={model.window}: there is nothing to compress"
        )


def check_scoring(scoring: Scoring, model: ModelConfig) -> None:
    """Raises `UserError` when a window cannot be dealt, or experts ranked, like that."""
    if min(scoring.parts, scoring.rate) < 0:
        raise UserError("config.scoring: parts and rate cannot be negative")
    if not 0 <= scoring.typicality_weight < float("inf"):  # `not` also catches NaN
        raise UserError(
            "config.scoring.typicality_weight must be a finite number, 0 or more; got "
            f"{scoring.typicality_weight}"
        )
    if scoring.predicted and not model.predictive:
        raise UserError(
            "config.scoring.predicted needs config.model.predictive=True: only such "
            "an encoder predicts tokens"
        )
    if scoring.predicted and (scoring.rate or scoring.hidden != 1 or scoring.parts):
        raise UserError(
            "config.scoring: predicted hides nothing and decodes nothing; leave rate and parts "
            "at 0 and hidden at 1"
        )
    if not 0 <= scoring.bigram_weight < 1 or (scoring.bigram_weight and not scoring.predicted):
        raise UserError(
            f"config.scoring.bigram_weight={scoring.bigram_weight} is the share of "
            "bigrams in predicted=True: at least 0, below 1, and 0 under other rules"
        )
    if not 0 < scoring.hidden <= max(1, scoring.parts):
        raise UserError(
            f"config.scoring.hidden={scoring.hidden} must lie in [1, "
            f"parts={scoring.parts}], and be 1 when parts is 0"
        )
    if scoring.parts and model.window % scoring.parts:
        raise UserError(
            f"config.scoring.parts={scoring.parts} must divide the window of {model.window}"
        )


def check(e: Experiment) -> None:
    """Raises `UserError` for a setting that cannot be meant; the rest is in docs/checks.md."""
    _check_text(e, "config")
    _check_paths(e)
    _check_sizes(e)
    check_model(e.model)
    check_scoring(e.scoring, e.model)
    check_lm(e.lm)
    check_lm(e.lm_large, "config.lm_large")
    check_modular(e.modular, e.data.domains)
    check_continual(e.continual)
    for group, settings in (
        ("train", e.train),
        ("eval", e.eval),
        ("data", e.data),
        ("tokenizer", e.tokenizer),
    ):
        check_numbers(f"config.{group}", settings)
    _check_optimizer("config.optimizer", e.optimizer)
    _check_optimizer("config.lm_optimizer", e.lm_optimizer)
    durations = [n for n in ("steps", "tokens", "seconds") if getattr(e.train, n) > 0]
    if len(durations) != 1:
        raise UserError(
            "config.train: give exactly one of steps, tokens, seconds; got "
            + (", ".join(durations) or "none")
        )
    positive = {
        "train.batch": e.train.batch,
        "train.accumulate": e.train.accumulate,
        "train.loss_chunk": e.train.loss_chunk,
        "train.log_every": e.train.log_every,
        "eval.batch": e.eval.batch,
        "eval.expert_chunk": e.eval.expert_chunk,
        "eval.calibration_windows": e.eval.calibration_windows,
        "eval.every_windows": e.eval.every_windows,
        "mesh_expert": e.mesh_expert,
        "mesh_fsdp": e.mesh_fsdp,
        "train.keep_checkpoints": e.train.keep_checkpoints,
        "tokenizer.train_bytes": e.tokenizer.train_bytes,
        "data.max_document_bytes": e.data.max_document_bytes,
    }
    for name, value in positive.items():
        if value < 1:
            raise UserError(f"config.{name} must be at least 1, got {value}")
    profile_steps(e.train.profile)
    if e.eval.every:
        validation_period(e.eval.every)
    elif e.eval.target_tra:
        raise UserError(
            f"config.eval.target_tra={e.eval.target_tra} needs config.eval.every, such "
            "as '10 seconds'"
        )
    if e.train.batch % e.train.accumulate:
        raise UserError(
            f"config.train.batch={e.train.batch} must be a multiple of "
            f"accumulate={e.train.accumulate}"
        )
    shares = {
        "train.nested": e.train.nested,
        "train.short": e.train.short,
        "train.replaced": e.train.replaced,
        "train.hidden": e.train.hidden,
        "train.hidden_low": e.train.hidden_low,
        "train.hidden_high": e.train.hidden_high,
        "eval.alpha": e.eval.alpha,
        "eval.target_tra": e.eval.target_tra,
    }
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"config.{name} is a share and must lie in [0, 1], got {share}")
    if e.train.hidden_low > e.train.hidden_high:
        raise UserError(
            f"config.train.hidden_low={e.train.hidden_low} must not exceed "
            f"hidden_high={e.train.hidden_high}"
        )
    if not e.data.domains:
        raise UserError(
            "config.data.domains is empty: name at least one domain, "
            "for example domains.python = domain(train='stdlib@train', ...)"
        )
    check_domains(e.data.domains, e.data.unseen)
    for name, d in e.data.domains.items():
        missing = [s for s in ("train", "valid", "test") if not getattr(d, s)]
        if missing:
            raise UserError(f"config.data.domains.{name} has no source for: {', '.join(missing)}")
    for name, d in e.data.unseen.items():
        if not d.test:
            raise UserError(f"config.data.unseen.{name} has no source for: test")
    both = set(e.data.domains) & set(e.data.unseen)
    if both:
        raise UserError(f"config.data: {', '.join(sorted(both))} cannot be both trained and unseen")


def _check_optimizer(where: str, optimizer: OptimizerConfig) -> None:
    check_numbers(where, optimizer)
    for name in ("warmup", "cooldown", "final"):
        if getattr(optimizer, name) > 1:
            raise UserError(
                f"{where}.{name} is a share and must lie in [0, 1], got {getattr(optimizer, name)}"
            )
    for name in ("b1", "b2"):
        if getattr(optimizer, name) >= 1:
            raise UserError(f"{where}.{name} must be less than 1, got {getattr(optimizer, name)}")


def validation_period(text: str) -> tuple[float, str]:
    """ "200 steps" -> (200.0, "steps"); units are steps, tokens (of one expert) and seconds.

    Raises `UserError` on anything else.

    >>> validation_period("2e6 tokens")
    (2000000.0, 'tokens')
    """
    amount, _, unit = text.strip().partition(" ")
    try:
        number = float(amount)
    except ValueError:
        number = 0.0
    whole = unit == "seconds" or (unit in ("steps", "tokens") and number.is_integer())
    if not (0 < number < float("inf") and whole):
        raise UserError(
            f"config.eval.every={text!r} must be a number and one of steps, tokens or "
            "seconds, such as '200 steps' or '10 seconds'; '' never validates"
        )
    return number, unit


def _check_text(value: Any, where: str) -> None:
    """Every string can be written to a file: a lone surrogate would fail at the report."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UserError(f"{where} is not UTF-8 text: {shown(value)}") from None
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_text(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _check_text(inner, f"{where}.{shown(name)[1:-1]}")
    elif isinstance(value, tuple):
        for inner in value:
            _check_text(inner, where)


def _check_paths(e: Experiment) -> None:
    """Names that no file system holds: they would fail where the folder is first looked at."""
    for where, path in {
        "data.root": e.data.root,
        "data.cache": e.data.cache,
        "data.tokens": e.data.tokens,
        "tokenizer.folder": e.tokenizer.folder,
        "modular.seed_from": e.modular.seed_from,
    }.items():
        if "\0" in path or any(len(part.encode()) > 255 for part in path.split("/")):
            raise UserError(
                f"config.{where}={shown(path)} cannot be a path: a name in it has a NUL byte, or "
                "more than 255 bytes"
            )


def _check_sizes(e: Experiment) -> None:
    """Numbers that arrays and counters on the device cannot hold."""
    if not 0 <= e.seed < 1 << 32:
        raise UserError(f"config.seed must lie in [0, {(1 << 32) - 1}], got {e.seed}")
    large = {
        "train.tokens": 1 << 62,
        "train.steps": (1 << 31) - 1,
        "data.max_train_tokens": 1 << 62,
        "data.max_document_bytes": 1 << 40,
        "tokenizer.train_bytes": 1 << 40,
    }
    for group in ("train", "eval", "data", "tokenizer"):
        for name, value in vars(getattr(e, group)).items():
            most = large.get(f"{group}.{name}", 1 << 24)
            if type(value) is int and value > most:
                raise UserError(
                    f"config.{group}.{name}={value} is more than {most:,}: that cannot be meant"
                )
    for name in ("mesh_expert", "mesh_fsdp"):
        if getattr(e, name) > 1 << 24:
            raise UserError(f"config.{name}={getattr(e, name)} is more than there are devices")
    if (
        e.tokenizer.kind == "sentencepiece"
        and not e.tokenizer.folder
        and e.tokenizer.vocab_size < LEAST_PIECES
    ):
        raise UserError(
            f"config.tokenizer.vocab_size={e.tokenizer.vocab_size} is too small for "
            f"256 bytes and some characters; set {LEAST_PIECES} or more"
        )
    if len(e.train.wandb) > 128 or set(e.train.wandb) & set("/\\#?%:"):
        raise UserError(
            f"config.train.wandb={shown(e.train.wandb)} cannot be a project: take up to 128 "
            "characters without / \\ # ? % :"
        )
    if e.tokenizer.kind == "huggingface" and not e.tokenizer.folder:
        raise UserError(
            "config.tokenizer.kind=huggingface needs config.tokenizer.folder: a folder with a "
            "tokenizer.json"
        )


def profile_steps(text: str) -> tuple[int, int] | None:
    """ "A:B" -> (A, B), "" -> None.  Raises `UserError` unless 0 <= A < B."""
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(
            f"config.train.profile={text!r} must be two step numbers A:B with A < B, such as 20:25"
        )
    return int(first), int(last)
