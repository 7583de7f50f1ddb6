"""Below a folder of somebody else: its own files are read, written and deleted, and no others."""

import os

import pytest

from cr_jax.errors import UserError
from cr_jax.host.inside import Inside, NotInside, draft_name, is_draft, open_inside


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own" / "sub").mkdir(parents=True)
    (tmp_path / "own" / "file").write_bytes(b"mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"not mine")
    return tmp_path / "own"


def odd(folder):
    """Things that are neither a file nor a folder, by name."""
    (folder / "link").symlink_to("../other/file")
    (folder / "to_own").symlink_to("file")
    (folder / "nowhere").symlink_to("missing")
    (folder / "folder_link").symlink_to("../other")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo")
    return ("link", "to_own", "nowhere", "folder_link", "zero", "fifo")


def test_what_is_no_file_is_neither_read_nor_waited_for(folder):
    inside = Inside.at(folder)
    for name in (*odd(folder), "sub"):
        for call in (inside.read, inside.sha256, inside.read_json, inside.folder):
            if name == "sub" and call == inside.folder:
                continue
            with pytest.raises(NotInside, match=f"{folder}/{name} is ") as caught:
                call(name)
            assert "\n" not in str(caught.value)
        assert not inside.is_file(name) and inside.has(name)
    assert inside.read("file") == b"mine"  # negative control
    assert inside.folder("sub").names() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../other/file", "/etc/passwd", "sub/../file"])
def test_a_name_that_leads_elsewhere_is_no_name(folder, name):
    inside = Inside.at(folder)
    for call in (inside.read, inside.folder, inside.writing):
        with pytest.raises(NotInside, match="no name inside"):
            call(name)


def test_a_file_that_becomes_a_link_after_the_look_is_not_followed(folder, monkeypatch):
    real, opened = os.stat, os.open(folder, os.O_RDONLY)

    def replace(name, **more):
        found = real(name, **more)
        (folder / "file").unlink()
        (folder / "file").symlink_to("../other/file")
        return found

    monkeypatch.setattr(os, "stat", replace)
    with pytest.raises(OSError, match="symbolic links"):
        open_inside(opened, "file")
    os.close(opened)


def test_nothing_is_written_through_a_link(folder):
    inside = Inside.at(folder)
    odd(folder)
    for name in ("link", "zero", "fifo"):
        inside.write(name, b"new")  # what was there gives way, it is not followed
        assert inside.read(name) == b"new"
    with pytest.raises(NotInside):
        inside.writing("nowhere")
    assert not (folder / "missing").exists()
    inside.delete("folder_link")
    assert (folder.parent / "other" / "file").read_bytes() == b"not mine"
    assert sorted(inside.names()) == ["fifo", "file", "link", "nowhere", "sub", "to_own", "zero"]


def test_a_file_is_written_whole_or_not_at_all(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    inside = Inside.at(folder)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        inside.write("file", b"other")
    assert inside.read("file") == b"mine" and inside.names() == ["file", "sub"]


def test_more_than_a_file_should_hold_is_not_read(folder):
    with open(folder / "huge", "wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no room
    inside = Inside.at(folder)
    for call in (inside.read, inside.read_json, inside.read_sealed):
        with pytest.raises(UserError, match="huge is larger than"):
            call("huge")
    assert inside.read("file", 4) == b"mine"
    with pytest.raises(UserError, match="larger"):
        inside.read("file", 3)


def test_an_open_folder_stays_the_same_folder(folder):
    inside = Inside.at(folder)
    assert inside.still_there()
    folder.rename(folder.with_name("moved"))
    (folder.parent / "own").mkdir()
    assert not inside.still_there() and inside.read("file") == b"mine"
    inside.write("new", b"1")
    assert (folder.with_name("moved") / "new").exists() and not (folder / "new").exists()
    with pytest.raises(UserError, match="missing"):
        Inside.at(folder).read("file")


def test_names_of_drafts_are_nobody_elses():
    names = [draft_name("e0") for _ in range(100)]
    assert len(set(names)) == 100 and all(is_draft(n, "e0") and is_draft(n) for n in names)
    assert not any(is_draft(n) for n in ("e0", ".e0.123", ".hidden", f".e0.{os.getpid()}"))
    assert not is_draft(draft_name("e1"), "e0")


def test_descriptors_are_closed_with_their_folders(folder):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        Inside.at(folder).folder("sub").names()
        with Inside.at(folder) as inside:
            inside.read("file")
    assert len(os.listdir("/proc/self/fd")) == before
