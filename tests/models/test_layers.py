"""Which attention runs where, and what cannot run."""

import dataclasses

import pytest
from tiny_bank import TINY

from cr_jax import models
from cr_jax.errors import UserError
from cr_jax.models.layers import attention_kernel


@pytest.mark.parametrize(("backend", "dtype", "auto"), [
    ("cpu", "float32", "xla"), ("cpu", "bfloat16", "xla"), ("tpu", "bfloat16", "xla"),
    ("gpu", "float32", "xla"), ("gpu", "bfloat16", "cudnn")])
def test_cudnn_is_refused_wherever_auto_would_not_take_it(monkeypatch, backend, dtype, auto):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    wanted = lambda name: dataclasses.replace(TINY, dtype=dtype, attention=name)
    assert attention_kernel(wanted("auto")) == auto and attention_kernel(wanted("xla")) == "xla"
    if auto == "cudnn":
        assert attention_kernel(wanted("cudnn")) == "cudnn"
        return
    with pytest.raises(UserError, match="cudnn needs a GPU and bfloat16; use auto"):
        attention_kernel(wanted("cudnn"))


def test_it_is_one_line_before_anything_is_trained():
    with pytest.raises(UserError, match="use auto"):
        models.count_parameters(dataclasses.replace(TINY, attention="cudnn"))
