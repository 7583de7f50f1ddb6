"""Settings: a locked ConfigDict outside, frozen typed dataclasses inside.

`configs/*.py` start from `default()`, change fields and are overridden by
`--config.field=value`.  `build()` turns the result into an `Experiment` once; every check of a
setting is made there, so a misspelt or impossible value dies at start-up with one clear line.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from cr_jax.errors import UserError

Bottleneck = Literal["fold", "query", "query_fold"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of one compressor.  Defaults: the paper's window, latents and width (section 1)."""

    vocab_size: int = 0  # 0: the tokenizer's, rounded up to a multiple of 128
    window: int = 512  # L, tokens
    latents: int = 8  # M
    d_model: int = 512
    d_latent: int = 512
    heads: int = 8
    d_ff: int = 1536
    encoder_blocks: int = 5
    decoder_blocks: int = 5
    bottleneck: Bottleneck = "fold"
    fold_channels: int = 64  # width per token on the way into and out of the fold
    levels: int = 0  # values that each number of z can take (models/quantizer.py); 0: any
    tie_embeddings: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute; parameters stay float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    remat: bool = False  # recompute each block in the backward pass: less memory, slower
    scan: bool = False  # loop over blocks instead of unrolling: faster compilation, slower


@dataclasses.dataclass(frozen=True)
class DomainConfig:
    """Where one domain's documents come from; each entry is a source spec (`cr_jax.data`).

    A training source may carry its share of the rows: "0.3*jsonl:a.jsonl".
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    kind: Literal["sentencepiece", "gpt2", "bytes"] = "sentencepiece"
    vocab_size: int = 2048  # sentencepiece only
    folder: str = ""  # load from here instead of training; gpt2: holds encoder.json, vocab.bpe
    train_bytes: int = 4_000_000  # text per domain that a SentencePiece model is trained on


@dataclasses.dataclass(frozen=True)
class DataConfig:
    root: str = "data"  # replaces {root} in source specs
    cache: str = ""  # tokenised corpora; empty: WORKDIR/cache
    mode: Literal["packed", "padded"] = "packed"
    max_train_tokens: int = 0  # per domain; 0: all
    domains: Mapping[str, DomainConfig] = dataclasses.field(default_factory=dict)
    unseen: Mapping[str, DomainConfig] = dataclasses.field(default_factory=dict)  # test only


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Muon for the matrices inside blocks, AdamW for everything else."""

    name: Literal["muon", "adamw"] = "muon"
    muon_learning_rate: float = 0.02
    learning_rate: float = 1e-3  # AdamW
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    warmup: float = 0.02  # share of the run
    cooldown: float = 1.0  # share of the run over which the rate falls, after the warm-up
    final: float = 0.0  # share of the peak rate left at the end
    clip: float = 1.0  # global gradient norm; 0: off
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    batch: int = 64  # windows per expert and step, over all devices
    steps: int = 0  # give exactly one of steps, tokens (per expert), seconds
    tokens: int = 0
    seconds: float = 0.0
    accumulate: int = 1  # micro-batches per step
    ema: float = 0.0  # decay of an averaged copy of the weights that is evaluated; 0: off
    loss_chunk: int = 8192  # tokens of a device whose logits stand in memory at once
    nested: float = 0.0  # share of windows trained at a random lower rate (Not in the paper)
    hidden: float = 0.0  # share of windows with hidden input tokens (Not in the paper)
    hidden_final: float = 0.0  # that share at the end of the run; it changes linearly
    hidden_low: float = 0.1  # share of such a window's tokens: between low and high
    hidden_high: float = 0.5
    hidden_weight: float = 1.0  # of a hidden token's loss, beside 1 for the others
    short: float = 0.0  # share of windows cut to a random length (Not in the paper)
    experts_by: Literal["vmap", "map"] = "vmap"  # how a device runs the experts it holds
    log_every: int = 20
    checkpoint_every: float = 60.0  # seconds
    keep_checkpoints: int = 2
    profile: str = ""  # "A:B": profiler trace of the steps after A up to B, in WORKDIR/trace
    watchdog: float = 1800.0  # seconds without a finished step until it says so; 0: never


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    batch: int = 64
    windows: int = 512  # test windows per domain; 0: all
    calibration_windows: int = 512  # of each expert's own valid split
    alpha: float = 0.05  # a p-value below this is "unknown"
    expert_chunk: int = 4  # experts scored side by side in memory
    examples: int = 2  # sample windows per expert in the report


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The residual that routing compares (`cr_jax.scoring`).

    parts: 0 scores every token with all tokens seen (paper, routing rule).  k > 0 deals the
    window's positions at random, but always alike, into k parts and makes k passes; each hides
    `hidden` parts in turn, so that every token is scored `hidden` times, and the mean counts.
    passes: 0 makes all k passes; p > 0 makes the first p, and residuals are means over the tokens
    that these hide (`scoring.scored`): a sample of the positions, for cheap scouts.
    rate: how much of z the decoder is given, in the bottleneck's units; 0: all of it.
    """

    parts: int = 0
    hidden: int = 1
    rate: int = 0
    passes: int = 0


SEEN = Scoring()  # the paper's rule


@dataclasses.dataclass(frozen=True)
class Experiment:
    name: str = "experiment"
    seed: int = 0
    parallel: Literal["jit", "pmap"] = "jit"
    mesh_expert: int = 1  # devices along the expert axis
    mesh_fsdp: int = 1  # devices that share one copy of the state; the rest go to the data axis
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    scoring: Scoring = SEEN
    bank_dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # of the stored experts
    studies: tuple[str, ...] = ("fingerprint", "routing", "geometry")


def default() -> ml_collections.ConfigDict:
    """All settings at their defaults, locked: unknown names raise at once.

    >>> config = default()
    >>> config.train.steps = 1
    >>> config.data.domains = {"code": domain("stdlib@train", "stdlib@valid", "stdlib@test")}
    >>> build(config).model.latents
    8
    """
    config = ml_collections.ConfigDict(_as_mapping(Experiment()), type_safe=True)
    # Domains are open-ended: configs add their own names below these two.
    config.data.domains = ml_collections.ConfigDict()
    config.data.unseen = ml_collections.ConfigDict()
    config.lock()
    return config


def domain(train=(), valid=(), test=()) -> ml_collections.ConfigDict:
    """One entry of `config.data.domains` or `config.data.unseen`; see `DomainConfig`."""
    listed = {k: (v,) if isinstance(v, str) else tuple(v)
              for k, v in dict(train=train, valid=valid, test=test).items()}
    return ml_collections.ConfigDict(listed)


def build(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Experiment:
    """Checks every field and freezes the settings.  Raises `UserError` naming the bad field."""
    raw = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    experiment = _make(Experiment, raw, "config")
    _check(experiment)
    return experiment


def model_config(raw: Mapping[str, Any]) -> ModelConfig:
    """A stored model description -> `ModelConfig`.  Raises `UserError` naming the bad field."""
    model = _make(ModelConfig, raw, "model")
    check_model(model)
    return model


def scoring_rule(raw: Mapping[str, Any], model: ModelConfig) -> Scoring:
    """A stored rule -> `Scoring`.  Raises `UserError` naming the bad field."""
    scoring = _make(Scoring, raw, "scoring")
    check_scoring(scoring, model)
    return scoring


def profile_steps(text: str) -> tuple[int, int] | None:
    """"A:B" -> (A, B), "" -> None.  Raises `UserError` unless 0 <= A < B."""
    if not text:
        return None
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"config.train.profile={text!r} must be two step numbers A:B with A < B, "
                        "such as 20:25")
    return int(first), int(last)


def to_dict(value) -> dict:
    """A dataclass of settings -> plain JSON types."""
    return _as_mapping(value)


def check_model(model: ModelConfig) -> None:
    """Raises `UserError` when the sizes cannot make a model."""
    for name in ("window", "latents", "d_model", "d_latent", "heads", "d_ff", "fold_channels"):
        if getattr(model, name) < 1:
            raise UserError(f"config.model.{name} must be at least 1, got {getattr(model, name)}")
    for name, value in vars(model).items():
        if type(value) is int and value > 1 << 24:  # also what a hostile bank.json may claim
            raise UserError(f"config.model.{name}={value} is more than {1 << 24:,}: that cannot be "
                            "meant")
    if min(model.encoder_blocks, model.decoder_blocks, model.vocab_size) < 0:
        raise UserError("config.model: encoder_blocks, decoder_blocks and vocab_size cannot be "
                        "negative")
    if max(model.encoder_blocks, model.decoder_blocks) > 1000:
        raise UserError("config.model: more than 1,000 blocks cannot be meant")
    if model.d_model % (2 * model.heads):
        raise UserError(
            f"config.model.d_model={model.d_model} must be a multiple of 2 x heads="
            f"{2 * model.heads}: every head needs an even width for its rotary positions")
    if model.levels not in (0, *range(2, 257)):
        raise UserError(f"config.model.levels must be 0 (off) or 2 to 256, got {model.levels}")
    if model.latents > model.window:
        raise UserError(f"config.model.latents={model.latents} must not exceed "
                        f"window={model.window}: there is nothing to compress")


def check_scoring(scoring: Scoring, model: ModelConfig) -> None:
    """Raises `UserError` when a window cannot be dealt like that."""
    if min(scoring.parts, scoring.rate, scoring.passes) < 0:
        raise UserError("config.scoring: parts, rate and passes cannot be negative")
    if scoring.passes > scoring.parts:
        raise UserError(f"config.scoring.passes={scoring.passes} must not exceed "
                        f"parts={scoring.parts}, the number of passes there are")
    if scoring.parts and not 0 < scoring.hidden <= scoring.parts:
        raise UserError(f"config.scoring.hidden={scoring.hidden} must lie in [1, "
                        f"parts={scoring.parts}]")
    if scoring.parts and model.window % scoring.parts:
        raise UserError(f"config.scoring.parts={scoring.parts} must divide the window of "
                        f"{model.window}")


def _check(e: Experiment) -> None:
    check_model(e.model)
    check_scoring(e.scoring, e.model)
    for group, settings in (("optimizer", e.optimizer), ("train", e.train), ("eval", e.eval),
                            ("data", e.data), ("tokenizer", e.tokenizer)):
        for name, value in vars(settings).items():
            # `not >=` also catches what is not a number.
            if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
                raise UserError(f"config.{group}.{name} must be a finite number, 0 or more; "
                                f"got {value}")
    durations = [n for n in ("steps", "tokens", "seconds") if getattr(e.train, n) > 0]
    if len(durations) != 1:
        raise UserError("config.train: give exactly one of steps, tokens, seconds; got "
                        + (", ".join(durations) or "none"))
    positive = {"train.batch": e.train.batch, "train.accumulate": e.train.accumulate,
                "train.loss_chunk": e.train.loss_chunk, "train.log_every": e.train.log_every,
                "eval.batch": e.eval.batch, "eval.expert_chunk": e.eval.expert_chunk,
                "eval.calibration_windows": e.eval.calibration_windows,
                "mesh_expert": e.mesh_expert, "mesh_fsdp": e.mesh_fsdp,
                "train.keep_checkpoints": e.train.keep_checkpoints,
                "tokenizer.train_bytes": e.tokenizer.train_bytes}
    for name, value in positive.items():
        if value < 1:
            raise UserError(f"config.{name} must be at least 1, got {value}")
    profile_steps(e.train.profile)
    if e.train.batch % e.train.accumulate:
        raise UserError(f"config.train.batch={e.train.batch} must be a multiple of "
                        f"accumulate={e.train.accumulate}")
    shares = {"optimizer.warmup": e.optimizer.warmup, "optimizer.cooldown": e.optimizer.cooldown,
              "optimizer.final": e.optimizer.final, "train.nested": e.train.nested,
              "train.short": e.train.short,
              "train.hidden": e.train.hidden, "train.hidden_low": e.train.hidden_low,
              "train.hidden_high": e.train.hidden_high, "train.hidden_final": e.train.hidden_final,
              "eval.alpha": e.eval.alpha,
              "train.ema": e.train.ema}
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"config.{name} is a share and must lie in [0, 1], got {value}")
    for name in ("b1", "b2"):
        if getattr(e.optimizer, name) >= 1:
            raise UserError(f"config.optimizer.{name} must be less than 1, "
                            f"got {getattr(e.optimizer, name)}")
    if e.train.hidden_low > e.train.hidden_high:
        raise UserError(f"config.train.hidden_low={e.train.hidden_low} must not exceed "
                        f"hidden_high={e.train.hidden_high}")
    if not e.data.domains:
        raise UserError("config.data.domains is empty: name at least one domain, "
                        "for example domains.python = domain(train='stdlib@train', ...)")
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
    known = ("fingerprint", "routing", "geometry")
    for study in e.studies:
        if study not in known:
            raise UserError(f"config.studies: unknown study '{study}'; "
                            f"there are {', '.join(known)}")


def _as_mapping(value):
    if dataclasses.is_dataclass(value):
        return {f.name: _as_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _as_mapping(v) for k, v in value.items()}
    return value


def _make(cls, raw: Any, where: str):
    """Recursively builds dataclass `cls` from `raw`; `where` is the dotted path for messages."""
    hints = typing.get_type_hints(cls)
    if not isinstance(raw, Mapping):
        raise UserError(f"{where} must be a group of fields, got {raw!r}")
    for name in raw:
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(hints)}"
            raise UserError(f"{where} has no field '{name}'{hint}")
    return cls(**{n: _convert(hints[n], v, f"{where}.{n}") for n, v in raw.items()})


def _convert(kind, value, where: str):
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _make(kind, value, where)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where} must be one of {', '.join(map(str, args))}; got {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise UserError(f"{where} must be a list, got {value!r}")
        return tuple(_convert(args[0], v, where) for v in value)
    if origin is not None and issubclass(origin, Mapping):
        items = {k: _convert(args[1], v, f"{where}.{k}") for k, v in dict(value).items()}
        return types.MappingProxyType(items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where} must be {kind.__name__}, got {value!r}")
    return value
