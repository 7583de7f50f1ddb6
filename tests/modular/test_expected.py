"""Expected nats: by hand, at both ends of the temper, and what is chosen on validation text."""

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.modular import expected

# Expert 2 is nobody's best and costs nobody much.
COSTS = np.array([[1.0, 5.0, 3.0], [5.0, 1.0, 3.0], [2.0, 2.0, 2.5]], np.float32)


def chosen(prefix, temper):
    nats = np.asarray(expected.expected_nats(np.float32(prefix), COSTS, temper))
    return nats.argmin(0).tolist(), nats


def test_the_expected_nats_are_costs_weighed_by_the_tempered_posterior():
    prefix = np.float32([[10.0], [12.0], [13.0]])
    weights = np.exp(-0.5 * prefix[:, 0])
    wanted = COSTS @ (weights / weights.sum())
    np.testing.assert_allclose(chosen(prefix, 0.5)[1][:, 0], wanted, rtol=1e-5)


def test_a_doubtful_prefix_is_given_to_who_costs_nobody_much():
    doubtful, clear = [[10.0], [10.5], [20.0]], [[10.0], [90.0], [90.0]]
    assert chosen(doubtful, np.inf)[0] == [0] and chosen(clear, np.inf)[0] == [0]
    assert chosen(doubtful, 0.5)[0] == [2] and chosen(clear, 0.5)[0] == [0]


def test_an_expert_without_finite_nats_is_not_chosen():
    winner, nats = chosen([[np.nan, 5.0], [7.0, 1.0], [np.inf, 5.0]], 1.0)
    assert winner == [1, 1] and np.isinf(nats[[0, 2], 0]).all()
    assert not np.isfinite(chosen([[np.nan], [np.nan], [np.inf]], 1.0)[1]).any()


def test_costs_are_means_after_the_prefix_over_real_tokens():
    nats = np.random.default_rng(0).uniform(1, 6, (2, 2, 3, 8)).astype(np.float32)
    masks = [np.ones((3, 8), bool) for _ in range(2)]
    masks[1][2, 5:] = False
    table = expected.cost_table(list(nats), masks, 4)
    late = [masks[d] & (np.arange(8) >= 4) for d in range(2)]
    wanted = [[nats[d, e][late[d]].mean() for d in range(2)] for e in range(2)]
    np.testing.assert_allclose(table, wanted, rtol=1e-6)
    with pytest.raises(UserError, match="more than 8 tokens"):
        expected.cost_table(list(nats), masks, 8)


def test_validation_text_chooses_to_doubt_only_where_it_pays():
    """Texts of two domains: with prefixes that say nothing the careful expert needs fewest."""
    random = np.random.default_rng(0)

    def texts(clear):
        prefixes, later = {}, {}
        for d in range(2):
            prefix = random.normal(20, 1, (3, 200))
            prefix[2] += 50
            prefix[d] -= clear
            prefixes[str(d)] = prefix.astype(np.float32)
            later[str(d)] = np.repeat(COSTS[:, d : d + 1], 200, axis=1)
        return prefixes, later

    vague, nats = expected.fitted(*texts(0.0), COSTS)
    assert vague.temper < 0.5 and nats < 2.2  # the nearest alone would need 3
    certain, nats = expected.fitted(*texts(30.0), COSTS)
    assert certain.temper == np.inf and nats == pytest.approx(1.0)
