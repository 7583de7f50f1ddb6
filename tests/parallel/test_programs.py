"""A process does not compile again what it has, and never takes one program for another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.parallel import plan as parallel
from cr_jax.parallel import programs

EXPERTS = 2


@pytest.fixture(autouse=True)
def _none_kept():
    programs.forget()
    yield
    programs.forget()


traces = []


def start(scale, key, shift=0.0):
    traces.append("start")
    return {"w": scale * jax.random.normal(key, (3,)) + shift}


def make_step(scale, axis_name):
    def step(state, batch, progress):
        traces.append("step")
        return {"w": state["w"] - scale * progress}, {"sum": jnp.sum(batch["x"])}

    return step


def run(make, scale, mode="jit", rows=4, experts_by="vmap"):
    """(start, weights after a step)."""
    plan = parallel.make_plan(mode, EXPERTS, rows, devices=jax.devices()[:1])
    keys = parallel.expert_keys(0, "ab")
    state = plan.init(functools.partial(start, scale), keys)
    first = plan.to_host(plan.gather(state))["w"]
    batch = plan.put({"x": np.ones((EXPERTS, rows, 1), np.float32)})
    program = plan.compile_step(make, experts_by, state, batch)
    return first, plan.to_host(plan.gather(program(state, batch, 1.0)[0]))["w"]


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_second_run_traces_nothing_and_computes_the_same(mode):
    one = run(functools.partial(make_step, 2.0), 1.0, mode)
    traces.clear()
    two = run(functools.partial(make_step, 2.0), 1.0, mode)
    assert traces == []
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one[0] - one[1], 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    "other", [{"mode": "pmap"}, {"rows": 8}, {"experts_by": "map"}], ids=lambda x: next(iter(x))
)
def test_another_layout_batch_or_order_is_another_program(other):
    make = functools.partial(make_step, 2.0)
    run(make, 1.0)
    traces.clear()
    run(make, 1.0, **other)
    assert "step" in traces


def test_other_arguments_are_another_program():
    run(functools.partial(make_step, 2.0), 1.0)
    first, last = run(functools.partial(make_step, 3.0), 5.0)
    np.testing.assert_allclose(first - last, 3.0, rtol=1e-6)
    plan, keys = parallel.make_plan("jit", EXPERTS, 8), parallel.expert_keys(0, "ab")
    found = [
        plan.to_host(plan.init(functools.partial(start, 5.0, shift=by), keys))["w"]
        for by in (0.0, 7.0)
    ]
    np.testing.assert_allclose(first, found[0], rtol=1e-6)
    np.testing.assert_allclose(found[1] - found[0], 7.0, rtol=1e-5)


def test_of_a_function_that_cannot_be_compared_nothing_is_kept():
    for make in (make_step(2.0, None), functools.partial(make_step, [2.0])):
        assert programs.once(make, (), object) is not programs.once(make, (), object)
    make = functools.partial(make_step, 2.0)
    assert programs.once(make, (1,), object) is programs.once(make, (1,), object)
    assert programs.once(make, (1,), object) is not programs.once(make, (2,), object)


def test_only_the_latest_are_kept():
    make = functools.partial(make_step, 2.0)
    first = programs.once(make, (0,), object)
    for i in range(1, programs.KEPT):
        programs.once(make, (i,), object)
    assert programs.once(make, (0,), object) is first  # and now the latest
    programs.once(make, (programs.KEPT,), object)
    assert programs.once(make, (0,), object) is first
    assert programs.once(make, (1,), object) is not first
    assert len(programs._kept) == programs.KEPT
