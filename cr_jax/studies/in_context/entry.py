"""Study `in_context`: may the residual be trusted inside a prompt?

(a) nats and margin by the place of a token in its window; (b) the same query after k blocks of
another domain; (c) text that is repeated, and text that quotes another domain; (d) a question in
prose with its answer in code; (e) rebuilding beside each, which predicts nothing.  Then which part
of a prompt a route should read, chosen on valid and reported on test.  Not in the paper.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing.options import SegmentOptions
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.in_context import figures, prompts
from cr_jax.studies.in_context.answers import answer
from cr_jax.studies.in_context.positions import by_position
from cr_jax.studies.in_context.prompts import Range
from cr_jax.studies.interface import Section, Study

KS, TIMES = (0, 1, 2, 4), (1, 2, 4)
INSTRUCTIONS = ("docstring", "other_domain")  # where an answer's question is from
FEWEST = 8  # instructions, below which their figures say nothing
RULE_SEED = 100  # the rule is measured on prompts of its own


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many prompts of each kind, windows of a domain for positions, and tokens of the parts."""

    prompts: int = 60
    windows: int = 32
    query: Range = (64, 64)
    block: Range = (32, 96)  # 64 in the mean, so that the query begins anywhere in a window
    part: Range = (32, 128)  # of texts whose query has any length
    segment: SegmentOptions = dataclasses.field(default_factory=SegmentOptions)


def measure(
    bank: ExpertBank,
    valid: Mapping[str, Windows],
    test: Mapping[str, Windows],
    plan: Plan | None = None,
    seed: int = 0,
    sizes: BatchSizes | None = None,
) -> dict:
    """-> {"by_position": `positions.by_position`; "k_shot_flips": k -> `figures.by_mode` of queries
    of `plan.query` tokens; "k_shot_inside": the same of an eighth of a window each, all in one
    window; "repeats": n -> `figures.repeated` of an eighth of a window; "quotes":
    `figures.by_mode`; "instructions": where the question is from -> `figures.asked` ({} where no
    domain has functions with docstrings); "rule": `figures.choose`; "plan"}.

    valid, test: windows of the experts' own domains, in their order.  `UserError` as `by_position`.
    """
    plan, piece = plan or Plan(), max(1, bank.model.window // 8)
    few = {n: w.spread(plan.windows) for n, w in test.items()}
    for_rivals = {n: w.spread(max(1, plan.windows // 4)) for n, w in valid.items()}
    found: dict[str, Any] = {"by_position": by_position(bank, for_rivals, few, sizes, seed)}
    ask = lambda sets: _asked(bank, sets, sizes, plan.segment)
    shots = prompts.shots(test, KS, plan.block, plan.query, plan.prompts, seed)
    found["k_shot_flips"] = {str(k): figures.by_mode(*of) for k, of in ask(shots).items()}
    one = (piece, piece)
    inside = prompts.shots(test, KS, one, one, 2 * plan.prompts, seed)
    found["k_shot_inside"] = {str(k): figures.by_mode(*of) for k, of in ask(inside).items()}
    again = prompts.repeats(test, TIMES, piece, 2 * plan.prompts, seed)
    found["repeats"] = {str(n): figures.repeated(*of) for n, of in ask(again).items()}
    sets = {
        split: ask(kinds(bank, own, plan, seed + RULE_SEED))
        for split, own in (("valid", valid), ("test", test))
    }
    found["quotes"] = figures.by_mode(*sets["test"]["quotes"])
    found["instructions"] = {
        kind: figures.asked(*sets["test"][kind]) for kind in INSTRUCTIONS if kind in sets["test"]
    }
    shared = sets["valid"].keys() & sets["test"].keys()
    valid_sets, test_sets = ({k: v for k, v in s.items() if k in shared} for s in sets.values())
    found["rule"] = figures.choose(valid_sets, test_sets)
    found["plan"] = dataclasses.asdict(plan)
    return found


def kinds(
    bank: ExpertBank, own: Mapping[str, Windows], plan: Plan, seed: int
) -> dict[str, list[prompts.Prompt]]:
    """The prompts by which rules are compared: queries of any length."""
    ks = [k for k in KS if k]
    third = -(-plan.prompts // len(ks))
    shots = prompts.shots(own, ks, plan.block, plan.part, third, seed)
    found: dict[str, list[prompts.Prompt]] = {
        "plain": prompts.plain(own, (plan.part[0], 3 * plan.part[1]), plan.prompts, seed),
        "shots": [p for of in shots.values() for p in of],
        "quotes": prompts.quotes(own, plan.part, plan.block, plan.prompts, seed),
    }
    code = prompts.instructions(own, bank.tokenizer, plan.prompts, seed)
    found |= {kind: of for kind, of in zip(INSTRUCTIONS, code, strict=True) if len(of) >= FEWEST}
    return found


def _asked(bank, sets: Mapping, sizes, options) -> dict:
    """Key -> (answers, prompts); what several sets share is scored once."""
    answers = answer(bank, [p for of in sets.values() for p in of], sizes, options)
    found, start = {}, 0
    for key, of in sets.items():
        found[key] = (answers.take(slice(start, start + len(of))), of)
        start += len(of)
    return found


def run(context: Any) -> dict:
    """-> {"in_context": `measure` of the run's bank}."""
    names, settings = context.bank.names, context.experiment.eval
    valid = {n: context.text.valid[n] for n in names}
    sizes = BatchSizes.of(settings)
    return {
        "in_context": measure(
            context.bank, valid, context.own_test, seed=context.experiment.seed, sizes=sizes
        )
    }


WAYS = {
    "whole": "all of the prompt",
    "carried": "the query, context carried over",
    "last": "the last tokens",
    "reset": "the query alone",
    "segment": "the last span of segment",
    "rebuild": "the query by rebuilding",
}


def section(report: dict) -> Section:
    """Who answers a query after k blocks of another domain."""
    found = report["in_context"]
    shots, place = found["k_shot_flips"], found["by_position"]["bank"]
    rule = found["rule"]
    share = lambda x: f"{x:.1%}"
    shrinks = "The first quarter of a window has no margin. "
    if ends := place["late_over_early_95"]:
        shrinks = (
            f"The margin in a window's last quarter is {place['late_over_early']:.2f} times that "
            f"in the first (95 % between {ends[0]:.2f} and {ends[1]:.2f}). "
        )
    return Section(
        "What context does to the choice of an expert",
        ("what is read", *(f"flips, k = {k}" for k in shots), "right, k = 4"),
        [
            (
                words,
                *(share(of[mode]["flips"]) for of in shots.values()),
                share(shots[str(max(KS))][mode]["right"]),
            )
            for mode, words in WAYS.items()
        ],
        f"The same query of {found['plan']['query'][0]} tokens after k blocks of another domain; a "
        "flip: another expert answers than answers the query alone.  Rows that name the query have "
        "to know where it begins.",
        "flips do not grow with k where all of the prompt is read.",
        f"{shrinks}Chosen on valid: {rule['chosen']}, "
        f"right on {share(rule['mean'][rule['chosen']])} of test prompts of all kinds, reading "
        f"all of the prompt on {share(rule['mean']['whole'])}.",
    )


def check(experiment: Any) -> None:
    """`UserError` where the study cannot be made."""
    if len(experiment.data.domains) < 2:
        raise UserError(
            "config.studies: in_context needs two or more of config.data.domains; leave it out"
        )


STUDY = Study("in_context", run, section, check)
