"""The path is the cheapest one there is, and a text whose experts are told apart is cut exactly."""

import itertools

import numpy as np
import pytest

from cr_jax.routing import spans as module
from cr_jax.routing.spans import Span, saved, spans


def flat(experts, nats):
    return np.full((experts, experts), float(nats))


def total(cost, switch, found):
    """What spans cost, added up in float64."""
    nats = sum(cost[s.expert, s.start : s.end].sum(dtype=np.float64) for s in found)
    return nats + sum(switch[a.expert, b.expert] for a, b in itertools.pairwise(found))


def cheapest(cost, switch, minimum):
    """By trying every cut and every expert."""
    experts, length = cost.shape
    best = np.inf
    for count in range(1, length // minimum + 1):
        for cuts in itertools.combinations(range(minimum, length), count - 1):
            edges = (0, *cuts, length)
            if any(b - a < minimum for a, b in itertools.pairwise(edges)):
                continue
            for who in itertools.product(range(experts), repeat=count):
                if any(a == b for a, b in itertools.pairwise(who)):
                    continue
                found = [Span(a, b, e) for (a, b), e in zip(itertools.pairwise(edges), who)]
                best = min(best, total(cost, switch, found))
    return best


@pytest.mark.parametrize("minimum", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_cut_is_cheaper(minimum, seed):
    draw = np.random.default_rng(seed)
    cost, switch = draw.gamma(1.0, 2.0, (3, 9)), draw.uniform(0.1, 2.0, (3, 3))
    found = spans(cost, switch, minimum)
    assert [s.start for s in found] == [0, *(s.end for s in found[:-1])] and found[-1].end == 9
    assert all(s.end - s.start >= minimum for s in found)
    assert all(a.expert != b.expert for a, b in itertools.pairwise(found))
    assert total(cost, switch, found) == pytest.approx(cheapest(cost, switch, minimum), rel=1e-5)


def source(lengths, gap, seed=0):
    """Tokens of expert 0 and 1 in turn, each `gap` nats cheaper by its own."""
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(lengths)) % 2, lengths)
    cost = draw.gamma(4.0, 1.0, (1, len(owner))).repeat(3, 0)
    cost[1 - owner, np.arange(len(owner))] += gap
    cost[2] += 2 * gap
    return cost, owner


def test_a_source_with_known_switches_is_cut_exactly():
    cost, _ = source((40, 25, 60, 33), 1.0)
    found = spans(cost, flat(3, 6.0), 8)
    assert [(s.end - s.start, s.expert) for s in found] == [(40, 0), (25, 1), (60, 0), (33, 1)]
    # The 25 nats that the second piece saves pay for two switches of 6, not of 20.
    assert spans(cost, flat(3, 20.0), 8) == [Span(0, 125, 0), Span(125, 158, 1)]
    assert len(spans(cost, flat(3, 1e6), 8)) == 1


def test_a_piece_below_the_minimum_is_not_cut_out():
    cost, _ = source((40, 6, 40), 5.0)
    assert len(spans(cost, flat(3, 1.0), 4)) == 3
    assert all(s.end - s.start >= 16 for s in spans(cost, flat(3, 1.0), 16))


def test_sums_of_a_long_text_lose_nothing():
    lengths = (30_000, 40, 30_000, 50, 20_000)
    cost, _ = source(lengths, 1.0)
    cost += 50.0  # sums of millions of nats, where float32 has no halves left
    found = spans(cost, flat(3, 12.0), 16)
    assert [s.end - s.start for s in found] == list(lengths)


def test_a_text_goes_on_with_the_expert_before():
    cost, _ = source((5, 40), 1.0)
    assert spans(cost, flat(3, 3.0), 16, before=0) == [Span(0, 5, 0), Span(5, 45, 1)]
    # Without it five tokens are too few for a span of their own.
    assert spans(cost, flat(3, 3.0), 16) == [Span(0, 45, 1)]


def test_short_and_lonely_texts_are_one_span():
    cost, _ = source((4,), 1.0)
    assert spans(cost, flat(3, 1.0), 16) == [Span(0, 4, 0)]
    assert spans(cost[1:2], flat(1, 1.0), 2) == [Span(0, 4, 0)]
    assert spans(cost[:, :0], flat(3, 1.0), 4) == []


def test_what_a_switch_saves():
    cost, _ = source((40, 25), 1.0)
    switch = flat(3, 6.0)
    (gain,) = saved(cost, switch, spans(cost, switch, 8))
    assert gain == pytest.approx(25 - 6)
    assert saved(cost, switch, [Span(0, 65, 0)]) == []


def test_an_end_of_a_batch_is_read_where_the_text_ends():
    cost, _ = source((40, 25), 1.0)
    path = module.Path(*map(np.asarray, module._forward(cost, flat(3, 6.0), 8, -1)))
    assert module.traced(path, 40, 8) == [Span(0, 40, 0)]
    assert module.traced(path, 65, 8) == [Span(0, 40, 0), Span(40, 65, 1)]
