"""The arithmetic of routing, by hand."""

import pytest

from benchmarks.router_cost import FULL, RULE, SCOUT, SCOUT_RULE
from benchmarks.routing_plan import flops_relative, scoring_flops
from cr_jax.config import SEEN, Scoring


def test_the_arithmetic_of_the_docstring():
    seen = scoring_flops(FULL, SEEN)
    vocabulary = 2 * 256 * 32768
    blocks = 6 * 2 * (4 * 256**2 + 3 * 256 * 768 + 2 * 512 * 256) + 2 * 4 * 256 * 64
    assert seen == pytest.approx(blocks + vocabulary, rel=1e-3)
    assert scoring_flops(FULL, Scoring(parts=2)) == pytest.approx(2 * blocks + vocabulary, rel=1e-3)
    encoder, predictor = 3 * 2 * (4 * 256**2 + 3 * 256 * 768 + 2 * 512 * 256), 2 * 256**2
    assert scoring_flops(FULL, RULE) == pytest.approx(encoder + predictor + vocabulary, rel=1e-3)
    small = scoring_flops(SCOUT, SCOUT_RULE)
    vocabulary = 2 * 64 * 32768 / 8
    encoder = 2 * (4 * 64**2 + 3 * 64 * 128 + 2 * 512 * 64)
    assert small == pytest.approx(encoder + 2 * 64**2 + vocabulary, rel=1e-3)
    for rule in (SEEN, RULE):
        cost = flops_relative(FULL, rule, SCOUT, SCOUT_RULE, 64, 7)
        assert cost == pytest.approx(7 + 64 * small / scoring_flops(FULL, rule))
        assert cost <= 10  # the target of the cascade, with room for keep=7
    assert flops_relative(FULL, SEEN, SCOUT, SEEN, 64, 64, scouted=False) == 64
