"""Both forms of every row operation against plain float64: values, gradients, odd sizes, experts.

The Triton forms are interpreted here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.models import kernels

FORMS = ("xla", "triton")


def draw(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def norm64(x):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def heads64(x, kernel, positions, count):
    """Rotation as a product of complex numbers."""
    q, k, v = ((x @ kernel[i]).reshape(*x.shape[:-1], count, -1) for i in range(3))
    half = q.shape[-1] // 2
    angle = positions[:, None] / 10_000 ** (np.arange(half) / half)

    def turn(y):
        y = norm64(y)
        z = jax.lax.complex(y[..., :half], y[..., half:]) * np.exp(1j * angle)[None, :, None]
        return jnp.concatenate([z.real, z.imag], -1)

    return turn(q), turn(k), v


def gated64(x, kernel):
    a, b = x @ kernel[0], x @ kernel[1]
    return a / (1 + jnp.exp(-a)) * b


# name -> (operation of arrays and a form, the same in float64, its arguments)
CASES = {
    "norm": (kernels.rms_norm, norm64, [draw(3, 5, 24)]),
    "norm of one row": (kernels.rms_norm, norm64, [draw(1, 8)]),
    "add_norm": (
        kernels.add_norm,
        lambda x, y: (x + y, norm64(x + y)),
        [draw(3, 7, 16), draw(3, 7, 16, seed=1)],
    ),
    "heads": (
        lambda x, w, form: kernels.heads(x, w, jnp.arange(6), 2, form),
        lambda x, w: heads64(x, w, np.arange(6), 2),
        [draw(3, 6, 12), draw(3, 12, 12)],
    ),
    "heads of a prefix": (  # the query bottleneck's latents lie before the window
        lambda x, w, form: kernels.heads(x, w, jnp.arange(-2, 5), 1, form),
        lambda x, w: heads64(x, w, np.arange(-2, 5), 1),
        [draw(2, 7, 8), draw(3, 8, 8)],
    ),
    "gated": (kernels.gated, gated64, [draw(3, 5, 8), draw(2, 8, 12)]),
    "gated, odd width": (kernels.gated, gated64, [draw(1, 3, 4), draw(2, 4, 7)]),
}


def as_tuple(found):
    return found if isinstance(found, tuple) else (found,)


def slopes(f):
    """Compiled: (arguments, weights) -> (values, gradients of their weighted sum)."""

    def run(arguments, weights):
        def total(*a):
            values = as_tuple(f(*a))
            return sum(jnp.sum(w * y) for w, y in zip(weights, values)), values

        places = tuple(range(len(arguments)))
        gradients, values = jax.grad(total, places, has_aux=True)(*arguments)
        return values, gradients

    return jax.jit(run)


@functools.cache
def exact(name):
    """(values, gradients, the sum's weights) in float64."""
    _, wide, arguments = CASES[name]
    with jax.enable_x64(True):
        shapes = jax.eval_shape(wide, *arguments)
        weights = [draw(*s.shape, seed=9) for s in as_tuple(shapes)]
        return *jax.device_get(slopes(wide)(arguments, weights)), weights


def narrow(arrays):
    return [a.astype(np.float32) for a in arrays]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_float64(name, form):
    operation, _, arguments = CASES[name]
    values, gradients, weights = exact(name)
    found = slopes(functools.partial(operation, form=form))(narrow(arguments), narrow(weights))
    for a, b in zip((*found[0], *found[1]), (*values, *gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_experts_side_by_side_are_experts_alone(name):
    """`vmap`, as `mapping.over_experts` applies it, with gradients."""
    operation, _, arguments = CASES[name]
    f, weights = slopes(functools.partial(operation, form="triton")), narrow(exact(name)[2])
    two = [np.stack([a, 2 * a[::-1]]) for a in narrow(arguments)]
    together = jax.jit(jax.vmap(f, (0, None)))(two, weights)
    for i in range(2):
        alone = f([a[i] for a in two], weights)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["add_norm", "heads", "gated"])
def test_half_precision_is_as_near_as_the_plain_form(name):
    operation, _, arguments = CASES[name]
    half = [a.astype(jnp.bfloat16) for a in narrow(arguments)]
    values, gradients, weights = exact(name)
    weights = [w.astype(jnp.bfloat16) for w in narrow(weights)]
    # In parts of each array's largest number: bfloat16 keeps eight bits.
    off = {
        form: [
            np.abs(np.float64(a) - b).max() / np.abs(b).max()
            for a, b in zip(
                jax.tree.leaves(slopes(functools.partial(operation, form=form))(half, weights)),
                (*values, *gradients),
                strict=True,
            )
        ]
        for form in FORMS
    }
    for plain, triton in zip(off["xla"], off["triton"]):
        assert triton <= max(1.5 * plain, 2**-6)


def test_the_comparison_sees_a_wrong_kernel(monkeypatch):
    """Negative control: a norm with another epsilon, a gate without its second half."""
    from cr_jax.models.kernels.triton import gate, norm

    # JAX keeps what it traced of a kernel, by the kernel's function.
    anew = lambda kernel: lambda *refs: kernel(*refs)
    for module, kernel in ((norm, "_norm_kernel"), (gate, "_gate_kernel")):
        monkeypatch.setattr(module, kernel, anew(getattr(module, kernel)))
    monkeypatch.setattr(norm, "EPS", 1e-3)
    with pytest.raises(AssertionError):
        test_values_and_gradients_equal_float64("norm", "triton")
    monkeypatch.setattr(gate, "_halves", lambda ref: (ref[:, 0, :], ref[:, 0, :]))
    with pytest.raises(AssertionError):
        test_values_and_gradients_equal_float64("gated", "triton")


def test_nothing_to_add_is_the_norm_alone():
    x = draw(2, 3, 8, dtype=np.float32)
    for form in FORMS:
        same, normed = kernels.add_norm(jnp.asarray(x), None, form)
        assert np.array_equal(same, x)
        assert np.array_equal(normed, kernels.rms_norm(jnp.asarray(x), form))


def test_a_context_takes_the_plain_form():
    x, w, other = (jnp.asarray(draw(*s), jnp.float32) for s in ((2, 3, 8), (3, 8, 8), (2, 5, 8)))
    traced = [
        jax.make_jaxpr(
            lambda x, w, other, form=form: kernels.heads(
                x, w, jnp.arange(3), 2, form, (other, jnp.arange(5))
            )
        )(x, w, other)
        for form in FORMS
    ]
    assert str(traced[0]) == str(traced[1]) and "pallas_call" not in str(traced[1])
    assert traced[1].out_avals[1].shape == (2, 5, 2, 4)


def test_blocks_divide_the_rows_and_fit():
    from cr_jax.models.kernels.triton.launch import rows_of

    assert rows_of(65536, 512, 8192) == 16 and rows_of(65536, 2048, 1024) == 1
    assert rows_of(7, 512, 8192) == 1 and rows_of(12, 512, 8192) == 4
    for count in range(1, 40):
        assert count % rows_of(count, 3, 50) == 0 and rows_of(count, 3, 50) * 3 <= 50
