"""One process at a time: with locks, and on disks that have none."""

import concurrent.futures
import errno
import fcntl
import os
import threading
import time

import pytest
import tiny_bank

from cr_jax.bank import ExpertBank, files, import_expert
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside, NotInside
from cr_jax.host.locks import HELD, LOCK, Busy, exclusive, wait_until_free
from cr_jax.training.workdir import locked

NONE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@pytest.fixture(params=[None, *NONE])
def disk(request, monkeypatch):
    """With locks (None), or with the error that `flock` gives where there are none."""
    if request.param is not None:
        no_locks(monkeypatch, request.param)
    return request.param


def no_locks(monkeypatch, code=errno.ENOSYS):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


def holds(folder, wait=0.0):
    return exclusive(Inside.at(folder), wait, "another one is here")


def test_one_at_a_time_and_nothing_is_left(tmp_path, disk):
    with holds(tmp_path):
        with pytest.raises(Busy, match="another one is here"), holds(tmp_path):
            pass
        assert LOCK in os.listdir(tmp_path)
    assert os.listdir(tmp_path) == []
    with holds(tmp_path):
        pass


def test_waiting_ends_when_the_other_is_done(tmp_path, disk):
    got, order = threading.Event(), []

    def first():
        with holds(tmp_path):
            got.set()
            time.sleep(0.1)
            order.append("first")

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(first)
        got.wait(20)
        with holds(tmp_path, 20.0):
            order.append("second")
        done.result()
    assert order == ["first", "second"]


def test_many_that_take_turns_are_never_two(tmp_path, disk):
    inside = []

    def turn(i):
        with holds(tmp_path, 60.0):
            inside.append(i)
            assert len(inside) == 1
            time.sleep(0.002)
            inside.remove(i)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(turn, range(24)))
    assert os.listdir(tmp_path) == []


def test_who_may_not_write_waits_until_it_is_free(tmp_path, disk):
    wait_until_free(Inside.at(tmp_path), 0.0, "another")
    with holds(tmp_path), pytest.raises(Busy, match="another"):
        wait_until_free(Inside.at(tmp_path), 0.0, "another")
    assert os.listdir(tmp_path) == []


def test_a_disk_without_locks_is_told_apart_from_a_lock(tmp_path, monkeypatch):
    no_locks(monkeypatch)
    (tmp_path / HELD).write_text("process 7 on far-away, 00\n")
    with pytest.raises(Busy) as caught, holds(tmp_path):
        pass
    said = str(caught.value)
    assert "this disk has no locks" in said and "process 7 on far-away" in said
    assert f"delete {tmp_path / HELD}" in said
    (tmp_path / HELD).unlink()  # what it says
    with holds(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / HELD).read_text()
        (tmp_path / HELD).write_text("somebody else's by now")
    assert os.listdir(tmp_path) == [HELD]


def test_other_errors_of_locking_are_not_taken_for_either(tmp_path, monkeypatch):
    no_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), holds(tmp_path):
        pass


def test_a_killed_process_leaves_nothing_that_locks(tmp_path):
    (tmp_path / LOCK).write_text("")
    with holds(tmp_path):
        pass


@pytest.mark.parametrize("name", [LOCK, HELD])
def test_a_planted_link_is_not_followed(tmp_path, monkeypatch, name):
    no_locks(monkeypatch)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / name).symlink_to(tmp_path / "victim")
    with pytest.raises(NotInside), holds(tmp_path / "there"):
        pass
    assert not (tmp_path / "victim").exists()


def test_two_that_add_to_a_bank_both_add_or_are_told(tmp_path, disk):
    bank = tiny_bank.on_disk(tmp_path / "bank").folder
    add = lambda name: import_expert(bank, bank / "experts/e0", name)
    names = [f"x{i}" for i in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(add, names)) == names
    loaded = ExpertBank.load(bank)
    assert set(loaded.names) == {"e0", "e1", *names} and loaded.verify() == []


def test_a_bank_that_is_held_is_one_line(tmp_path, monkeypatch, disk):
    bank = tiny_bank.on_disk(tmp_path / "bank").folder
    monkeypatch.setattr(files, "WAIT", 0.0)
    before = tiny_bank.contents(bank)
    with holds(bank):
        tiny_bank.refuses(
            lambda: import_expert(bank, bank / "experts/e0", "x"),
            f"another process is changing the bank {bank}",
        )
        assert ExpertBank.load(bank).names == ("e0", "e1")  # reading needs no lock
    assert tiny_bank.contents(bank) == before


def test_a_run_starts_where_there_are_no_locks(tmp_path, disk):
    with locked(tmp_path / "run") as folder:
        with pytest.raises(UserError, match="another run is using --workdir=") as caught:
            locked(folder).__enter__()
        assert ("no locks" in str(caught.value)) == (disk is not None)
    assert os.listdir(folder) == []
