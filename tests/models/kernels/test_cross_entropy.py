"""The loss's kernel: nll, gradient and winners of both forms against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.models import kernels, objective
from cr_jax.models.kernels.triton import loss as triton

T = 7
FORMS = ("xla", "triton")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several blocks a row, the last one cut."""
    monkeypatch.setattr(triton, "BLOCK", 16)


def case(size=37, spread=3.0, seed=0):
    rng = np.random.default_rng([size, seed])
    weights = rng.uniform(size=T)
    weights[2] = 0.0  # a masked token
    return rng.normal(0, spread, (T, size)), rng.integers(0, size, T), weights


def exact(logits, ids, weights):
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    at = np.arange(len(ids)), ids
    wrong = np.exp(log_p)
    wrong[at] -= 1
    return wrong * weights[:, None], -log_p[at], logits[at] >= logits.max(-1)


def found(form, logits, ids, weights, dtype=jnp.float32):
    run = jax.jit(lambda *a: kernels.cross_entropy(*a, form))
    return jax.device_get(
        run(
            jnp.asarray(logits, dtype),
            jnp.asarray(ids, jnp.int32),
            jnp.asarray(weights, jnp.float32),
        )
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 17, 37, 48])
def test_it_equals_float64(size, form):
    given = case(size)
    for a, b in zip(found(form, *given), exact(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gap", [60.0, 90.0, 1e4])
def test_targets_far_below_the_largest_logit(gap, form):
    """Over 88 nats an exponential shifted by the target alone would be infinite."""
    logits, ids, weights = case()
    logits[1, (ids[1] + 1) % 37] = logits[1, ids[1]] + gap
    logits[4, ids[4]] += gap
    for a, b in zip(found(form, logits, ids, weights), exact(logits, ids, weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_all_logits_far_above_the_target(form, monkeypatch):
    """Each exponential is finite in float32, the sum of so many is not."""
    monkeypatch.setattr(triton, "BLOCK", 8192)
    logits, ids = np.full((1, 20_000), 79.9), np.zeros(1, int)
    logits[0, 0] = 0.0
    given = logits, ids, np.ones(1)
    for a, b in zip(found(form, *given), exact(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_masked_tokens_have_a_score_and_no_gradient(form):
    logits, ids, weights = case()
    gradient, nll, _ = found(form, logits, ids, weights)
    assert not gradient[2].any() and np.abs(gradient[3]).max() > 1e-3
    assert nll[2] == pytest.approx(exact(logits, ids, weights)[1][2], rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_target_among_equal_largest_logits_has_won(form):
    logits = np.zeros((3, 5))
    logits[1, 4] = 1.0
    logits[2, :2] = 1.0
    won = found(form, logits, [3, 3, 1], np.ones(3))[2]
    assert won.tolist() == [True, False, True]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["row", "other"])
def test_not_a_number_stays_visible(which, form):
    logits, ids, weights = case()
    logits[3, slice(None) if which == "row" else (ids[3] + 1) % 37] = np.nan
    gradient, nll, won = found(form, logits, ids, weights)
    assert np.isnan(nll[3]) and np.isnan(gradient[3]).any() and not won[3]
    assert np.isfinite(np.delete(nll, 3)).all()


def test_half_precision_logits_give_half_precision_gradients():
    given = case()
    plain, triton_ = (found(form, *given, jnp.bfloat16) for form in FORMS)
    assert plain[0].dtype == triton_[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(plain[0]), np.float32(triton_[0]), atol=2**-8)
    np.testing.assert_allclose(plain[1], triton_[1], rtol=1e-5)


@pytest.mark.parametrize("chunk", [5, 10])
def test_the_chunked_loss_takes_either_form(chunk):
    """Values, gradients and scores; beside each other two experts are themselves."""
    rng = np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(2, 4, 5, 8)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(2, 8, 23)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, 23, (2, 4, 5)), jnp.int32)
    weights = jnp.asarray(rng.uniform(size=(2, 4, 5)), jnp.float32).at[:, 1, 3:].set(0)

    def run(form):
        loss = lambda h, k, t, w: objective.linear_cross_entropy(h, k, t, w, chunk, form)
        one = jax.value_and_grad(loss, (0, 1), has_aux=True)
        alone = lambda *a: jax.lax.map(lambda x: one(*x), a)
        return [jax.device_get(jax.jit(f)(h, kernel, ids, weights)) for f in (jax.vmap(one), alone)]

    plain, _ = run("xla")
    for found in run("triton"):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_comparison_sees_a_wrong_sum(monkeypatch):
    """Negative control: a ceiling that cuts ordinary logits, without the second sum."""
    given = case()
    monkeypatch.setattr(triton, "CEILING", -1e9)  # every row is summed again: still right
    np.testing.assert_allclose(found("triton", *given)[1], exact(*given)[1], rtol=1e-4)
    monkeypatch.setattr(triton.lax, "cond", lambda which, again, once: once())
    assert np.abs(found("triton", *given)[1] - exact(*given)[1]).max() > 0.1
