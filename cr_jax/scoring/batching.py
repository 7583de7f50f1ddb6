"""Any number of windows and experts -> programs of few shapes, which are compiled once.

Letters: E experts, B windows, L tokens per window.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from cr_jax import models
from cr_jax.config import EvalConfig, ModelConfig, Scoring, check_scoring
from cr_jax.config.numbers import whole_number
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.host import memory
from cr_jax.models.layers import attention_kernel


@dataclasses.dataclass(frozen=True)
class BatchSizes:
    """How much is computed at once.  They change speed and memory, results by rounding only.

    experts: scored side by side; windows: in one call of a compiled program, on each device;
    tokens: whose logits stand in memory at once, over all experts side by side; devices: of this
    process, over which many windows are dealt; processes: of this run, over which they are dealt
    first: each then makes the same calls on the same windows; fsdp: devices of this process over
    which each copy of the weights is split, for experts that one cannot hold.  The defaults suit a
    GPU.  `UserError` unless each is a whole number of at least 1.
    """

    experts: int = 4
    windows: int = 64
    tokens: int = 8192
    devices: int = 1
    processes: int = 1
    fsdp: int = 1

    def __post_init__(self):
        for name, size in vars(self).items():
            if not whole_number(size) or size < 1:
                raise UserError(
                    f"BatchSizes.{name} must be a whole number of at least 1, got {size!r}"
                )

    @classmethod
    def for_device(cls) -> "BatchSizes":
        """What suits the devices that JAX computes on.

        A CPU gains nothing from more and repeats more to fill the last batch, and logits of few
        tokens stay in its caches: half the time of 8,192 tokens with a vocabulary of 4,096.
        """
        on_cpu = jax.default_backend() == "cpu"
        return cls(1, 16, 256) if on_cpu else cls(devices=local_accelerators())

    @classmethod
    def of(cls, settings: EvalConfig, fsdp: int = 1) -> "BatchSizes":
        """What a run's settings ask for, on all accelerators of this process; fsdp: devices that
        share a copy of the weights while they are trained, of which as many of this process do."""
        there = local_accelerators()
        return cls(settings.expert_chunk, settings.batch, devices=there, fsdp=math.gcd(fsdp, there))

    def over_processes(self) -> "BatchSizes":
        """The same, dealt over all processes of the run."""
        return dataclasses.replace(self, processes=jax.process_count())

    def rows(self, count: int) -> int:
        """Windows in one call for a text of `count`: `windows`, or for fewer the next power of
        four.  A short text does not pay for a full batch, and four shapes serve every text."""
        rows = 1
        while rows < min(count, self.windows):
            rows *= 4
        return min(rows, self.windows)

    def groups(self, experts: int) -> tuple[int, int]:
        """(experts of a group, tokens of each whose logits stand in memory at once), where so many
        are dealt evenly into groups of at most `self.experts`."""
        side_by_side = -(-experts // -(-experts // self.experts))
        return side_by_side, max(1, self.tokens // side_by_side)


def local_accelerators() -> int:
    """Devices of this process that windows can be dealt over; 1 on a CPU, whose cores are one."""
    return 1 if jax.default_backend() == "cpu" else jax.local_device_count()


def in_batches(
    score: Callable[[Any, Any], Any], windows: Windows, rows: int, axis: int = -1
) -> Any:
    """score(tokens [rows, L], mask) -> arrays with the windows on `axis`; of all windows, numpy.

    The last batch is filled by repeating its last window (one without tokens would have nothing
    to attend to); what is computed of the filling is cut off.
    """
    return start_batches(score, windows, rows, axis)()


def start_batches(
    score: Callable[[Any, Any], Any], windows: Windows, rows: int, axis: int = -1
) -> Callable[[], Any]:
    """`in_batches` that does not wait for the device: what it gives back, called, does."""
    results, count = [], len(windows.tokens)
    for start in range(0, count, rows):
        fill = ((0, max(0, start + rows - count)), (0, 0))
        tokens, mask = (
            np.pad(np.asarray(x[start : start + rows], kind), fill, "edge")
            for x, kind in ((windows.tokens, np.int32), (windows.mask, bool))
        )
        results.append(score(tokens, mask))

    def join(*arrays):
        whole = np.concatenate([np.asarray(x) for x in arrays], axis)
        at = [slice(None)] * whole.ndim
        at[axis] = slice(count)  # only the last batch has filling
        return whole[tuple(at)]

    def read():
        if count:
            return jax.tree.map(join, *results)
        one = jax.ShapeDtypeStruct((rows, *windows.tokens.shape[1:]), np.int32)
        shapes = jax.eval_shape(score, one, jax.ShapeDtypeStruct(one.shape, bool))
        return jax.tree.map(lambda x: join(np.zeros(x.shape, x.dtype)), shapes)

    return read


def looped(model: ModelConfig) -> ModelConfig:
    """The model whose program is made ready sooner: on a CPU blocks are one loop, which compiles in
    a fifth less time, of two blocks, and runs as fast.  Parameters are the same."""
    return dataclasses.replace(model, scan=True) if jax.default_backend() == "cpu" else model


def unmapped(one: Callable[..., Any]) -> Callable[..., Any]:
    """What scores one expert, with an axis of one expert in its arguments and results.

    `vmap` over one would do; but a product with an axis of one expert is not the product without it
    to XLA on a CPU, and a call takes a fifth longer.
    """
    first = functools.partial(jax.tree.map, lambda x: x[0])
    return lambda *of_one: jax.tree.map(lambda x: x[None], one(*map(first, of_one)))


def in_groups(
    score: Callable[[Any, Any], Any], params: Any, mask: Bool[Any, "B L"], side_by_side: int
) -> Any:
    """score(params of S experts, mask [S, B, L]) -> arrays [S, ...]; of all experts [E, ...].

    Groups of `side_by_side` experts are scored one after another (`lax.map`), and the last group
    is filled by repeating an expert.  Every expert gets the mask on its own axis: JAX's batching of
    cuDNN attention takes queries and lengths only with the same leading axes.
    """
    experts = jax.tree.leaves(params)[0].shape[0]
    masks = jnp.broadcast_to(mask, (side_by_side, *mask.shape))
    groups = -(-experts // side_by_side)
    if groups == 1:
        return score(params, masks)

    def deal(x):
        fill = side_by_side * groups - experts
        x = jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)]) if fill else x
        # Group g holds experts g, g + groups, ...: with the expert axis split over devices, each
        # device then works on its own experts in every group.
        return x.reshape(side_by_side, groups, *x.shape[1:])

    def one_group(g):
        group = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, g, 1, False), dealt)
        return score(group, masks)

    def join(x):
        return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])[:experts]

    dealt = jax.tree.map(deal, params)
    return jax.tree.map(join, jax.lax.map(one_group, jnp.arange(groups)))


def check_windows(model: ModelConfig, windows: Windows) -> None:
    """`UserError` unless experts of this model can read such windows."""
    tokens, mask = np.asarray(windows.tokens), np.asarray(windows.mask)
    if tokens.shape[1:] != (model.window,) or mask.shape != tokens.shape:
        raise UserError(
            f"windows of shape {tokens.shape} do not fit a bank whose experts read "
            f"{model.window} tokens: cut the text with window={model.window}"
        )
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < model.vocab_size:
        raise UserError(
            f"token ids must lie in [0, {model.vocab_size}): cut the text with the "
            "bank's own tokenizer"
        )


def check_bank(bank: Any) -> None:
    """`UserError` when the bank has no experts."""
    if not bank.names:
        raise UserError("the bank has no experts: train or add one first")


def least_bytes(model: ModelConfig, experts: int = 1, tokens: int = 1) -> int:
    """Less than it takes to score one window by so many experts side by side, with the logits of so
    many tokens of each in memory."""
    states = 2 * model.window * (model.d_model + model.d_ff)
    logits = min(tokens, model.window) * model.vocab_size
    blocks = model.encoder_blocks + model.decoder_blocks
    whole = bool(blocks) and attention_kernel(model) == "xla"
    attention = model.heads * model.window * (model.window if whole else model.latents)
    return 4 * experts * max(states, logits, attention)


@functools.lru_cache
def _check_memory(model: ModelConfig, experts: int, tokens: int) -> None:
    stats = jax.local_devices()[0].memory_stats() or {}
    memory.check(
        least_bytes(model, experts, tokens),
        f"scoring a window of {model.window:,} tokens by {experts} "
        f"{'expert' if experts == 1 else 'experts'} at once",
        "take a bank of shorter windows or smaller experts, or lower BatchSizes",
        stats.get("bytes_limit"),
    )


def checked(
    bank: Any, windows: Windows, sizes: BatchSizes | None = None, rule: Scoring | None = None
) -> tuple[BatchSizes, Scoring]:
    """(sizes, the rule of a residual), by default the device's and the bank's.  `UserError` unless
    the bank's experts can score such windows by that rule."""
    sizes, rule = sizes or BatchSizes.for_device(), (rule or bank.scoring).residual_rule
    check_bank(bank)
    _check_memory(bank.model, *sizes.groups(len(bank.names)))
    check_windows(bank.model, windows)
    check_scoring(rule, bank.model)
    models.check_bottleneck(bank.model, rule.rate)
    return sizes, rule
