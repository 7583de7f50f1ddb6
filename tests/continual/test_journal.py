"""A line of the journal is there whole or not at all."""

import errno
import os

import pytest
from tiny_bank import refuses

from cr_jax.continual.journal import NAME, Journal
from cr_jax.host.inside import Inside


def test_lines_come_back_in_their_order(tmp_path):
    one, two = {"event": "a", "text": "ü\n\u2028"}, {"event": "b", "n": 1.5}
    journal = Journal(Inside.at(tmp_path))
    journal.add(one)
    journal.add(two)
    assert (tmp_path / NAME).read_bytes().count(b"\n") == 2
    assert journal.events == Journal(Inside.at(tmp_path)).events == [one, two]


@pytest.mark.parametrize("rest", [b"{", b'{"event": "c"}', b'{"event"'])
def test_what_a_kill_left_of_a_line_is_cut_off(tmp_path, rest):
    Journal(Inside.at(tmp_path)).add({"event": "a"})
    with open(tmp_path / NAME, "ab") as stream:
        stream.write(rest)
    held = (tmp_path / NAME).read_bytes()
    assert len(Journal(Inside.at(tmp_path), dry=True).events) == 1
    assert (tmp_path / NAME).read_bytes() == held
    Journal(Inside.at(tmp_path)).add({"event": "d"})
    assert [e["event"] for e in Journal(Inside.at(tmp_path)).events] == ["a", "d"]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"event": 1}\n', b"\n"])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / NAME).write_bytes(b'{"event": "a"}\n' + line + b'{"event": "b"}\n')
    refuses(lambda: Journal(Inside.at(tmp_path)), NAME, "line 2 is damaged")


def test_a_full_disk_leaves_nothing_of_a_line(tmp_path, monkeypatch):
    journal = Journal(Inside.at(tmp_path))
    journal.add({"event": "a"})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    refuses(lambda: journal.add({"event": "b"}), "cannot write", "No space left", "same command")

    def refused(file, data):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "write", refused)
    refuses(lambda: journal.add({"event": "c"}), "Read-only file system")
    monkeypatch.undo()
    assert [e["event"] for e in journal.events] == ["a"]
    assert (tmp_path / NAME).read_bytes() == b'{"event": "a"}\n'


def test_a_dry_journal_writes_nothing(tmp_path):
    journal = Journal(Inside.at(tmp_path), dry=True)
    journal.add({"event": "a"})
    assert len(journal.events) == 1 and list(tmp_path.iterdir()) == []
    assert Journal(None, dry=True).events == []
