"""Bigram models first: few language models read a text, and deciding costs next to nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import lm
from cr_jax.modular import candidates, schedule

E, N, TOKENS, LENGTH = 64, 512, 64, 512
SMALL = LmConfig(vocab_size=32768, d_model=512, heads=8, d_ff=1536, blocks=3)  # 25 M and a head
NEAR = 0.35  # nats/token between a domain and its nearest neighbour


def domains(seed, noise=0.8):
    """nats of the first tokens of texts of 64 domains in pairs of near ones, as language models
    (exact) and bigram models, which know less of it, see them; and whose text it is."""
    rng = np.random.default_rng(seed)
    own = np.arange(N) % E
    far = np.where(np.arange(E)[:, None] // 2 == own[None] // 2, NEAR, 1.5)
    far = np.where(np.arange(E)[:, None] == own[None], 0, far)
    text = rng.gamma(2, 1.5, (N, TOKENS))
    spread = lambda scale: rng.normal(0, scale, (E, N, TOKENS))
    exact = text[None] + far[..., None] + spread(0.8)
    small = text[None] + 1.0 + 0.8 * far[..., None] + spread(noise)
    return small.astype(np.float32), exact.astype(np.float32), own


def calibrated(most=4, at_least=0.99):
    small, exact, _ = domains(0)
    mask = np.ones((N, TOKENS), bool)
    winner = np.asarray(schedule.prefix_nats(exact, mask, TOKENS)).argmin(0)
    means = np.asarray(candidates.prefix_means(small, mask, TOKENS))
    return candidates.calibrated_margin(means, winner, most, at_least)


def test_64_experts_are_scheduled_for_less_than_2_percent_of_one_model():
    small, exact, own = domains(1)  # other text than the margin was calibrated on
    mask = np.ones((N, TOKENS), bool)
    found = candidates.candidates(small, mask, TOKENS, 4, calibrated())
    by_few = schedule.by_prefix(candidates.among(exact, found.kept), mask, TOKENS - 1).expert[:, -1]
    by_all = schedule.by_prefix(exact, mask, TOKENS - 1).expert[:, -1]
    assert np.mean(np.asarray(by_few) == np.asarray(by_all)) >= 0.98
    cost = candidates.scheduling_flops(SMALL, LENGTH, TOKENS, E, float(found.mean))
    assert cost <= 0.02
    # Controls: without candidates it costs hundreds of times more, and by bigrams alone it errs.
    assert candidates.scheduling_flops(SMALL, LENGTH, TOKENS, E, E, bigrams=False) > 5
    alone = np.asarray(candidates.prefix_means(small, mask, TOKENS)).argmin(0)
    assert np.mean(alone == own) < np.mean(np.asarray(by_few) == own)


def test_few_remain_where_the_nearest_is_far_ahead():
    mask = np.ones((3, 8), bool)
    x = np.full((5, 3, 8), 6.0, np.float32)
    x[1, 0], x[2, 1], x[4, 1] = 1.0, 2.0, 2.2
    found = candidates.candidates(x, mask, 8, 3, 0.5)
    assert np.flatnonzero(found.kept[:, 0]).tolist() == [1]
    assert np.flatnonzero(found.kept[:, 1]).tolist() == [2, 4]
    assert np.flatnonzero(found.kept[:, 2]).tolist() == [0, 1, 2]  # no more than three
    assert float(found.mean) == pytest.approx(2)
    assert np.asarray(candidates.candidates(x, mask, 8, 5, 100.0).kept).all()
    one = candidates.candidates(x, mask, 8, 5, 0.0).kept
    assert np.flatnonzero(one[:, 1]).tolist() == [2]
    other = x.copy()
    other[:, :, 4:] = x[::-1, :, 4:]
    few = [candidates.candidates(y, mask, 4, 3, 0.5).kept for y in (x, other)]
    assert np.array_equal(*few)  # later tokens change nothing


def test_only_candidates_are_chosen():
    x = np.ones((3, 2, 6), np.float32) * np.array([1.0, 2.0, 3.0], np.float32)[:, None, None]
    kept = np.array([[False, True], [True, True], [True, False]])
    expert = schedule.by_prefix(candidates.among(x, kept), np.ones((2, 6), bool), 3).expert
    assert np.asarray(expert[:, 3:]).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_the_margin_is_the_least_that_will_do():
    means = np.array([[1.0, 1.0, 1.0, 1.0], [1.1, 1.2, 1.3, 1.4], [9.0, 9.0, 9.0, 9.0]])
    winner = np.array([0, 1, 1, 0])
    assert candidates.calibrated_margin(means, winner, 2, 0.5) == 0
    assert candidates.calibrated_margin(means, winner, 2, 0.75) == pytest.approx(0.2)
    assert candidates.calibrated_margin(means, winner, 2, 1.0) == pytest.approx(0.3)
    with pytest.raises(UserError, match=r"in 50.0% of texts and never in 75.0%"):
        candidates.calibrated_margin(means, winner, 1, 0.75)


def test_no_larger_margin_is_affordable():
    means = np.array([[1.0, 1.0, 1.0, 1.0], [1.1, 1.2, 1.3, 1.4], [9.0, 1.5, 9.0, 9.0]])
    cost = lambda kept: (kept - 1) / 10
    for share in (0.02, 0.026, 0.05, 0.08, 1.0):
        margin = candidates.affordable_margin(means, 3, cost, share)
        kept = [(means - means.min(0) <= m).sum() / 4 for m in (margin, margin + 0.1001)]
        assert cost(kept[0]) <= share and (
            cost(kept[1]) > share or kept[0] == kept[1] or share == 1
        )
    assert candidates.affordable_margin(means, 3, cost, 0.05) == pytest.approx(0.2)
    assert candidates.affordable_margin(means, 2, cost, 1.0) == pytest.approx(0.4)  # two at most
    assert candidates.affordable_margin(means, 3, cost, 0.0) == 0


@pytest.mark.parametrize("kv_heads", [0, 2])
def test_operations_are_those_of_the_matrices(kv_heads):
    config = LmConfig(vocab_size=64, d_model=16, heads=4, kv_heads=kv_heads, d_ff=24, blocks=2)
    shapes = jax.eval_shape(lambda k: lm.init(config, k), jax.random.key(0))["params"]
    matrices = sum(x.size for x in jax.tree.leaves(shapes["blocks"])) + shapes["head"].size
    attention = 2 * 2 * 2 * 10 * 10 * 16
    assert candidates.forward_flops(config, 10) == 2 * 10 * matrices + attention


def test_the_cost_counts_candidates_beyond_the_first_and_look_ups():
    one = candidates.scheduling_flops(SMALL, LENGTH, TOKENS, E, 1.0, bigrams=False)
    assert one == 0
    alone = candidates.scheduling_flops(SMALL, LENGTH, TOKENS, E, 1.0)
    flops = candidates.forward_flops(SMALL, LENGTH)
    assert alone == pytest.approx(2 * E * TOKENS / flops) and alone < 1e-6
    two = candidates.scheduling_flops(SMALL, LENGTH, TOKENS, E, 2.0)
    assert 0.9 * TOKENS / LENGTH < two <= TOKENS / LENGTH  # a prefix has shorter attention
    assert jnp.isfinite(two)
