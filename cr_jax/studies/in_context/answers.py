"""Who answers a prompt: the expert that each way to read it names.

    whole     all tokens, in windows from the prompt's beginning: what `route` does
    carried   the query's tokens alone, in the same windows: context is carried over
    last      the last 64 tokens of the prompt (at most L), as one window of their own
    reset     the query alone, from its own first token (its place has to be known)
    segment   the last span of the cheapest path (`routing.spans`), the place found
    rebuild   as carried, by what rebuilding loses (the paper's rule), which predicts nothing
    before    what stands before the query, which is not asked

Experts are ranked by residuals alone: a typicality penalty is of whole windows, not of tokens.
Not in the paper.  Letters: E experts, N prompts, T tokens, L tokens of a window.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows, windows_of
from cr_jax.router import score_tokens
from cr_jax.routing import spans
from cr_jax.routing.options import SegmentOptions
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.in_context.prompts import Prompt

NEAR = 8  # tokens within which a cut counts as the query's beginning
LAST = 64  # tokens, where a window is longer: few enough to hold little but the query
BLOCK = 512  # windows whose tokens' scores stand in memory at once
MEANS = ("before", "whole", "carried", "last", "reset", "rebuild")
MODES = (*MEANS[1:], "segment")
REBUILT_ALONE = "rebuild_reset"


@dataclasses.dataclass(frozen=True)
class Answers:
    """means: mode -> nats/token [N, E] of the tokens that it reads, NaN where there is none;
    segment: the expert of the last span; found: whether that begins where the query does."""

    means: dict[str, Float[np.ndarray, "N E"]]
    segment: Int[np.ndarray, " N"]
    found: Bool[np.ndarray, " N"]

    def take(self, at: slice) -> "Answers":
        """Those of some of the prompts."""
        means = {mode: of[at] for mode, of in self.means.items()}
        return Answers(means, self.segment[at], self.found[at])

    def winners(self, mode: str) -> Int[np.ndarray, " N"]:
        return self.segment if mode == "segment" else self.means[mode].argmin(1)

    def flipped(self, mode: str) -> Bool[np.ndarray, " N"]:
        """Whether another expert answers than answers the query alone, ranked by the same rule."""
        alone = REBUILT_ALONE if mode == "rebuild" else "reset"
        return self.winners(mode) != self.winners(alone)

    def margin(self, mode: str, domains: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """nats/token by which a domain's own expert leads the next one, negative where it loses."""
        means, rows = self.means[mode], np.arange(len(domains))
        others = means.copy()
        others[rows, domains] = np.inf
        return others.min(1) - means[rows, domains]


def token_nats(
    bank: ExpertBank, texts: Sequence[Int[np.ndarray, " _"]], sizes: BatchSizes | None = None
) -> list[tuple[Float[np.ndarray, "E T"], Float[np.ndarray, "E T"]]]:
    """(by the bank's rule, by rebuilding) nats of each token of each text, every text in windows
    from its own first token.  Windows of many texts share a batch, and equal texts are read once.
    """
    window, pad = bank.model.window, bank.tokenizer.pad_id
    ids = [np.asarray(text, np.int32) for text in texts]
    cut = {text.tobytes(): windows_of(text, window, pad) for text in ids}
    if not cut:
        return []
    every = Windows(
        *(
            np.concatenate([getattr(w, f) for w in cut.values()])
            for f in ("tokens", "mask", "document")
        )
    )
    scored = [
        score_tokens(bank, every.take(slice(i, i + BLOCK)), sizes)
        for i in range(0, len(every), BLOCK)
    ]
    both = [np.concatenate([getattr(s, f) for s in scored], 1) for f in ("residual", "nll")]
    edges = np.cumsum([0, *map(len, cut.values())])
    found = {
        text: tuple(of[:, a:b][:, w.mask] for of in both)
        for (text, w), (a, b) in zip(cut.items(), itertools.pairwise(edges), strict=True)
    }
    return [found[text.tobytes()] for text in ids]


def answer(
    bank: ExpertBank,
    prompts: Sequence[Prompt],
    sizes: BatchSizes | None = None,
    options: SegmentOptions | None = None,
) -> Answers:
    """Scores every prompt in every way.  options: of `segment`."""
    options, window = options or SegmentOptions(), bank.model.window
    half, last_tokens = window // 2, min(window, LAST)
    parts = [[p.ids, p.query, p.ids[-last_tokens:], p.ids[half:]] for p in prompts]
    read = iter(token_nats(bank, [ids for of in parts for ids in of if len(ids)], sizes))
    nats = [[next(read) if len(ids) else None for ids in of] for of in parts]
    means: dict[str, list] = {mode: [] for mode in (*MEANS, REBUILT_ALONE)}
    ends = []
    for p, ((cost, rebuilt), (alone, rebuilt_alone), (last, _), later) in zip(
        prompts, nats, strict=True
    ):
        read_as = (cost[:, : p.start], cost, cost[:, p.start :], last, alone, rebuilt[:, p.start :])
        for mode, of in zip(means, (*read_as, rebuilt_alone), strict=True):
            empty = np.full(len(cost), np.nan)
            means[mode].append(of.mean(1, dtype=np.float64) if of.size else empty)
        cost = cost.copy()
        if later:
            cost[:, half:] = np.minimum(cost[:, half:], later[0])
        switch = np.full((len(cost),) * 2, options.switch, np.float32)
        ends.append(spans.spans(cost, switch, options.minimum)[-1])
    return Answers(
        {mode: np.stack(rows) for mode, rows in means.items()},
        np.array([end.expert for end in ends]),
        np.array([abs(p.start - end.start) <= NEAR for p, end in zip(prompts, ends, strict=True)]),
    )
