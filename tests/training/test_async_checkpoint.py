"""Checkpoints written behind the steps: what the caller waits for, and what it hears of failures.

The loop's part: test_async_loop.py.  Kills: test_resume.py and benchmarks/torture.
"""

import contextlib
import functools
import os
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gate import PATIENCE, Gate, refuse
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cr_jax.errors import UserError
from cr_jax.parallel import plan as parallel
from cr_jax.training import checkpoint
from cr_jax.training.checkpoint import Checkpointer

STATE = {"w": np.arange(24, dtype=np.float32).reshape(8, 3), "n": np.full(8, 7, np.int32)}


@contextlib.contextmanager
def opened(folder, keep=2):
    checkpointer = Checkpointer(folder, keep)
    try:
        yield checkpointer
    finally:
        checkpointer.close()


@pytest.fixture
def may_write(monkeypatch):
    """Nothing reaches Orbax before this event is set."""
    event, save = threading.Event(), checkpoint.ocp.Checkpointer.save

    def later(self, *arguments, **more):
        assert event.wait(PATIENCE)
        return save(self, *arguments, **more)

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "save", later)
    return event


def test_save_returns_before_the_seal_and_wait_after_it(tmp_path, monkeypatch):
    gate = Gate(monkeypatch, [1])
    with opened(tmp_path) as checkpointer:
        checkpointer.save(1, STATE, {}, {})
        assert gate.reached.wait(PATIENCE)
        checkpointer.check()  # nothing has failed, and it does not wait
        assert checkpointer.steps() == [] and (tmp_path / "1").exists()
        gate.open.set()
        checkpointer.wait()
        assert checkpointer.steps() == [1] and gate.held == [1]


def test_close_and_restore_wait_for_the_save_under_way(tmp_path, monkeypatch):
    gate = Gate(monkeypatch, [1, 2])
    with opened(tmp_path) as checkpointer:
        for step in (1, 2):
            gate.reached.clear()
            gate.open.clear()
            checkpointer.save(step, STATE, {}, {})
            assert gate.reached.wait(PATIENCE)
            threading.Timer(0.1, gate.open.set).start()
            if step == 1:
                assert checkpointer.restore(STATE)[0] == 1
    assert checkpointer.steps() == [1, 2] and {1, 2} == set(gate.held)


def test_a_save_waits_for_the_one_before(tmp_path, monkeypatch):
    """Else there could be any number of copies of the state."""
    gate = Gate(monkeypatch, [1])
    copied, to_host = [], checkpoint._to_host
    monkeypatch.setattr(checkpoint, "_to_host", lambda x: (copied.append(0), to_host(x))[1])
    with opened(tmp_path) as checkpointer:
        checkpointer.save(1, STATE, {}, {})
        second = threading.Thread(target=checkpointer.save, args=(2, STATE, {}, {}))
        assert gate.reached.wait(PATIENCE)
        second.start()
        second.join(0.3)
        assert second.is_alive() and len(copied) == 1
        gate.open.set()
        second.join(PATIENCE)
        assert not second.is_alive() and len(copied) == 2
        checkpointer.wait()
        assert checkpointer.steps() == [1, 2] and gate.hashed == [1, 2]


def test_the_seal_comes_last_and_only_then_an_older_step_goes(tmp_path, monkeypatch):
    seen, real = [], os.replace

    def replace(source, to):
        here = sorted(p.name for p in tmp_path.iterdir())
        seen.append((pathlib.Path(to).name, here))
        real(source, to)

    monkeypatch.setattr(checkpoint.os, "replace", replace)
    with opened(tmp_path, keep=1) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, STATE, {}, {})
        checkpointer.wait()
    seals = [x for x in seen if x[0] in ("1.json", "2.json")]
    assert seals == [("1.json", ["1", "1.partial"]), ("2.json", ["1", "1.json", "2", "2.partial"])]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "2.json"]


def layouts():
    mesh = Mesh(np.array(jax.devices()), ("d",))
    plan = parallel.make_plan("pmap", 8, 8)
    over = lambda spec: lambda x: jax.device_put(x, NamedSharding(mesh, spec))
    return {
        "one device": jnp.array,
        "sharded": over(PartitionSpec("d")),
        "replicated": over(PartitionSpec()),
        "pmap": lambda x: plan.spread(x),
    }


@pytest.mark.parametrize("layout", layouts())
def test_buffers_that_the_next_step_reuses_are_not_read(tmp_path, may_write, layout):
    state = {k: layouts()[layout](x) for k, x in STATE.items()}
    gather = (lambda x: x.addressable_shards[0].data[0]) if layout == "pmap" else lambda x: x
    change = functools.partial(
        jax.jit,
        lambda x, by: jax.tree.map(lambda leaf: leaf + by, x),
        out_shardings={k: x.sharding for k, x in state.items()},
    )
    state = change()(state, 0)  # a buffer of numpy's would not be reused
    with opened(tmp_path) as checkpointer:
        checkpointer.save(1, {k: gather(x) for k, x in state.items()}, {}, {})
        places = {k: _pointers(x) for k, x in state.items()}
        changed = jax.block_until_ready(change(donate_argnums=0)(state, 100))
        # JAX 0.11 keeps views of what lies on several CPUs, and then gives the step other memory.
        kept = jax.__version_info__[:2] == (0, 11) and layout in ("sharded", "replicated")
        if layout != "pmap" and not kept:  # of pmap, the first shard is a copy already
            assert all(x.is_deleted() for x in state.values())
            # The step really writes where the state was: nobody holds a view of it.
            assert {k: _pointers(x) for k, x in changed.items()} == places
        may_write.set()
        found = checkpointer.restore(STATE)[1]
    assert all(np.array_equal(found[k], STATE[k]) for k in STATE)
    assert np.all(np.asarray(gather(changed["w"])) == STATE["w"] + 100)


def _pointers(x):
    return [shard.data.unsafe_buffer_pointer() for shard in x.addressable_shards]


def test_without_the_copy_the_reuse_is_noticed(tmp_path, monkeypatch, may_write):
    """Negative control of the test above."""
    monkeypatch.setattr(checkpoint, "_to_host", lambda leaves: leaves)
    state = {k: jnp.array(x) for k, x in STATE.items()}
    with opened(tmp_path) as checkpointer:
        checkpointer.save(1, state, {}, {})
        jax.block_until_ready(
            jax.jit(lambda x: jax.tree.map(lambda leaf: leaf * 0, x), donate_argnums=0)(state)
        )
        may_write.set()
        with pytest.raises((RuntimeError, ValueError), match="deleted"):
            checkpointer.wait()
        assert checkpointer.steps() == []


def test_what_is_changed_after_save_is_saved_as_it_was(tmp_path, may_write):
    state, iterator = {"w": STATE["w"].copy()}, {"next_index": 1}
    record = {"run": {"elapsed": 1.0}}
    with opened(tmp_path) as checkpointer:
        checkpointer.save(1, state, iterator, record)
        state["w"][:] = 0
        iterator["next_index"] = record["run"]["elapsed"] = 2
        may_write.set()
        _, found, iterator, record = checkpointer.restore({"w": STATE["w"]})
    assert np.array_equal(found["w"], STATE["w"])
    assert (iterator, record) == ({"next_index": 1}, {"run": {"elapsed": 1.0}})


@pytest.mark.parametrize("told_by", ["wait", "save", "check", "restore"])
def test_a_save_that_failed_behind_the_steps_is_told_once(tmp_path, monkeypatch, told_by):
    tell = {
        "wait": lambda c: c.wait(),
        "save": lambda c: c.save(3, STATE, {}, {}),
        "check": lambda c: c.check(),
        "restore": lambda c: c.restore(STATE),
    }[told_by]
    lines = []
    monkeypatch.setattr(checkpoint.logging, "warning", lambda text, *a: lines.append(text % a))
    with opened(tmp_path) as checkpointer:
        checkpointer.save(1, STATE, {}, {})
        checkpointer.wait()
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint.os, "replace", refuse)
            checkpointer.save(2, STATE, {}, {})  # says nothing yet
            checkpoint.futures.wait([checkpointer._saving])
        with pytest.raises(UserError, match=r"cannot save step 2 .*No space left") as caught:
            tell(checkpointer)
        assert "\n" not in str(caught.value)
        assert checkpointer.steps() == [1] and not checkpointer._damage(1)
        # It is told, and over: the same checkpointer saves again when there is room.
        checkpointer.check()
        checkpointer.save(2, STATE, {}, {})
        checkpointer.wait()
        assert checkpointer.steps() == [1, 2] and not checkpointer._damage(2)
    assert not [x for x in lines if "cannot save" in x]


def test_a_failure_that_nobody_waited_for_is_a_warning(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(checkpoint.logging, "warning", lambda text, *a: lines.append(text % a))
    monkeypatch.setattr(checkpoint.os, "replace", refuse)
    with pytest.raises(KeyError, match="first"), opened(tmp_path) as checkpointer:
        checkpointer.save(1, STATE, {}, {})
        raise KeyError("first")
    told = [x for x in lines if "cannot save step 1" in x]
    assert len(told) == 1 and "\n" not in told[0]


def test_several_processes_save_before_they_go_on(tmp_path, monkeypatch):
    orbax = Checkpointer(tmp_path)._orbax  # Orbax itself must not take us for two
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.ocp, "Checkpointer", lambda *a, **k: orbax)
        patched.setattr(jax, "process_count", lambda: 2)
        checkpointer = Checkpointer(tmp_path)
    threads = []
    hash_files = checkpoint.hash_files
    monkeypatch.setattr(
        checkpoint,
        "hash_files",
        lambda folder: (threads.append(threading.current_thread()), hash_files(folder))[1],
    )
    checkpointer.save(1, STATE, {}, {})
    assert checkpointer.steps() == [1] and threads == [threading.current_thread()]
    checkpointer.close()
