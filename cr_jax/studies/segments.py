"""Study `segments`: are texts cut where their domain changes?  (The paper's fixed windows are not.)

    own test windows -> splices with known switches -> nats of each token -> spans -> metrics

Every way to cut reads the same texts and, but for fixed windows, the same decoder
(`routing.spans`), with the switch cost and the minimum that are best on splices of validation text.
Not in the paper, which names the grey zone of a window that mixes domains as its limit.
Letters: E experts, T tokens.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows, windows_of
from cr_jax.routing import spans
from cr_jax.routing.options import SegmentOptions
from cr_jax.routing.segment import token_costs
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import adaptive_windows

LENGTHS = ((32, 128), (128, 512), (512, 2048))  # tokens of a piece: from, to
TEXTS, PIECES = 6, 10  # texts of each class of lengths, and pieces of each
SWITCHES, MINIMA = (6.0, 12.0, 20.0, 30.0, 45.0, 70.0, 100.0), (8, 16, 32)
NEAR, FAR = 8, 32  # tokens within which a boundary counts as found
ONCE, KNOWN = "experts, windows read once", "known switches"
WAYS = {
    "experts": SegmentOptions(),
    ONCE: SegmentOptions(reset=False),
    "bigrams": SegmentOptions(evidence="bigrams"),
}
# Of baselines, whose costs have a scale of their own.
PEER_SWITCHES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
WINDOWS = (16, 32, 64, 128, 256)  # tokens of fixed windows
LEADS = (0.05, 0.1, 0.2, 0.4, 0.8)  # nats/token


@dataclasses.dataclass(frozen=True)
class Splice:
    """A text of pieces of several domains; owner: the place of the domain of each token."""

    ids: Int[np.ndarray, " T"]
    owner: Int[np.ndarray, " T"]


Prices = Callable[[Splice], Float[np.ndarray, "E T"]]  # what a baseline says each token costs


def splices(
    own: Mapping[str, Windows], lengths: tuple[int, int], seed: int, count: int
) -> list[Splice]:
    """Texts of `PIECES` pieces each; a piece is a stretch of one domain's consecutive windows, and
    the next one is of another domain."""
    flat = [w.tokens[w.mask] for w in own.values()]
    draw, found = np.random.default_rng([seed, *lengths]), []
    for _ in range(count):
        ids, owner, last = [], [], -1
        for _ in range(PIECES):
            e = int(draw.choice([e for e in range(len(flat)) if e != last]))
            size = min(int(draw.integers(lengths[0], lengths[1] + 1)), len(flat[e]))
            start = int(draw.integers(len(flat[e]) - size + 1))
            ids.append(flat[e][start : start + size])
            owner.append(np.full(size, e))
            last = e
        found.append(Splice(np.concatenate(ids), np.concatenate(owner)))
    return found


def fitting_texts(valid: Mapping[str, Windows], seed: int) -> list[Splice]:
    """Splices of validation text by which switch costs are chosen, of pieces of every length: a
    price that suits long pieces alone leaves short ones unfound."""
    return [t for lengths in LENGTHS for t in splices(valid, lengths, seed, TEXTS)]


def metrics(cut: Int[np.ndarray, " T"], owner: Int[np.ndarray, " T"]) -> dict[str, float]:
    """ "token_accuracy"; "boundary_f1", "boundary_f1_32" within 8 and 32 tokens; "pk", "windowdiff"
    (Beeferman et al. 1999; Pevzner and Hearst 2002), by half the mean piece; "error", the median
    distance in tokens from a boundary to the nearest one that was found."""
    said, true = (np.flatnonzero(np.diff(x)) + 1 for x in (cut, owner))
    half = max(1, round(len(owner) / (len(true) + 1) / 2))
    apart = lambda x: x[half:] != x[:-half]
    inside = lambda at: np.histogram(at, np.arange(len(owner) + 1))[0]
    within = lambda at: np.convolve(inside(at)[1:], np.ones(half, int), "valid")
    # Pieces differ at a distance of `half`: one boundary in between, or an odd pair of labels.
    place = lambda at: np.searchsorted(at, np.arange(len(owner)), side="right")
    pk = np.mean(apart(place(said)) != apart(place(true)))
    distance = [np.abs(said - b).min() if len(said) else len(owner) for b in true]
    return {
        "token_accuracy": float(np.mean(cut == owner)),
        "boundary_f1": _f1(said, true, NEAR),
        "boundary_f1_32": _f1(said, true, FAR),
        "pk": float(pk),
        "windowdiff": float(np.mean(within(said) != within(true))),
        "error": float(np.median(distance)) if distance else 0.0,
    }


def _f1(said, true, tolerance: int) -> float:
    """Each true boundary is found by at most one, the nearest that is free."""
    if not len(said) and not len(true):
        return 1.0
    free, hits = set(said.tolist()), 0
    for b in true.tolist():
        near = [x for x in free if abs(x - b) <= tolerance]
        if near:
            free.remove(min(near, key=lambda x: abs(x - b)))
            hits += 1
    return 2 * hits / (len(said) + len(true))


def decoded(cost: Float[np.ndarray, "E T"], switch: float, minimum: int) -> Int[np.ndarray, " T"]:
    """The expert of each token on the cheapest path."""
    experts = len(cost)
    path = spans.spans(cost, np.full((experts, experts), switch, np.float32), minimum)
    return np.concatenate([np.full(s.end - s.start, s.expert) for s in path])


def by_windows(
    cost: Float[np.ndarray, "E T"], window: int, lead: float = 0.0
) -> Int[np.ndarray, " T"]:
    """The paper's way: each window is its cheapest expert's.  lead: hysteresis, the nats/token by
    which another expert must be cheaper on a window than the one before it goes to."""
    found: list[int] = []
    for start in range(0, cost.shape[1], window):
        mean = cost[:, start : start + window].mean(1)
        best = int(mean.argmin())
        stays = found and mean[found[-1]] - mean[best] <= lead
        found.append(found[-1] if stays else best)
    return np.repeat(found, window)[: cost.shape[1]]


def at_known_switches(
    cost: Float[np.ndarray, "E T"], owner: Int[np.ndarray, " T"]
) -> Int[np.ndarray, " T"]:
    """The cheapest expert of each true piece: what only the names cost."""
    switches = (np.flatnonzero(np.diff(owner)) + 1).tolist()
    return cheapest(cost, [0, *switches, len(owner)])


def cheapest(cost: Float[np.ndarray, "E T"], edges: Sequence[int]) -> Int[np.ndarray, " T"]:
    """The expert of each token: the cheapest one of each piece between two edges, of which the
    first is 0 and the last T."""
    return np.concatenate(
        [np.full(b - a, cost[:, a:b].sum(1).argmin()) for a, b in itertools.pairwise(edges)]
    )


def mean_metrics(cuts: Sequence[Int[np.ndarray, " _"]], texts: Sequence[Splice]) -> dict:
    """The mean over texts."""
    each = [metrics(cut, text.owner) for cut, text in zip(cuts, texts, strict=True)]
    return {k: float(np.mean([m[k] for m in each])) for k in each[0]}


def run(
    bank: ExpertBank,
    valid: Mapping[str, Windows],
    test: Mapping[str, Windows],
    seed: int = 0,
    sizes: BatchSizes | None = None,
    peers: Mapping[str, Prices] | None = None,
) -> dict:
    """Cuts spliced texts in every way that is known here; peers: other ways to price tokens, cut by
    the same decoder.

    -> {"segments": {"splices": metrics of the experts' own cuts, of pieces of 128 tokens and more
    and "by_length"; "baselines": the same of each way; "by_window": of fixed windows by their size,
    with and without hysteresis; "chosen": switch cost and minimum; "reset_gain": F1 within 8 tokens
    that windows which begin anew add; "adaptive": what each way to choose windows rebuilds
    (`adaptive_windows.rebuilt`), on pieces of 128 to 512 tokens}}.
    """
    sizes, peers = sizes or BatchSizes.for_device(), peers or {}
    costs = functools.partial(_costs, bank, sizes)
    ways = {
        name: functools.partial(costs, options=way)
        for name, way in WAYS.items()
        if name != "bigrams" or all(e.bigram is not None for e in bank.experts)
    }
    ways |= {name: lambda texts, price=price: [*map(price, texts)] for name, price in peers.items()}
    fit = fitting_texts(valid, seed)
    priced = {name: way(fit) for name, way in ways.items()}
    chosen = {
        name: _best(cost, fit, PEER_SWITCHES if name in peers else SWITCHES)
        for name, cost in priced.items()
    }
    of_size = sorted({*WINDOWS, bank.model.window})
    leads = {size: _best_lead(priced[ONCE], fit, size) for size in of_size}
    fixed = _Fixed(bank.model.window, leads)
    table: dict[str, dict[str, dict]] = {}
    adaptive: dict[str, dict] = {}
    for lengths in LENGTHS:
        texts = splices(test, lengths, seed + 1, TEXTS)
        key = f"{lengths[0]}-{lengths[1]}"
        for name, way in ways.items():
            cost = way(texts)
            cuts = [decoded(c, *chosen[name]) for c in cost]
            table.setdefault(name, {})[key] = mean_metrics(cuts, texts)
            if name == "experts" and lengths == LENGTHS[1]:
                adaptive = adaptive_windows.rebuilt(bank, [t.ids for t in texts], cuts, sizes)
            if name == ONCE:
                for other, row in fixed.rows(cost, texts).items():
                    table.setdefault(other, {})[key] = row
    long = [f"{a}-{b}" for a, b in LENGTHS[1:]]
    both = {
        name: {k: float(np.mean([rows[key][k] for key in long])) for k in rows[long[0]]}
        for name, rows in table.items()
    }
    by_window = {
        str(size): {
            "fixed": both[fixed.name(size)],
            "hysteresis": both[fixed.name(size, True)],
            "lead": lead,
        }
        for size, lead in leads.items()
    }
    shown = [*ways, fixed.name(fixed.window), fixed.name(fixed.window, True), KNOWN]
    return {
        "segments": {
            "splices": {**both["experts"], "by_length": table["experts"]},
            "baselines": {n: {"splices": both[n], "by_length": table[n]} for n in shown},
            "by_window": by_window,
            "chosen": {n: {"switch": s, "minimum": m} for n, (s, m) in chosen.items()},
            "reset_gain": both["experts"]["boundary_f1"] - both[ONCE]["boundary_f1"],
            "adaptive": adaptive,
        }
    }


@dataclasses.dataclass(frozen=True)
class _Fixed:
    """Cuts of fixed windows, from the costs of windows that are read once."""

    window: int
    leads: Mapping[int, float]

    def name(self, size: int, hysteresis: bool = False) -> str:
        of = "" if size == self.window else f" of {size}"
        return f"fixed windows{of}{', hysteresis' * hysteresis}"

    def rows(self, costs, texts) -> dict[str, dict]:
        found = {}
        for size, lead in self.leads.items():
            cut = lambda lead, size=size: mean_metrics(
                [by_windows(c, size, lead) for c in costs], texts
            )
            found[self.name(size)] = cut(0.0)
            found[self.name(size, True)] = cut(lead)
        known = [at_known_switches(c, t.owner) for c, t in zip(costs, texts, strict=True)]
        return {**found, KNOWN: mean_metrics(known, texts)}


def _costs(bank, sizes, texts, options):
    window, pad = bank.model.window, bank.tokenizer.pad_id
    cut = lambda text: windows_of(text.ids.astype(np.int32), window, pad)
    return [token_costs(bank, cut(text), options, sizes) for text in texts]


def _best_lead(costs, texts, size) -> float:
    return max(
        LEADS,
        key=lambda lead: mean_metrics([by_windows(c, size, lead) for c in costs], texts)[
            "boundary_f1"
        ],
    )


def _best(costs, texts, switches) -> tuple[float, int]:
    """The switch cost and minimum with the highest F1 within 8 tokens; of equals the first."""

    def score(setting):
        cuts = [decoded(c, *setting) for c in costs]
        return mean_metrics(cuts, texts)["boundary_f1"]

    return max(itertools.product(switches, MINIMA), key=score)
