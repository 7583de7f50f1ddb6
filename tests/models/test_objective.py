"""The chunked loss against plain softmax cross-entropy; sums that merge exactly."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.models import kernels, objective

B, L, D, V = 6, 5, 8, 23
CHUNKS = (1, 7, 10, 15, 8192)  # 6, 6, 3, 2 and 1 pieces


@pytest.fixture(scope="module")
def case():
    random = np.random.default_rng(0)
    return (
        jnp.asarray(random.normal(size=(B, L, D)), jnp.float32),
        jnp.asarray(random.normal(size=(D, V)), jnp.float32),
        jnp.asarray(random.integers(0, V, (B, L)), jnp.int32),
        jnp.asarray(random.uniform(size=(B, L)), jnp.float32),
    )


def plain(h, kernel, targets, weights):
    """Whole logits, JAX's own softmax and derivative."""
    log_p = jax.nn.log_softmax(h @ kernel)
    nll = -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    return jnp.sum(weights * nll), nll


_plain_slopes = jax.jit(jax.value_and_grad(plain, (0, 1), has_aux=True))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_loss_and_gradients_equal_plain_cross_entropy(case, chunk):
    h, kernel, targets, weights = case
    (want, nll), slopes = _plain_slopes(*case)
    chunked = functools.partial(objective.linear_cross_entropy, chunk=chunk)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def scaled(h, kernel):  # as an outer function would use it
        value, scores = chunked(h, kernel, targets, weights)
        return 3.0 * value, scores

    (got, scores), found = scaled(h, kernel)
    assert got == pytest.approx(3 * float(want), rel=1e-5)
    np.testing.assert_allclose(scores.nll, nll, rtol=1e-4, atol=1e-5)
    for a, b in zip(found, slopes):
        np.testing.assert_allclose(a, 3 * b, rtol=1e-4, atol=1e-5)
    # Without differentiation: the same numbers by the other path.
    value, scores = jax.jit(chunked)(*case)
    assert value == pytest.approx(float(want), rel=1e-5)
    np.testing.assert_allclose(scores.nll, nll, rtol=1e-4, atol=1e-5)


def test_gradients_agree_with_finite_differences(case):
    h, kernel, targets, weights = (np.asarray(x, np.float64) for x in case)
    targets = targets.astype(int)

    def value(h, kernel):
        logits = h @ kernel
        target = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return np.sum(weights * (np.log(np.exp(logits).sum(-1)) - target))

    loss = lambda h, k: objective.linear_cross_entropy(h, k, *case[2:], 10)[0]
    slopes = jax.jit(jax.grad(loss, (0, 1)))(*case[:2])
    for place, slope in enumerate(slopes):
        for at in [(0,) * slope.ndim, (-1,) * slope.ndim]:
            step = np.zeros(slope.shape)
            step[at] = 1e-5
            up, down = ([h, kernel], [h, kernel])
            up[place], down[place] = up[place] + step, down[place] - step
            assert slope[at] == pytest.approx((value(*up) - value(*down)) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_scores_equal_whole_logits(case, chunk):
    h, kernel, targets, _ = case
    scores = jax.jit(objective.token_scores, static_argnums=3)(h, kernel, targets, chunk)
    logits = np.asarray(h @ kernel, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.array_equal(scores.predicted, logits.argmax(-1))
    assert np.array_equal(scores.correct, logits.argmax(-1) == targets)
    np.testing.assert_allclose(scores.confidence, p.max(-1), rtol=1e-4)
    np.testing.assert_allclose(
        scores.nll, -np.log(np.take_along_axis(p, targets[..., None], -1)[..., 0]), rtol=1e-4
    )


def test_predicted_is_the_first_of_equal_logits():
    h = jnp.asarray([[[1.0], [-1.0], [0.0]]])
    kernel = jnp.asarray([[0.0, 2.0, -3.0, 2.0, -3.0]])
    targets = jnp.asarray([[3, 4, 0]])
    scores = objective.token_scores(h, kernel, targets)
    assert scores.predicted.tolist() == np.argmax(h @ kernel, -1).tolist() == [[1, 2, 0]]
    assert scores.correct.tolist() == [[False, False, True]]


def test_not_a_number_stays_visible_and_in_range():
    scores = objective.token_scores(
        jnp.full((1, 2, 1), jnp.nan), jnp.ones((1, 5)), jnp.zeros((1, 2), jnp.int32)
    )
    assert np.isnan(scores.nll).all() and not scores.correct.any()
    assert np.all((scores.predicted >= 0) & (scores.predicted < 5))


def test_large_logits_do_not_overflow():
    kernel = jnp.asarray([[1.0, -1.0, 0.5]])
    scores = objective.token_scores(
        jnp.full((1, 2, 1), 1e4), kernel, jnp.asarray([[0, 1]], jnp.int32)
    )
    np.testing.assert_allclose(scores.nll, [[0.0, 2e4]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_pass_over_the_logits_equals_two(dtype):
    random = np.random.default_rng(1)
    logits = jnp.asarray(random.normal(0, 4, (7, 50)), dtype)
    targets = jnp.asarray(random.integers(0, 50, 7), jnp.int32)
    two = kernels.softmax_terms(logits, targets, one_pass=False, entropy=True)
    one = jax.jit(lambda x: kernels.softmax_terms(x, targets, one_pass=True, entropy=True))(logits)
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[2], two[2])
    np.testing.assert_allclose(one[1], two[1], rtol=1e-6)
    np.testing.assert_allclose(one.entropy, two.entropy, rtol=1e-4)
    np.testing.assert_allclose(two[1], jax.nn.logsumexp(logits.astype(jnp.float32), -1), rtol=1e-6)


def memory(chunk: int, gradient: bool) -> int:
    """Bytes of temporaries of a compiled loss over 16 windows of 64 tokens, 1,024 ids."""
    shapes = (
        jax.ShapeDtypeStruct((16, 64, 8), jnp.float32),
        jax.ShapeDtypeStruct((8, 1024), jnp.float32),
        jax.ShapeDtypeStruct((16, 64), jnp.int32),
        jax.ShapeDtypeStruct((16, 64), jnp.float32),
    )
    loss = lambda *args: objective.linear_cross_entropy(*args, chunk)[0]
    made = jax.jit(jax.grad(loss, (0, 1)) if gradient else loss).lower(*shapes).compile()
    return made.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", [False, True])
def test_whole_logits_never_stand_in_memory(gradient):
    whole = 4 * 16 * 64 * 1024
    assert memory(64, gradient) < whole / 2
    assert memory(8192, gradient) >= whole  # one chunk: the measure does see the logits


def test_the_fewest_chunks_that_divide_the_batch():
    assert objective._steps((6, 5), 30) == 1
    assert objective._steps((6, 5), 29) == 2
    assert objective._steps((6, 5), 8) == 6  # 4 and 5 do not divide 6
    assert objective._steps((7, 5), 20) == 7
    assert objective._steps((2, 512), 1) == 2  # never less than a window


def test_sums_of_ragged_batches_merge_to_those_of_one(case):
    h, kernel, targets, _ = case
    mask = jnp.asarray(np.arange(L)[None] < np.asarray([5, 3, 1, 0, 4, 5])[:, None])
    scores = objective.token_scores(h, kernel, targets)
    # Two windows are rebuilt exactly, one of them padded.
    scores = scores._replace(correct=scores.correct.at[jnp.asarray([0, 1])].set(mask[:2]))
    whole = objective.score_sums(scores, mask)
    parts = [
        objective.score_sums(objective.TokenScores(*(x[s] for x in scores[:4])), mask[s])
        for s in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    merged = {k: sum(float(p[k]) for p in parts) for k in whole}
    assert merged == pytest.approx({k: float(v) for k, v in whole.items()}, rel=1e-6)
    assert merged["tokens"] == 18 and merged["windows"] == 5 and merged["exact"] >= 2
    found = objective.metrics(merged)
    assert found["nll"] == pytest.approx(float(scores.nll[mask].mean()), rel=1e-5)
    assert found["tra"] == pytest.approx(float(scores.correct[mask].mean()), rel=1e-6)
    # The mean of the batches' means is another number.
    means = np.mean([objective.metrics({k: float(v) for k, v in p.items()})["nll"] for p in parts])
    assert abs(means - found["nll"]) > 1e-3


def test_figures_by_hand():
    sums = {
        "nll": 8 * math.log(2),
        "correct": 3,
        "tokens": 4,
        "windows": 2,
        "exact": 1,
        "bytes": 16,
    }
    assert objective.metrics(sums) == pytest.approx(
        {
            "tra": 0.75,
            "nll": 2 * math.log(2),
            "window_exact": 0.5,
            "tokens": 4,
            "windows": 2,
            "bits_per_byte": 0.5,
        }
    )
    assert "bits_per_byte" not in objective.metrics({**sums, "bytes": 0})


def test_majority_rate_counts_real_tokens_only():
    tokens = np.asarray([[3, 3, 5, 0], [3, 7, 0, 0]])
    mask = np.asarray([[True, True, True, False], [True, True, False, False]])
    assert objective.majority_rate(tokens, mask) == pytest.approx(3 / 5)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_entropy_is_that_of_the_whole_softmax_and_costs_no_other_number(case, chunk):
    h, kernel, targets, _ = case
    scores = jax.jit(objective.token_scores, static_argnums=(3, 4))
    found = scores(h, kernel, targets, chunk, True)
    p = np.asarray(jax.nn.softmax(jnp.asarray(h @ kernel)), np.float64)
    np.testing.assert_allclose(found.entropy, -(p * np.log(p)).sum(-1), rtol=1e-4, atol=1e-5)
    without = scores(h, kernel, targets, chunk, False)
    assert without.entropy is None
    for a, b in zip(without[:4], found[:4]):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("one_pass", [False, True])
def test_the_entropy_of_extreme_logits(one_pass):
    rows = jnp.asarray([[1e4, -1e4, 5.0, 0.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, -1e30, -1e30]])
    found = kernels.softmax_terms(rows, jnp.zeros(3, jnp.int32), one_pass, entropy=True)
    np.testing.assert_allclose(found.entropy, np.log([1.0, 4.0, 2.0]), atol=1e-6)
