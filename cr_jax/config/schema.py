"""The settings as frozen dataclasses: every field, its default and what it means."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

DOCUMENT_WINDOWS = (2, 4, 8, 16)  # first windows of a document by which it is judged as a whole


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
    bottleneck: str = "query"  # a name in models/bottlenecks
    fold_channels: int = 64  # width per token into and out of `fold` and `fourier_query`
    # Of `query`; False: plain latent queries, the control.  The next three matter to True only.
    rotary_values: bool = True
    positional_bias: Literal["learned", "fixed", "none"] = "learned"
    value_start: Literal["transform", "random"] = "transform"  # of the value matrices
    value_frequencies: Literal["odd", "rope", "learned"] = "odd"
    predictive: bool = False  # a causal encoder that also predicts each token (Not in the paper)
    levels: int = 0  # values that each number of z can take (models/quantizer.py); 0: any
    tie_embeddings: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute; parameters stay float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    # Row operations (`cr_jax.models.kernels`); auto: triton in half precision on GPUs that
    # do not share a model.
    kernels: Literal["auto", "xla", "triton"] = "auto"
    remat: bool = False  # recompute each block in the backward pass: less memory, slower
    scan: bool = False  # loop over blocks instead of unrolling: faster compilation, slower


@dataclasses.dataclass(frozen=True)
class LmConfig:
    """Shape of one expert's language model (`models.lm`).  Not in the paper."""

    kind: str = "decoder"  # one of `models.lm.KINDS`
    vocab_size: int = 0  # 0: the tokenizer's, rounded up to a multiple of 128
    d_model: int = 512
    heads: int = 8  # of queries
    kv_heads: int = 0  # of keys and values, a divisor of heads (grouped queries); 0: as many
    d_ff: int = 1536
    blocks: int = 8
    tie_embeddings: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute; parameters stay float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    kernels: Literal["auto", "xla", "triton"] = "auto"
    remat: bool = False
    scan: bool = False


TransformerConfig = ModelConfig | LmConfig  # what Transformer blocks are made from


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
    # Characters per domain that a SentencePiece model is trained on, and bytes in the mean of all.
    train_bytes: int = 4_000_000


@dataclasses.dataclass(frozen=True)
class DataConfig:
    root: str = "data"  # replaces {root} in source specs
    cache: str = ""  # tokenised corpora; empty: WORKDIR/cache
    mode: Literal["packed", "padded"] = "packed"
    max_train_tokens: int = 0  # per domain, dealt by the sources' shares if they have any; 0: all
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
    # Muon's iteration between its products.  bfloat16 takes 2.9 ms less of a step of 68 ms (87 M
    # parameters on an H100) and changes training by rounding, so it is to be asked for.
    newton_schulz: Literal["float32", "bfloat16"] = "float32"


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
    predict_weight: float = 0.3  # of the predictions' loss, beside 1 for rebuilding
    short: float = 0.0  # share of windows cut to a random length (Not in the paper)
    max_epochs: float = 0.0  # an expert stops learning once it has read its text so often; 0: off
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
    calibration_documents: int = 100  # likewise, their first 16 windows; fewer than 20: unused
    alpha: float = 0.05  # a p-value below this is "unknown"
    expert_chunk: int = 4  # experts scored side by side in memory
    examples: int = 2  # sample windows per expert in the report


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The residual that routing compares (`cr_jax.scoring.residuals`).

    parts: 0 scores every token with all tokens seen (paper, routing rule).  k > 0 deals the
    window's positions at random, but always alike, into k parts and makes k passes; each hides
    `hidden` parts in turn, so that every token is scored `hidden` times, and the mean counts.
    passes: 0 makes all k passes; p > 0 makes the first p, and residuals are means over the tokens
    that these hide (`scoring.scored`): a sample of the positions, for less work.
    rate: how much of z the decoder is given, in the bottleneck's units; 0: all of it.
    predicted: score each token as the expert's own encoder predicts it from the tokens before it:
    the window's code length under that expert.  Needs model.predictive; nothing is hidden, and
    parts and passes choose the scored sample of positions as above.
    pairs: share of the expert's scout in that prediction, p = (1 - pairs) encoder + pairs scout:
    counts of token pairs (`cr_jax.scoring.bigram`) are never far off where an encoder is surprised.
    excess: weight w of what a residual exceeds the expert's own 95th percentile by; 0: plain
    residuals, the paper's rule.  Says how residuals are compared (`router.compared`), not what
    they are: `residual_rule` leaves it out.
    """

    parts: int = 0
    hidden: int = 1
    rate: int = 0
    passes: int = 0
    predicted: bool = False
    excess: float = 0.0
    pairs: float = 0.0

    @property
    def residual_rule(self) -> "Scoring":
        """What a residual is made of: the rule that calibrations and compiled scorers belong to."""
        return dataclasses.replace(self, excess=0.0) if self.excess else self


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
