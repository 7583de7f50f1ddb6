"""What the page shows of texts that are cut: F1 by the length of pieces, the residual around a
switch by fixed windows and by spans, and one text with its spans.

Part of the study `segments`.  Not in the paper, whose fixed windows they show beside spans.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from cr_jax.bank import ExpertBank, selected
from cr_jax.data.windows import Windows, windows_of
from cr_jax.router import score_tokens
from cr_jax.routing.options import SegmentOptions
from cr_jax.routing.segment import segments as cut_up
from cr_jax.routing.segment import token_costs
from cr_jax.routing.segment_view import SegmentView
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import segments
from cr_jax.studies.segments import ONCE, WAYS, Splice

LENGTHS = ((32, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048))
AROUND = 96  # tokens on each side of a switch
FIXED = "fixed windows"


def curves(
    bank: ExpertBank,
    test: Mapping[str, Windows],
    chosen: Mapping[str, dict],
    seed: int,
    sizes: BatchSizes | None = None,
) -> dict:
    """{"f1": {"tokens": [mean length], way: [F1 within 8 tokens]}, "at_switch": {"token": [...],
    way: [nats/token]}}; chosen: the study's settings.

    "at_switch" is empty where no text has so many tokens on both sides of a switch.
    """
    sizes, window = sizes or BatchSizes.for_device(), bank.model.window
    setting = {n: (c["switch"], c["minimum"]) for n, c in chosen.items() if n in WAYS}
    f1: dict[str, list[float]] = {n: [] for n in (*setting, FIXED)}
    around = []
    for lengths in LENGTHS:
        texts = segments.splices(test, lengths, seed + 2, segments.TEXTS)
        costs = {n: [_costs(bank, t.ids, WAYS[n], sizes) for t in texts] for n in setting}
        cuts = {n: [segments.decoded(c, *setting[n]) for c in costs[n]] for n in setting}
        cuts[FIXED] = [segments.by_windows(c, window) for c in costs[ONCE]]
        for name, cut in cuts.items():
            f1[name].append(segments.mean_metrics(cut, texts)["boundary_f1"])
        if lengths[0] > AROUND:
            fixed = [np.take_along_axis(c, x[None], 0)[0] for c, x in zip(costs[ONCE], cuts[FIXED])]
            anew = [encoded_anew(bank, t.ids, x, sizes) for t, x in zip(texts, cuts["experts"])]
            pair = [at_switches(nats, texts) for nats in (fixed, anew)]
            around += [pair] if len(pair[0]) else []
    at: dict[str, list] = {}
    if around:
        fixed, spans = np.mean(around, 0).tolist()
        at = {"token": [*range(-AROUND, AROUND)], FIXED: fixed, "spans": spans}
    return {"f1": {"tokens": [(a + b) / 2 for a, b in LENGTHS], **f1}, "at_switch": at}


def encoded_anew(bank: ExpertBank, ids, who, sizes: BatchSizes) -> np.ndarray:
    """nats of each token by the expert of its span, in windows that begin where the span does."""
    nats, edges = np.zeros(len(ids)), [0, *(np.flatnonzero(np.diff(who)) + 1), len(ids)]
    window, pad = bank.model.window, bank.tokenizer.pad_id
    for e in np.unique(who):
        at = [(a, b) for a, b in itertools.pairwise(edges) if who[a] == e]
        cut = [windows_of(ids[a:b].astype(np.int32), window, pad) for a, b in at]
        joined = Windows(*(np.concatenate(x) for x in zip(*map(_fields, cut))))
        one = selected(bank, np.array([e]))
        found = score_tokens(one, joined, sizes, seen=False).residual[0, joined.mask]
        nats[np.concatenate([np.arange(a, b) for a, b in at])] = found
    return nats


def at_switches(nats: Sequence[np.ndarray], texts: Sequence[Splice]) -> np.ndarray:
    """The mean over known switches of the nats of each of `AROUND` tokens before and after;
    [0] where no switch has so many on both sides."""
    found = []
    for x, text in zip(nats, texts, strict=True):
        for switch in np.flatnonzero(np.diff(text.owner)) + 1:
            if AROUND <= switch <= len(x) - AROUND:
                found.append(x[switch - AROUND : switch + AROUND])
    return np.mean(found, 0) if found else np.zeros(0)


def one_text(
    bank: ExpertBank,
    test: Mapping[str, Windows],
    chosen: Mapping[str, dict],
    seed: int,
    sizes: BatchSizes | None = None,
) -> dict:
    """A spliced text of pieces of 128 to 512 tokens as `SegmentView.stored` has it, cut by the
    experts with the study's setting, `chosen`."""
    ids = segments.splices(test, segments.LENGTHS[1], seed + 1, 1)[0].ids
    text = bank.tokenizer.to_bytes(ids).decode("utf-8", "replace")
    view = SegmentView(bank.tokenizer)
    options = SegmentOptions(**chosen["experts"])
    for _ in view.watch(cut_up(bank, text, options, sizes, view.read)):
        pass
    return view.stored()


def _fields(w: Windows):
    return w.tokens, w.mask, w.document


def _costs(bank, ids, options, sizes):
    cut = windows_of(ids.astype(np.int32), bank.model.window, bank.tokenizer.pad_id)
    return token_costs(bank, cut, options, sizes)
