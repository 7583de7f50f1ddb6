"""Who speaks at each token, in every arm of the table; a new arm is one line of `ARMS`.

A function takes a domain's nats and the `Plan` and gives the nats of each token [N, L], or None
where what it needs was not measured.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int

from cr_jax.modular import candidates, schedule
from cr_jax.studies.modular import careful
from cr_jax.studies.modular.nats import DomainNats


@dataclasses.dataclass(frozen=True)
class Plan:
    """prefix: tokens that decide; every: tokens between decisions; often: likewise, of who follows
    a text that changes; switch: the prior of another expert at each token; most: candidates at
    most; margins: prefix -> nats/token by which bigram models leave an expert out; rules: evidence
    ("experts", "joint") -> prefix -> what is expected of each expert (`careful.fit`)."""

    prefix: int
    every: int = 64
    often: int = 16
    switch: float = 0.01
    most: int = 4
    margins: Mapping[int, float] = dataclasses.field(default_factory=dict)
    rules: Mapping[str, Mapping[int, careful.Rule]] = dataclasses.field(default_factory=dict)


Tokens = Float[np.ndarray, "N L"]
Choose = Callable[[DomainNats, Plan], Int[np.ndarray, " N"] | None]
Speak = Callable[[DomainNats, Plan], Tokens | None]


@dataclasses.dataclass(frozen=True)
class Arm:
    """models: whose cost counts (`Facts` by name); reading: how many of them score a token that is
    spoken, 0 for all; beside: models that read too, as the seed does.  choose: of an arm that
    decides once, by the first tokens.  bound: it reads what it is scored by, and no schedule can do
    it."""

    name: str
    speak: Speak
    models: str = "experts"
    reading: int = 1
    beside: int = 0
    by_prefix: bool = False
    choose: Choose | None = None
    bound: bool = False


def top1(name: str, choose: Choose, models: str = "experts") -> Arm:
    """One model of a set speaks after the prefix, the seed before."""
    return Arm(
        name, functools.partial(_chosen, choose, models), models, by_prefix=True, choose=choose
    )


def _chosen(choose: Choose, models: str, d: DomainNats, plan: Plan) -> Tokens | None:
    nll, winner = d.speakers(models), choose(d, plan)
    if nll is None or winner is None:
        return None
    said = nll[np.maximum(winner, 0), np.arange(len(winner))]
    first = np.arange(d.mask.shape[1]) < plan.prefix
    return np.where(first[None] | (winner < 0)[:, None], d.seed, said)


def by_nats(evidence: str, d: DomainNats, plan: Plan) -> Int[np.ndarray, " N"] | None:
    """The fewest nats on the prefix, by a set of models or by bigram models."""
    nll = d.bigrams if evidence == "bigrams" else d.speakers(evidence)
    if nll is None:
        return None
    counted = d.mask & ~np.isnan(nll).all(0)
    return _place(schedule.by_prefix(nll, counted, plan.prefix), plan)


def by_candidates(d: DomainNats, plan: Plan) -> Int[np.ndarray, " N"] | None:
    """Bigram models choose candidates, whose language models decide."""
    if d.bigrams is None or plan.prefix not in plan.margins:
        return None
    kept = kept_by_bigrams(d, plan).kept
    evidence = candidates.among(d.experts, kept)
    return _place(schedule.by_prefix(evidence, d.mask, plan.prefix), plan)


def by_expectation(evidence: str, d: DomainNats, plan: Plan) -> Int[np.ndarray, " N"] | None:
    """The fewest expected nats, over whose text the prefix may be."""
    rule = plan.rules.get(evidence, {}).get(plan.prefix)
    return None if rule is None else careful.chosen(d, plan.prefix, rule)


def kept_by_bigrams(d: DomainNats, plan: Plan) -> candidates.Candidates:
    """The candidates of each window, by the plan's margin."""
    margin = plan.margins[plan.prefix]
    return candidates.candidates(d.bigrams, d.mask, plan.prefix, plan.most, margin)


def by_choice(name: str, d: DomainNats, plan: Plan) -> Int[np.ndarray, " N"] | None:
    """The lowest score on the prefix."""
    scores = d.choices.get(name, {}).get(plan.prefix)
    return None if scores is None else scores.argmin(0)


def single(name: str, d: DomainNats, plan: Plan) -> Tokens | None:
    return d.seed if name == "seed" else d.singles.get(name)


def label(models: str, d: DomainNats, plan: Plan) -> Tokens | None:
    """The label's model of a set."""
    nll = d.speakers(models)
    if nll is None or d.label is None:
        return None
    return np.take_along_axis(nll, d.label[None].astype(np.int64), 0)[0]


def past(d: DomainNats, plan: Plan) -> Tokens:
    """Decided again every so many tokens, by all before."""
    decided = schedule.by_past(d.experts, d.mask, plan.every)
    return np.asarray(schedule.spoken(decided, d.experts, d.seed))


def following(evidence: str, d: DomainNats, plan: Plan) -> Tokens | None:
    """Decided often, by a posterior that expects switches; bigram models cost next to nothing."""
    nll = d.bigrams if evidence == "bigrams" else d.speakers(evidence)
    if nll is None:
        return None
    decided = schedule.by_posterior(nll, d.mask, plan.often, plan.switch)
    return np.asarray(schedule.spoken(decided, d.experts, d.seed))


def mixture(d: DomainNats, plan: Plan, best: int = 0, seed: bool = False) -> Tokens:
    """The posterior mixture; best: of so many by the prefix, after it; seed: with the seed too."""
    nll = np.concatenate([d.experts, d.seed[None]]) if seed else d.experts
    allowed = schedule.best_by_prefix(nll, d.mask, best, plan.prefix) if best else None
    return np.asarray(schedule.mixture(nll, d.mask, switch=plan.switch, allowed=allowed).nats)


def merged(d: DomainNats, plan: Plan) -> Tokens | None:
    """One model after the prefix, the mean of the experts' weights by their posterior."""
    said = d.merged.get(plan.prefix)
    if said is None:
        return None
    return np.where((np.arange(d.mask.shape[1]) < plan.prefix)[None], d.seed, said)


def best_at_each_token(d: DomainNats, plan: Plan) -> Tokens:
    return d.experts.min(0)


def best_of_window(d: DomainNats, plan: Plan) -> Tokens:
    """One expert for the window, chosen by the window itself."""
    totals = np.where(d.mask, d.experts, 0).sum(-1)
    return d.experts[totals.argmin(0), np.arange(len(d.mask))]


def best_of_segment(d: DomainNats, plan: Plan) -> Tokens | None:
    """One expert for each stretch of one kind, chosen by the stretch itself."""
    if d.segment is None:
        return None
    said = np.empty(d.mask.shape, np.float32)
    for n, numbers in enumerate(d.segment):
        for number in np.unique(numbers):
            at = numbers == number
            nll = d.experts[:, n, at]
            said[n, at] = nll[np.where(d.mask[n, at], nll, 0).sum(-1).argmin()]
    return said


def _place(decided: schedule.Schedule, plan: Plan) -> Int[np.ndarray, " N"]:
    """Who speaks from the end of the prefix on."""
    return np.asarray(decided.expert[:, plan.prefix])


def _of(function, *first, **options):
    return functools.partial(function, *first, **options)


ARMS: tuple[Arm, ...] = (
    Arm("dense", _of(single, "dense"), "dense"),
    Arm("dense_large", _of(single, "dense_large"), "dense_large"),
    Arm("seed", _of(single, "seed"), "seed"),
    Arm("label", _of(label, "experts")),
    Arm("label_noise", _of(label, "noise"), "noise"),
    Arm("label_encoder", _of(label, "code_length"), "compressors"),
    top1("top1", _of(by_nats, "experts")),
    top1("top1_expected", _of(by_expectation, "experts")),
    top1("top1_joint", _of(by_expectation, "joint")),
    top1("top1_code_length", _of(by_nats, "code_length")),
    top1("top1_bigrams", _of(by_nats, "bigrams")),
    top1("top1_candidates", by_candidates),
    top1("top1_rebuilding", _of(by_choice, "rebuilding")),
    top1("gate", _of(by_choice, "gate")),
    Arm("merged", merged, by_prefix=True),
    Arm("past", past),
    Arm("following", _of(following, "experts")),
    Arm("following_bigrams", _of(following, "bigrams")),
    Arm("mixture", mixture, reading=0),
    Arm("mixture_2", _of(mixture, best=2), reading=2, by_prefix=True),
    Arm("mixture_4", _of(mixture, best=4), reading=4, by_prefix=True),
    Arm("mixture_seed", _of(mixture, seed=True), reading=0, beside=1),
    Arm("oracle_segment", best_of_segment, bound=True),
    Arm("oracle_window", best_of_window, bound=True),
    Arm("oracle_token", best_at_each_token, bound=True),
)


def all_arms(sets: Iterable[str]) -> tuple[Arm, ...]:
    """`ARMS`, and for each set of models without labels, "random_split" or "partition_8", the one
    with the fewest nats on the prefix."""
    return (*ARMS, *(top1(name, _of(by_nats, name), name) for name in sets))
