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
    d_model: int = 512  # width of the states
    d_latent: int = 512  # numbers of a latent
    heads: int = 8  # of attention; their width d_model / heads must be even
    d_ff: int = 1536  # width of the gated feed-forward layers
    encoder_blocks: int = 5
    decoder_blocks: int = 5
    bottleneck: str = "query"  # between encoder and decoder: a name in models/bottlenecks
    fold_channels: int = 64  # width per token into and out of `fold` and `fourier_query`
    # Of `query`; False: plain latent queries, the control.  The next three matter to True only.
    rotary_values: bool = True
    positional_bias: Literal["learned", "fixed", "none"] = "learned"
    value_start: Literal["transform", "random"] = "transform"  # of the value matrices
    value_frequencies: Literal["odd", "rope", "learned"] = "odd"
    predictive: bool = False  # a causal encoder that also predicts each token (Not in the paper)
    levels: int = 0  # values that each number of z can take (models/quantizer.py); 0: any
    tie_embeddings: bool = False  # the vocabulary matrix is the transposed embedding
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute; parameters stay float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"  # auto: cudnn in half precision on GPUs
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
    d_model: int = 512  # width of the states
    heads: int = 8  # of queries
    kv_heads: int = 0  # of keys and values, a divisor of heads (grouped queries); 0: as many
    d_ff: int = 1536  # width of the gated feed-forward layers
    blocks: int = 8  # of attention and feed-forward layers
    tie_embeddings: bool = False  # the vocabulary matrix is the transposed embedding
    # Every kind but `decoder`; layer_norm: with biases, as TLinFormer's paper (models/lm/layer.py).
    style: Literal["rms", "layer_norm"] = "rms"
    # Of the kinds that keep compressed positions: tokens of the window that is being written, and
    # as many compressed positions.  `sliding` sees twice as many; 0: its whole past.
    chunk: int = 256
    stages: int = 1  # times that these compress: blocks / stages layers each
    sinks: int = 4  # first positions that `sliding` always sees
    # Tokens that it reads at once where nobody asks for another number: its rotary positions know
    # no places beyond those of its training.  0: config.modular.window.
    window: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute; parameters stay float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"  # auto: cudnn in half precision on GPUs
    kernels: Literal["auto", "xla", "triton"] = "auto"  # row operations, as of the compressor
    remat: bool = False  # recompute each block in the backward pass: less memory, slower
    scan: bool = False  # loop over blocks instead of unrolling: faster compilation, slower


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
    # sentencepiece is trained; huggingface: any lossless tokenizer.json, in `folder`.
    kind: Literal["sentencepiece", "gpt2", "bytes", "huggingface"] = "sentencepiece"
    vocab_size: int = 2048  # sentencepiece only
    # Load from here instead of training; gpt2: holds encoder.json and vocab.bpe, or vocab.json and
    # merges.txt.
    folder: str = ""
    # Characters per domain that a SentencePiece model is trained on, and bytes in the mean of all.
    train_bytes: int = 4_000_000


@dataclasses.dataclass(frozen=True)
class DataConfig:
    root: str = "data"  # replaces {root} in source specs
    cache: str = ""  # tokenised corpora; empty: WORKDIR/cache
    tokens: str = ""  # a folder of `cr-jax tokenize`, read in place of the text; empty: the text
    mode: Literal["packed", "padded"] = "packed"  # padded: no window crosses a document
    # Of a line of JSON or of a text file, which are held in memory whole.
    max_document_bytes: int = 1 << 27
    # What tokens are made of: text with LF and in NFC, or as it is (cr_jax.data.text_form).
    text_form: Literal["lf_nfc", "raw"] = "lf_nfc"
    group_key: str = ""  # what @train, @valid, @test keep together; empty: repo, url, path, ...
    count_overlap: bool = True  # of held-out with training text; 10 s for 140 M tokens
    max_train_tokens: int = 0  # per domain, dealt by the sources' shares if they have any; 0: all
    # NAME.train, NAME.valid and NAME.test: lists of source specs; one expert each.
    domains: Mapping[str, DomainConfig] = dataclasses.field(default_factory=dict)
    unseen: Mapping[str, DomainConfig] = dataclasses.field(default_factory=dict)  # test only


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Muon for the matrices inside blocks, AdamW for everything else."""

    name: Literal["muon", "adamw"] = "muon"  # adamw: for all parameters
    muon_learning_rate: float = 0.02
    learning_rate: float = 1e-3  # AdamW's
    b1: float = 0.9  # decay of AdamW's first moment
    b2: float = 0.95  # of its second
    weight_decay: float = 0.0  # of both, decoupled
    schedule: Literal["cosine", "linear", "constant"] = "linear"  # of the cool-down
    warmup: float = 0.02  # share of the run
    cooldown: float = 1.0  # share of the run over which the rate falls, after the warm-up
    final: float = 0.0  # share of the peak rate left at the end
    clip: float = 1.0  # global gradient norm; 0: off
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"  # of the first moments
    # Muon's iteration between its products.  bfloat16 takes 2.9 ms less of a step of 68 ms (87 M
    # parameters on an H100) and changes training by rounding, so it is to be asked for.
    newton_schulz: Literal["float32", "bfloat16"] = "float32"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    batch: int = 64  # windows per expert and step, over all devices
    steps: int = 0  # give exactly one of steps, tokens (per expert), seconds
    tokens: int = 0  # per expert
    seconds: float = 0.0  # of steps: compilation, validation and checkpoints do not count
    accumulate: int = 1  # micro-batches per step
    # Tokens whose logits stand in memory at once: of a device, and of each of the experts that it
    # runs side by side (experts_by="vmap"): n experts hold n times as many.
    loss_chunk: int = 8192
    # Ids that a compressor's training step normalises over: those of the batch, filled up at random
    # (sampled softmax, arXiv 1412.2007).  A multiple of 128 suits GPUs.  0: the whole vocabulary.
    vocab_sample: int = 0
    nested: float = 0.0  # share of windows trained at a random lower rate (Not in the paper)
    hidden: float = 0.0  # share of windows with hidden input tokens (Not in the paper)
    hidden_low: float = 0.1  # share of such a window's tokens: between low and high
    hidden_high: float = 0.5  # likewise
    predict_weight: float = 0.3  # of the predictions' loss, beside 1 for rebuilding
    short: float = 0.0  # share of windows cut to a random length (Not in the paper)
    # Share of a compressor's training tokens that give way to tokens of other places of the batch,
    # which are then to be rebuilt (Not in the paper).
    replaced: float = 0.0
    # An expert stops learning once it has read its text so often, padding not counted; 0: off.
    max_epochs: float = 0.0
    experts_by: Literal["vmap", "map"] = "vmap"  # how a device runs the experts it holds
    log_every: int = 20  # steps
    wandb: str = ""  # project of Weights & Biases that is told what is logged (extra wandb)
    checkpoint_every: float = 60.0  # seconds of steps
    keep_checkpoints: int = 2  # the newest ones
    profile: str = ""  # "A:B": profiler trace of the steps after A up to B, in WORKDIR/trace
    watchdog: float = 1800.0  # seconds without a finished step until it says so; 0: never


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    batch: int = 64  # windows scored at once, on each device
    windows: int = 512  # test windows per domain; 0: all
    calibration_windows: int = 512  # of each expert's own valid split
    calibration_documents: int = 100  # likewise, their first 16 windows; fewer than 20: unused
    alpha: float = 0.05  # a p-value below this is "unknown"
    expert_chunk: int = 4  # experts scored side by side in memory
    examples: int = 2  # sample windows per expert in the report
    every: str = ""  # validation while training: "200 steps", "2e6 tokens", "10 seconds"; "": never
    every_windows: int = 512  # windows of each expert for that, at most its calibration windows
    keep_best: bool = True  # keep the checkpoint of the step with the lowest loss on valid too
    target_tra: float = 0.0  # note the seconds of steps until this TRA on valid; 0: none


@dataclasses.dataclass(frozen=True)
class BranchConfig:
    """How one domain's branch, or the branches of one try, differ from the others; -1: not."""

    share: float = -1.0
    rate: float = -1.0
    tokens: int = -1
    batch: int = -1  # of a try alone: the branches of one domain are trained beside the others


@dataclasses.dataclass(frozen=True)
class ModularConfig:
    """A language model for every expert: a seed on all domains, then one branch of it per domain.

    Branch-Train-Merge (arXiv 2208.03306).  Not in the paper.
    """

    seed_tokens: int = 0  # that the seed is trained on; 0: the run trains no language models
    branch_tokens: int = 0  # that each branch is trained on
    window: int = 512  # tokens of a training window
    seed_batch: int = 128  # windows per step of one model on all domains
    branch_batch: int = 16  # windows per step of each of several models
    share: float = 0.0  # of a branch's rows that come from all domains, each equally often
    rate: float = 1.0  # of a branch at its start, relative to the seed's
    domains: Mapping[str, BranchConfig] = dataclasses.field(default_factory=dict)  # what differs
    # Ways to train the branches, by name.  Each is tried; an expert is its domain's branch of the
    # try with the lowest loss on valid.  Empty: one way, as above.
    tries: Mapping[str, BranchConfig] = dataclasses.field(default_factory=dict)
    # Shares of the mean of several branches that each expert's weights may take on; valid chooses
    # among them and the branch alone (cr_jax/modular/averages.py).  Empty: the branches alone.
    averages: tuple[float, ...] = ()
    looks: int = 8  # at valid, evenly spread over each training; 0: none
    keep_best: bool = True  # of each model the weights of its best look, also the one at its start
    # Trained to compare: dense, dense_large, noise, random_split, partition_K (K parts of the
    # unlabelled text, by code length).
    arms: tuple[str, ...] = ()
    seed_from: str = ""  # WORKDIR/lm/seed of another run, in place of training a seed


# Of `ContinualConfig`: trained in the order in which domains come, or choosing among the experts.
RIVALS = (
    *("sequential", "replay", "ewc", "joint"),
    *("gate_new", "gate_replay", "gate_all", "gaussian", "mixture", "ngrams"),
)


@dataclasses.dataclass(frozen=True)
class ContinualConfig:
    """What the study `continual` compares a growing bank with.  Not in the paper."""

    # Methods to train beside the bank: sequential, replay, ewc, joint, gate_new, gate_replay,
    # gate_all, gaussian, mixture, ngrams; a compressor takes as long as all experts together.
    rivals: tuple[str, ...] = ()
    # In which the domains arrive at the rivals.
    order: Literal["near", "far", "random_0", "random_1", "random_2"] = "random_0"
    replay_windows: int = 512  # stored windows of all domains together
    replay_share: float = 0.5  # of a batch's rows that come from them
    ewc_weight: float = 1.0  # of its penalty; 1: an old domain weighs as a new one


@dataclasses.dataclass(frozen=True)
class Scoring:
    """The residual that routing compares (`cr_jax.scoring.residuals`).

    parts: 0 scores every token with all tokens seen (paper, routing rule).  k > 0 deals the
    window's positions at random, but always alike, into k parts and makes k passes; each hides
    `hidden` parts in turn, so that every token is scored `hidden` times, and the mean counts.
    rate: how much of z the decoder is given, in the bottleneck's units; 0: all of it.
    predicted: score each token as the expert's own encoder predicts it from the tokens before it:
    the window's code length under that expert.  Needs model.predictive, and hides nothing.
    bigram_weight: share w of the expert's bigram model in that prediction,
    p = (1 - w) p_encoder + w p_bigram.  Counts (`cr_jax.scoring.bigram`) help where the encoder is
    surprised.
    typicality_weight: weight w of the typicality penalty, w * max(0, residual - the expert's own
    95th percentile); 0: plain residuals, the paper's rule.  It belongs to the ranking
    (`routing.ranking`) and not to the residual: `residual_rule` leaves it out.
    """

    parts: int = 0
    hidden: int = 1
    rate: int = 0
    predicted: bool = False
    typicality_weight: float = 0.0
    bigram_weight: float = 0.0

    @property
    def residual_rule(self) -> "Scoring":
        """What a residual is made of: the rule that calibrations and compiled scorers belong to."""
        return dataclasses.replace(self, typicality_weight=0.0) if self.typicality_weight else self


SEEN = Scoring()  # the paper's rule


@dataclasses.dataclass(frozen=True)
class Experiment:
    name: str = "experiment"  # in the report and the bank
    seed: int = 0  # of weights, batches and evaluation windows
    parallel: Literal["jit", "pmap"] = "jit"  # how a step is mapped over devices (parallel/plan.py)
    mesh_expert: int = 1  # devices along the expert axis
    mesh_fsdp: int = 1  # devices that share one copy of the state; the rest go to the data axis
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    scoring: Scoring = SEEN
    lm: LmConfig = LmConfig()
    lm_large: LmConfig = LmConfig()  # of the arm dense_large
    lm_optimizer: OptimizerConfig = OptimizerConfig()
    modular: ModularConfig = ModularConfig()
    continual: ContinualConfig = ContinualConfig()
    bank_dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # of the stored experts
    studies: tuple[str, ...] = ("fingerprint", "routing", "geometry")  # names in studies/registry
