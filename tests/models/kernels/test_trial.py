"""Kernels that fail, or are wrong, on a device are noticed before a run depends on them."""

import re
import types

import jax
import jax.numpy as jnp
import pytest

from cr_jax.models.kernels import rows, trial

SIZES = (16, 2, 32, 48)


@pytest.fixture(autouse=True)
def _fresh():
    trial.failure.cache_clear()
    yield
    trial.failure.cache_clear()


def with_triton(monkeypatch, **changed):
    real = rows._triton()
    names = ("rms_norm", "add_norm", "heads", "gated", "cross_entropy")
    fake = types.SimpleNamespace(**{n: getattr(real, n) for n in names} | changed)
    monkeypatch.setattr(rows, "_triton", lambda: fake)


def test_good_kernels_pass_also_when_a_trace_asks():
    asked = []

    @jax.jit
    def step(x):
        asked.append(trial.failure(*SIZES))
        return x

    step(jnp.ones(3))
    assert asked == [""]


def test_a_wrong_gate_is_named(monkeypatch):
    with_triton(monkeypatch, gated=lambda x, kernel: 1.1 * rows.gated(x, kernel))
    assert re.fullmatch(r"gate is off by \d+% on this device", trial.failure(*SIZES))


def test_what_the_compiler_throws_is_a_reason(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("ptxas: no such target\nand a long trace")

    with_triton(monkeypatch, add_norm=broken)
    assert trial.failure(*SIZES) == ("they fail on this device: RuntimeError ptxas: no such target")


def test_a_loss_that_hides_nan_is_noticed(monkeypatch):
    right = lambda *a: rows.cross_entropy(*a)
    with_triton(
        monkeypatch,
        rms_norm=rows.rms_norm,
        add_norm=rows.add_norm,
        gated=rows.gated,
        heads=lambda x, k, positions, count: rows.heads(x, k, positions, count),
        cross_entropy=lambda *a: (right(*a)[0], jnp.nan * right(*a)[1], right(*a)[2]),
    )
    assert trial.failure(*SIZES) == "the loss is off by inf% on this device"
