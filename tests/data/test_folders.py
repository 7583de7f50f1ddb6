"""Files below a folder: which, in what order, and what cannot be read."""

import os
from pathlib import Path

import pytest

from cr_jax.data.folders import Wanted, files_below
from cr_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name in ("b.py", "a/x.py", "a/x.txt", "a/deep/y.py", ".git/z.py", "c/build/out.py", ".h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.py").symlink_to(tmp_path / "b.py")
    (tmp_path / "nothing").symlink_to(tmp_path / "gone")
    return tmp_path


def names(root, **wanted):
    return [str(p.relative_to(root)) for p in files_below(root, Wanted(**wanted))]


def test_every_regular_file_that_is_not_hidden_once(root):
    assert names(root) == ["a/deep/y.py", "a/x.py", "a/x.txt", "b.py", "c/build/out.py", "link.py"]


def test_patterns_are_of_names_or_of_paths(root):
    assert names(root, include=["*.txt"]) == ["a/x.txt"]
    assert names(root, include=["a/*.py"]) == ["a/deep/y.py", "a/x.py"]
    assert names(root, exclude=["build", "*.txt"]) == ["a/deep/y.py", "a/x.py", "b.py", "link.py"]
    assert names(root, include=["*.py"], exclude=["a/deep", "c", "link*"]) == ["a/x.py", "b.py"]


def test_gitignore_files_count_where_asked_for(root):
    (root / ".gitignore").write_text("build/\n*.txt\n")
    (root / "a/.gitignore").write_text("!x.txt\n/deep\n")
    assert "c/build/out.py" in names(root)
    assert names(root, gitignore=True) == ["a/x.py", "a/x.txt", "b.py", "link.py"]


def test_a_gitignore_that_is_no_file_of_its_own_is_told_and_not_waited_for(root):
    os.mkfifo(root / ".gitignore")
    (root / "a/.gitignore").symlink_to("/dev/zero")
    (root / "c/.gitignore").write_text("#" * (1 << 20) + "\n*\n")
    (root / "a/deep/.gitignore").write_text("\ufeff*.py\n")
    found = list(files_below(root, Wanted(gitignore=True)))
    told = [str(x) for x in found if isinstance(x, UserError)]
    assert len(told) == 3 and all(".gitignore" in line for line in told)
    assert "neither a file" in told[0] and "a link" in told[1] and "1,048,576" in told[2]
    assert [x.name for x in found if not isinstance(x, UserError)] == [
        *("x.py", "x.txt", "b.py", "out.py", "link.py")
    ]


def test_folders_lie_as_deep_as_they_like(tmp_path):
    folders = [tmp_path / "x"]
    try:
        for _ in range(1000):
            folders[-1].mkdir()
            folders.append(Path(f"{folders[-1]}/d"))
        deep = folders[-2] / "text"
        deep.write_text("text")
        (tmp_path / "y").write_text("text")
        assert list(files_below(tmp_path, Wanted(gitignore=True))) == [deep, tmp_path / "y"]
    finally:  # who deletes the rest recurses
        deep.unlink(missing_ok=True)
        for folder in reversed(folders[:-1]):
            folder.rmdir()


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_found(root, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = list(files_below(root))
    (told,) = [x for x in found if isinstance(x, UserError)]
    assert f"{root}/a cannot be read" in str(told) and len(found) == 4
