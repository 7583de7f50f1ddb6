"""Who answers a prompt: the expert that each way to read it names.

    whole     all tokens, in windows from the prompt's beginning: what `route` does
    carried   the query's tokens alone, in the same windows: context is carried over
    last      the last L tokens of the prompt, as one window of their own
    reset     the query alone, from its own first token (its place has to be known)
    segment   the last span of the cheapest path (`routing.spans`), the place found
    rebuild   as carried, by what rebuilding loses (the paper's rule), which predicts nothing

Not in the paper.  Letters: E experts, N prompts, T tokens, L tokens of a window.
"""

import dataclasses
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
BLOCK = 512  # windows whose tokens' scores stand in memory at once
MODES = ("whole", "carried", "last", "reset", "segment", "rebuild")
REBUILT_ALONE = "rebuild_reset"


@dataclasses.dataclass(frozen=True)
class Answers:
    """means: mode -> nats/token [N, E] of the tokens that it reads; segment: the expert of the last
    span; found: whether that span begins where the query does."""

    means: dict[str, Float[np.ndarray, "N E"]]
    segment: Int[np.ndarray, " N"]
    found: Bool[np.ndarray, " N"]

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
    from its own first token.  Windows of many texts share a batch."""
    window, pad = bank.model.window, bank.tokenizer.pad_id
    cut = [windows_of(np.asarray(ids, np.int32), window, pad) for ids in texts]
    if not cut:
        return []
    every = Windows(
        *(np.concatenate([getattr(w, f) for w in cut]) for f in ("tokens", "mask", "document"))
    )
    scored = [
        score_tokens(bank, every.take(slice(i, i + BLOCK)), sizes)
        for i in range(0, len(every), BLOCK)
    ]
    both = [np.concatenate([getattr(s, f) for s in scored], 1) for f in ("residual", "nll")]
    edges = np.cumsum([0, *map(len, cut)])
    return [
        tuple(of[:, a:b][:, w.mask] for of in both)
        for w, a, b in zip(cut, edges[:-1], edges[1:], strict=True)
    ]


def answer(
    bank: ExpertBank,
    prompts: Sequence[Prompt],
    sizes: BatchSizes | None = None,
    options: SegmentOptions | None = None,
) -> Answers:
    """Scores every prompt in every way.  options: of `segment`."""
    options, window = options or SegmentOptions(), bank.model.window
    half = window // 2
    read = lambda texts: token_nats(bank, texts, sizes)
    as_cut = read([p.ids for p in prompts])
    alone = read([p.query for p in prompts])
    last = read([p.ids[-window:] for p in prompts])
    long = [i for i, p in enumerate(prompts) if len(p.ids) > half]
    later = dict(zip(long, read([prompts[i].ids[half:] for i in long]), strict=True))
    mean = lambda parts: np.stack([x.mean(1, dtype=np.float64) for x in parts])
    starts = [p.start for p in prompts]
    paths = []
    for i, (cost, _) in enumerate(as_cut):
        cost = cost.copy()
        if i in later:
            cost[:, half:] = np.minimum(cost[:, half:], later[i][0])
        switch = np.full((len(cost),) * 2, options.switch, np.float32)
        paths.append(spans.spans(cost, switch, options.minimum)[-1])
    return Answers(
        {
            "whole": mean([c for c, _ in as_cut]),
            "carried": mean([c[:, s:] for (c, _), s in zip(as_cut, starts, strict=True)]),
            "last": mean([c for c, _ in last]),
            "reset": mean([c for c, _ in alone]),
            "rebuild": mean([r[:, s:] for (_, r), s in zip(as_cut, starts, strict=True)]),
            REBUILT_ALONE: mean([r for _, r in alone]),
        },
        np.array([path.expert for path in paths]),
        np.array([abs(p.start - s) <= NEAR for (p, s) in zip(paths, starts, strict=True)]),
    )
