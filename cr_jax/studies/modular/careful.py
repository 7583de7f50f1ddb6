"""The rules of `cr_jax.modular.expected`, fitted to validation windows, for the study's arms.

"experts": evidence is the language models' nats on the prefix.  "joint": with the compressors' code
length and the bigram models' nats beside them, each with a weight that is chosen on the same
windows.  Not in the paper.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cr_jax.modular.expected import Expectation, cost_table, expected_nats, fitted
from cr_jax.studies.modular.nats import DomainNats

WEIGHTS = (0.0, 0.25, 0.5, 1.0)  # of other evidence beside the language models'


class Rule(NamedTuple):
    """expectation: costs and temper; code_length, bigrams: the weights of this evidence;
    valid_nll: nats/token after the prefix on the windows that chose them."""

    expectation: Expectation
    code_length: float
    bigrams: float
    valid_nll: float


def fit(valid: Sequence[DomainNats], prefixes: Sequence[int]) -> dict[str, dict[int, Rule]]:
    """{"experts": prefix -> rule, "joint": ...}; valid: of each expert's domain, in the order of E.

    "joint" is left out where the compressors or bigram models score no tokens.
    """
    by_name = {str(e): d for e, d in enumerate(valid)}
    rules: dict[str, dict[int, Rule]] = {"experts": {}}
    joint = all(d.code_length is not None and d.bigrams is not None for d in valid)
    if joint:
        rules["joint"] = {}
    for prefix in prefixes:
        costs = cost_table([d.experts for d in valid], [d.mask for d in valid], prefix)
        later = {n: _later(d, prefix) for n, d in by_name.items()}
        parts = {n: _parts(d, prefix) for n, d in by_name.items()}

        def best(weights, parts=parts, later=later, costs=costs):
            evidence = {n: _joined(p, *weights) for n, p in parts.items()}
            return Rule(*_flat(fitted(evidence, later, costs), weights))

        rules["experts"][prefix] = best((0.0, 0.0))
        if joint:
            tried = [best(weights) for weights in itertools.product(WEIGHTS, repeat=2)]
            rules["joint"][prefix] = min(tried, key=lambda rule: rule.valid_nll)
    return rules


def chosen(d: DomainNats, prefix: int, rule: Rule) -> Int[np.ndarray, " N"] | None:
    """Who speaks after the prefix of each window; None where evidence was not measured."""
    if (rule.code_length and d.code_length is None) or (rule.bigrams and d.bigrams is None):
        return None
    evidence = _joined(_parts(d, prefix), rule.code_length, rule.bigrams)
    return np.asarray(expected_nats(evidence, *rule.expectation)).argmin(0)


def described(rules: Mapping[str, Mapping[int, Rule]]) -> dict:
    """What was chosen, for the report: evidence -> prefix -> temper and weights."""
    return {
        evidence: {
            str(prefix): {
                # JSON has no infinity: null is the nearest expert alone.
                "temper": rule.expectation.temper if rule.expectation.temper < np.inf else None,
                "code_length": rule.code_length,
                "bigrams": rule.bigrams,
                "valid_nll": rule.valid_nll,
            }
            for prefix, rule in by_prefix.items()
        }
        for evidence, by_prefix in rules.items()
    }


def _flat(found: tuple[Expectation, float], weights: Sequence[float]):
    return found[0], *weights, found[1]


def _parts(d: DomainNats, prefix: int) -> tuple[np.ndarray | None, ...]:
    """nats of the prefix by language models, compressors and bigram models, each [E, N]."""
    first = d.mask & (np.arange(d.mask.shape[1]) < prefix)[None]
    # NaN of compressors: a token that they never score, such as a window's first one.
    count = lambda x: None if x is None else np.where(first & ~np.isnan(x), x, 0).sum(-1)
    experts = np.where(first, np.where(np.isnan(d.experts), np.inf, d.experts), 0).sum(-1)
    return experts, count(d.code_length), count(d.bigrams)


def _joined(parts, code_length: float, bigrams: float) -> Float[np.ndarray, "E N"]:
    nats, *others = parts
    for weight, other in zip((code_length, bigrams), others, strict=True):
        if weight:
            nats = nats + weight * other
    return nats.astype(np.float32)


def _later(d: DomainNats, prefix: int) -> Float[np.ndarray, "E N"]:
    """Mean nats/token after the prefix."""
    late = d.mask & (np.arange(d.mask.shape[1]) >= prefix)[None]
    return np.where(late, d.experts, 0).sum(-1) / np.maximum(late.sum(-1), 1)
