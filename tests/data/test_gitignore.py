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
    assert rules(["", "#", "!", "/", "[a", "[[:none:]]", "a\\"]) == []


NAMES = "a b ab a-b a]b a^b a!b aXb a1b a\\b [a a* axb.c za zb AB a.b x* x[ b- b: b[ xa.txt xbb.txt"
PATTERNS = r"""
a/**/b  **/b  a/**  a/**/**/b  **/a/**  **  */b  a[/]b  a[^x]b  a[!x]b  x[/y]z  a/[b]
a[[:digit:]]b  a[[:upper:][:digit:]]b  [[:alpha:]]  a[[:punct:]]b  [[:nope:]]  [[:alpha:]  [[:x]b
[a  \[a  \x\*  a\\b  a\  [z-a]  [z-a]a  a[]]b  a[]-]b  a[!]]b  a[\]]b  a[^-]b  a[0-\9]b
[a-]  [a-b]a  [--b]  a*b  *a*b  **b  ??  a\/b  /a//b  a//  a/b/  *.*  [\a-\b]  [[:]b  [b-\
b[[]  b[:-]  [!a/]b  a/*/b  a/*b  x*.txt  x*b.txt  /*/a  !a  \!a  a***b  ***/b  []  [!]
**/a/**/b  a/**/a/b  [^a-zA-Z]*  b[+--]  b[\[-\]]  a/?/b  [[:space:]-b]b
"""


def test_git_says_the_same_of_odd_patterns(tmp_path):
    try:
        subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("needs git")
    paths = [
        f"{folder}{name}"
        for folder in ("", "a/", "a/b/", "q/a/", "a/x/a/")
        for name in NAMES.split()
    ]
    matched = 0
    for pattern in PATTERNS.split():
        (tmp_path / ".gitignore").write_text(pattern + "\n")
        said = subprocess.run(
            ["git", "check-ignore", "--no-index", "-z", "--stdin"],
            cwd=tmp_path,
            input="\0".join(paths),
            capture_output=True,
            text=True,
        ).stdout.split("\0")[:-1]
        own = [("", rules([pattern]))]

        def out(path, own=own):
            parts = path.split("/")
            upto = range(1, len(parts) + 1)
            return any(ignored("/".join(parts[:n]), n < len(parts), own) for n in upto)

        assert (pattern, [p for p in paths if out(p)]) == (pattern, said)
        matched += bool(said)
    assert matched > 40


def test_a_hostile_pattern_takes_no_time():
    name = "a" * 200
    own = [
        ("", rules(["*a" * 100 + "b", "/" + "**/a*/" * 60 + "b", "[*" * 50 + " " * 10_000 + "x"]))
    ]
    assert len(own[0][1]) == 2
    assert not ignored(name, False, own) and not ignored("/".join(["aa"] * 200), False, own)
