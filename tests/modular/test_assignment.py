"""Documents in balance: feasible, near the best there is, and far better than at random."""

import itertools

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.modular.assignment import assign_balanced, capacity


def total(cost, part):
    return cost[np.arange(len(part)), part].sum()


def feasible(cost, sizes, slack):
    """The cost of every assignment that keeps the parts' sizes."""
    count, parts = cost.shape
    most = capacity(sizes, parts, slack)
    return [
        total(cost, np.array(part))
        for part in itertools.product(range(parts), repeat=count)
        if np.bincount(part, sizes, parts).max() <= most
    ]


@pytest.mark.parametrize("slack", [0.0, 0.5])
def test_tiny_cases_are_feasible_and_near_the_best(slack):
    rng, above = np.random.default_rng(0), []
    for _ in range(60):
        shape = int(rng.integers(4, 8)), int(rng.integers(2, 4))
        cost, sizes = rng.gamma(2, 2, shape), np.ones(shape[0], int)
        part = assign_balanced(cost, sizes, slack)
        assert np.bincount(part, minlength=shape[1]).max() <= capacity(sizes, shape[1], slack)
        every = feasible(cost, sizes, slack)
        assert min(every) - 1e-9 <= total(cost, part) < np.mean(every)
        above.append((total(cost, part) - min(every)) / (np.mean(every) - min(every)))
    assert np.mean(above) < 0.05 and np.mean(np.array(above) < 1e-9) > 0.7


def test_documents_of_all_sizes_fill_parts_evenly():
    rng = np.random.default_rng(1)
    sizes = rng.integers(20, 2000, 3000)
    own = np.minimum(rng.zipf(1.6, len(sizes)) - 1, 7)  # most documents would go to one part
    rate = 5 + rng.normal(0, 0.2, (len(sizes), 8)) - np.eye(8)[own]
    part = assign_balanced(rate * sizes[:, None], sizes, 0.02)
    loads = np.bincount(part, sizes, 8)
    assert loads.max() <= capacity(sizes, 8, 0.02) and loads.max() / loads.min() < 1.25
    free = np.bincount(rate.argmin(1), sizes, 8)
    assert free.max() > 2 * capacity(sizes, 8, 0.02)  # without the bound it would not be even
    random = np.mean([total(rate * sizes[:, None], rng.permutation(part)) for _ in range(5)])
    assert total(rate * sizes[:, None], part) < 0.95 * random


def test_what_is_even_already_goes_where_it_costs_least():
    cost = 1.0 - np.eye(4)[np.arange(20) % 4]
    assert np.array_equal(assign_balanced(cost, np.ones(20, int)), np.arange(20) % 4)


def test_large_documents_do_not_leave_a_part_empty():
    sizes = np.array([1000, 1, 1, 1])
    part = assign_balanced(np.zeros((4, 3)), sizes)
    assert set(part) == {0, 1, 2}
    assert set(assign_balanced(np.zeros((2, 3)), np.ones(2, int))) <= {0, 1, 2}  # two cannot


@pytest.mark.parametrize(
    ("cost", "sizes", "slack"),
    [
        (np.full((3, 2), np.nan), np.ones(3, int), 0.0),
        (np.zeros((3, 2)), np.array([1, 0, 1]), 0.0),
        (np.zeros((3, 2)), np.ones(3, int), -0.1),
    ],
)
def test_what_cannot_be_dealt_is_one_line(cost, sizes, slack):
    with pytest.raises(UserError, match="costs must be finite, sizes at least 1 and slack"):
        assign_balanced(cost, sizes, slack)
