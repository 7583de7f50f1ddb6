"""From answers to figures: flips, what is answered right, and which rule answers best.

Not in the paper.  Letters: N prompts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from cr_jax.studies.in_context.answers import MODES, Answers
from cr_jax.studies.in_context.prompts import Prompt

RESAMPLED = 1000
LEADS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # nats/token
RULES = ("whole", "last", "segment", "both")  # none is told where the query begins


def interval(values, seed: int = 0) -> list[float]:
    """95 % of the means of resampled values [N] (bootstrap)."""
    values = np.asarray(values, np.float64)
    draw = np.random.default_rng(seed)
    means = values[draw.integers(len(values), size=(RESAMPLED, len(values)))].mean(1)
    return np.percentile(means, (2.5, 97.5)).tolist()


def by_mode(answers: Answers, prompts: Sequence[Prompt]) -> dict:
    """mode -> {"flips", "right", both with "_95", "to_other": of all prompts those that go to the
    domain of the context, "margin": nats/token by which the own expert leads}; and "count"."""
    domains, others = _places(prompts)
    found: dict = {"count": len(prompts)}
    for mode in MODES:
        winners, flips = answers.winners(mode), answers.flipped(mode)
        right = winners == domains
        row = {
            "flips": float(flips.mean()),
            "flips_95": interval(flips),
            "right": float(right.mean()),
            "right_95": interval(right),
            "to_other": float(((winners == others) & (others != domains)).mean()),
        }
        if mode in answers.means:
            row["margin"] = float(answers.margin(mode, domains).mean())
        found[mode] = row
    found["segment"]["begins_at_query"] = float(answers.found.mean())
    return found


def asked(answers: Answers, prompts: Sequence[Prompt]) -> dict:
    """`by_mode`, and "question_right": share whose question alone goes to the answer's domain."""
    right = answers.winners("before") == _places(prompts)[0]
    return {**by_mode(answers, prompts), "question_right": float(right.mean())}


def repeated(answers: Answers, prompts: Sequence[Prompt]) -> dict:
    """`by_mode`, and "nats" of a token of the last copy by the text's own expert: in context by the
    bank's rule and by rebuilding, and of the same tokens alone."""
    domains, _ = _places(prompts)
    rows = np.arange(len(prompts))
    own = lambda mode: float(answers.means[mode][rows, domains].mean())
    nats = {"carried": own("carried"), "rebuild": own("rebuild"), "alone": own("reset")}
    return {**by_mode(answers, prompts), "nats": nats}


def ruled(answers: Answers, rule: str, lead: float) -> Int[np.ndarray, " N"]:
    """The expert that a rule names.  "both": the last tokens's where it leads the whole prompt's by
    at least `lead` nats/token on that window, else the whole prompt's."""
    if rule != "both":
        return answers.winners(rule)
    whole, last, means = answers.winners("whole"), answers.winners("last"), answers.means["last"]
    rows = np.arange(len(means))
    return np.where(means[rows, whole] - means[rows, last] >= lead, last, whole)


Sets = Mapping[str, tuple[Answers, Sequence[Prompt]]]  # kind of prompts -> their answers


def choose(valid: Sets, test: Sets) -> dict:
    """The rule that is right most often on valid, kinds of equal weight, and what each gives on
    test.

    {"chosen", "lead" of "both", "valid": rule -> share right; "test": rule -> kind -> {"right",
    "right_95", "count"}; "mean": rule -> share right on test; "agreement": kind -> {"share" of
    prompts whose whole and last window name the same expert, "right" where they do, "last_right"
    where they do not}}.
    """
    right = lambda of, rule, lead: ruled(of[0], rule, lead) == _places(of[1])[0]
    mean = lambda sets, rule, lead: float(np.mean([right(s, rule, lead).mean() for s in sets]))
    lead = max(LEADS, key=lambda x: mean(valid.values(), "both", x))
    on_valid = {rule: mean(valid.values(), rule, lead) for rule in RULES}
    table = {
        rule: {
            kind: {
                "right": float((hit := right(of, rule, lead)).mean()),
                "right_95": interval(hit),
                "count": len(hit),
            }
            for kind, of in test.items()
        }
        for rule in RULES
    }
    return {
        "chosen": max(RULES, key=on_valid.__getitem__),
        "lead": lead,
        "valid": on_valid,
        "test": table,
        "mean": {rule: mean(test.values(), rule, lead) for rule in RULES},
        "agreement": {kind: _agreement(*of) for kind, of in test.items()},
    }


def _agreement(answers: Answers, prompts: Sequence[Prompt]) -> dict[str, float | None]:
    domains, last = _places(prompts)[0], answers.winners("last")
    same = answers.winners("whole") == last
    share = lambda at: float((last == domains)[at].mean()) if at.any() else None
    return {"share": float(same.mean()), "right": share(same), "last_right": share(~same)}


def _places(prompts: Sequence[Prompt]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    return np.array([p.domain for p in prompts]), np.array([p.other for p in prompts])
