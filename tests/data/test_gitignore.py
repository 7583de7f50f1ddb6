"""Patterns of .gitignore files, as git reads them."""

import subprocess

import pytest

from cr_jax.data.gitignore import ignored, rules

FILE = """
# comment
*.pyc
build/
/top.txt
docs/*.html
**/cache
logs/**
!keep.pyc
a?c
[xy]1
trailing\\ 
"""
PATHS = """
m.pyc sub/m.pyc keep.pyc sub/keep.pyc build/x sub/build/x buildx top.txt sub/top.txt docs/a.html
docs/sub/a.html cache/x sub/cache/x logs/a logs/b/c abc sub/abc abbc x1 z1
"""


def ours(path: str) -> bool:
    """Also what lies in a folder that is left out."""
    parts, own = path.split("/"), [("", rules(FILE.split("\n")))]
    return any(ignored("/".join(parts[:n]), n < len(parts), own) for n in range(1, len(parts) + 1))


def test_git_says_the_same(tmp_path):
    (tmp_path / ".gitignore").write_text(FILE)
    try:
        subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("needs git")
    paths = PATHS.split()
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    said = subprocess.run(
        ["git", "check-ignore", *paths], cwd=tmp_path, capture_output=True, text=True
    ).stdout.split()
    assert [p for p in paths if ours(p)] == said and 5 < len(said) < len(paths)


def test_an_inner_file_has_the_last_word():
    files = [("", rules(["*.txt"])), ("sub/", rules(["!a.txt", "/b.md"]))]
    assert ignored("a.txt", False, files) and not ignored("sub/a.txt", False, files)
    assert ignored("sub/b.md", False, files) and not ignored("sub/sub/b.md", False, files)
    assert rules(["", "#", "!", "/", "[z-a]"]) == []
