"""Windows dealt over devices: the same scores, each device its share, experts on all of them."""

import jax
import numpy as np
import pytest
import tiny_bank
from tiny_bank import TINY, in_memory, windows

from cr_jax import router
from cr_jax.config import SEEN, EvalConfig
from cr_jax.scoring import batching, devices, residuals
from cr_jax.scoring.batching import BatchSizes

ONE, FOUR = BatchSizes(windows=2), BatchSizes(windows=2, devices=4)


def test_scores_are_those_of_one_device():
    bank, some = in_memory(3), windows(11)
    alone, dealt = (router.score_bank(bank, some, s, SEEN) for s in (ONE, FOUR))
    np.testing.assert_allclose(dealt.residual, alone.residual, rtol=1e-6)
    np.testing.assert_array_equal(dealt.exact, alone.exact)
    tokens = [router.score_tokens(bank, some, s) for s in (ONE, FOUR)]
    assert tokens[1].nll.shape == (3, 11, TINY.window)
    np.testing.assert_allclose(tokens[1].nll, tokens[0].nll, rtol=1e-5, atol=1e-6)
    assert dealt.surprise is None
    # Negative control: other windows have other scores.
    assert np.abs(alone.residual[:, 0] - alone.residual[:, 1]).min() > 0


def test_each_device_computes_its_share_by_one_program(monkeypatch):
    shapes, calls, real = [], [], residuals.window_sums
    traced = lambda *a: shapes.append(a[2].shape) or real(*a)
    monkeypatch.setattr(residuals, "window_sums", traced)
    program = devices._program

    def recorded(*args):
        run = program(*args)

        def call(*arrays):
            calls.append(run(*arrays))
            return calls[-1]

        return call

    monkeypatch.setattr(devices, "_program", recorded)
    for seed in (0, 1):
        router.score_bank(in_memory(3), windows(16, seed=seed), FOUR)
    assert set(shapes) == {(2, TINY.window)} and len(shapes) == 1
    assert len(calls) == 4  # 16 windows are two calls of 4 x 2
    for sums in calls:
        shards = sums.residual.addressable_shards
        assert {s.device for s in shards} == set(jax.local_devices()[:4])
        assert {s.data.shape for s in shards} == {(3, 2)}


def test_each_process_scores_its_share_and_all_get_everything(monkeypatch):
    bank, some = in_memory(3), windows(11)
    two = BatchSizes(windows=2, processes=2)
    alone = router.score_bank(bank, some, ONE, SEEN)
    sent = []

    def of_process(number):
        """What process `number` sends to the others."""

        def send(mine):
            sent.append(mine)
            raise ConnectionError

        monkeypatch.setattr(devices.processes, "gathered", send)
        monkeypatch.setattr(devices.jax, "process_index", lambda: number)
        with pytest.raises(ConnectionError):
            router.score_bank(bank, some, two, SEEN)

    for number in (0, 1):
        of_process(number)
    assert [s.residual.shape for s in sent] == [(3, 6), (3, 6)]  # the last window twice
    together = jax.tree.map(lambda *x: np.stack(x), *sent)
    monkeypatch.setattr(devices.processes, "gathered", lambda mine: together)
    found = router.score_bank(bank, some, two, SEEN)
    np.testing.assert_allclose(found.residual, alone.residual, rtol=1e-6)
    np.testing.assert_array_equal(found.exact, alone.exact)


def test_shares_are_all_windows_in_order():
    for count, processes in ((1, 4), (7, 2), (8, 2), (9, 4)):
        dealt = [devices.share(count, p, processes) for p in range(processes)]
        assert len({len(x) for x in dealt}) == 1
        assert np.concatenate(dealt)[:count].tolist() == list(range(count))


def test_few_windows_and_blocks_of_a_document_stay_on_one_device(monkeypatch):
    monkeypatch.setattr(devices, "_mesh", lambda count: pytest.fail("windows were dealt"))
    bank = in_memory(2)
    router.score_bank(bank, windows(2), FOUR)
    router.score_bank(bank, windows(11), FOUR, rows=2)
    with pytest.raises(pytest.fail.Exception):
        router.score_bank(bank, windows(11), FOUR)


def test_more_devices_than_there_are_is_one_line():
    beyond = BatchSizes(windows=2, devices=jax.local_device_count() + 1)
    tiny_bank.refuses(lambda: router.score_bank(in_memory(2), windows(11), beyond), "devices=")
    tiny_bank.refuses(lambda: BatchSizes(devices=0), "devices")


def test_accelerators_are_all_used_and_a_cpu_is_one(monkeypatch):
    settings = EvalConfig(expert_chunk=3, batch=5)
    assert BatchSizes.of(settings) == BatchSizes(3, 5, devices=1)
    monkeypatch.setattr(batching.jax, "process_count", lambda: 4)
    assert BatchSizes.of(settings).over_processes() == BatchSizes(3, 5, processes=4)
    monkeypatch.setattr(batching.jax, "default_backend", lambda: "gpu")
    assert BatchSizes.of(settings) == BatchSizes(3, 5, devices=jax.local_device_count())
    assert BatchSizes.for_device().devices == jax.local_device_count()
    # As many devices share the weights as in training, but of this process alone.
    for fsdp, of_process in (
        (2, 2),
        (3, 1),
        (4 * jax.local_device_count(), jax.local_device_count()),
    ):
        assert BatchSizes.of(settings, fsdp).fsdp == of_process


def test_with_fsdp_no_device_holds_a_whole_large_leaf(monkeypatch):
    monkeypatch.setattr(devices, "SMALL", 64)
    programs, real = [], devices._split_program

    def recorded(*args):
        run = real(*args)
        return lambda *arrays: programs.append((run, arrays)) or run(*arrays)

    monkeypatch.setattr(devices, "_split_program", recorded)
    bank, split = in_memory(3), BatchSizes(windows=2, devices=4, fsdp=2)
    for some in (windows(11), windows(1)):  # few windows, too, have no device to themselves
        alone = router.score_bank(bank, some, ONE, SEEN)
        found = router.score_bank(bank, some, split, SEEN)
        np.testing.assert_allclose(found.residual, alone.residual, rtol=1e-5)
        np.testing.assert_array_equal(found.exact, alone.exact)
    run, (parts, tokens, mask) = programs[0]
    large = [x for x in jax.tree.leaves(parts) if x[0].size > 64]
    assert large
    for leaf in large:
        assert {s.data.size for s in leaf.addressable_shards} == {leaf.size // 2}
    # What the compiled program takes on each device, as XLA says (leaves without use are left out).
    compiled = run.lower(parts, tokens, mask).compile()
    whole = sum(x.nbytes for x in jax.tree.leaves(parts))
    taken = compiled.memory_analysis().argument_size_in_bytes
    assert 0 < taken < 0.7 * whole
    assert "all-gather" in compiled.as_text()  # weights are collected where they are used


def test_fsdp_that_does_not_divide_is_one_line():
    wrong = BatchSizes(windows=2, devices=4, fsdp=3)
    tiny_bank.refuses(lambda: router.score_bank(in_memory(2), windows(3), wrong), "fsdp=3")
