"""The type checks laid over the package see a wrong shape, a wrong type and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import checked
import jax
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, Key, PyTree, TypeCheckError

from cr_jax.bank.parameters import shapes
from cr_jax.data.windows import Windows
from cr_jax.models.layers import project

ROWS = Float[Array, "B L"]


@pytest.mark.parametrize(
    "hint",
    [
        *(ROWS, ROWS | None, tuple[ROWS, ...], dict[str, list[ROWS]], Callable[[ROWS], int]),
        *(PyTree, PyTree[Float[Array, "B"]], Key[Array, ""], Iterator[ROWS], "Rows"),
    ],
    ids=str,
)
def test_a_hint_with_a_shape(hint):
    assert checked._shaped(hint)


@pytest.mark.parametrize(
    "hint",
    [int, int | None, dict[str, Any], Callable[..., Any], Literal["B L"], None, np.ndarray],
    ids=str,
)
def test_a_hint_without(hint):
    assert not checked._shaped(hint)


def test_calls_of_the_package_are_checked():
    rows = np.zeros((2, 3), np.float32)
    assert jax.eval_shape(project, rows, np.zeros((3, 4), np.float32)).shape == (2, 4)
    for call in (
        lambda: project(rows, "weights"),
        lambda: shapes("no model"),  # a function without arrays
        lambda: Windows(rows.tolist(), rows > 0, rows[:, 0]),  # a dataclass
    ):
        with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
            call()
