"""The type checks laid over the package see a wrong type, a wrong shape, and two that differ."""

import checked
import jax
import numpy as np
import pytest
from jaxtyping import Array, Float, TypeCheckError

from cr_jax.bank.parameters import shapes
from cr_jax.data.windows import Windows
from cr_jax.models.layers import project


@checked.shaped(typechecker=checked.types)
def longer(a: Float[Array, "B L"], b: Float[Array, " B"], grown: bool) -> Float[Array, "B L+1"]:
    joined = jax.numpy.concatenate([a, b[:, None]], 1)
    return joined if grown else a


def test_shapes_of_a_call_belong_together():
    a, b = jax.numpy.zeros((2, 3)), jax.numpy.zeros(2)
    assert longer(a, b, True).shape == (2, 4)
    assert longer(a[:1], b[:1], True).shape == (1, 4)  # sizes of a call end with it
    for wrong in ((a, b[:1], True), (a, b, False), (a[0], b, True), (a, b, 1)):
        with pytest.raises(TypeCheckError):
            longer(*wrong)


def test_calls_of_the_package_are_checked():
    rows = np.zeros((2, 3), np.float32)
    assert jax.eval_shape(project, rows, np.zeros((3, 4), np.float32)).shape == (2, 4)
    for call in (
        lambda: project(rows, "weights"),
        lambda: shapes("no model"),
        lambda: Windows(rows.tolist(), rows > 0, rows[:, 0]),  # a dataclass
    ):
        with pytest.raises(TypeCheckError):
            call()
