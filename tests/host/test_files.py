"""Paths as users name them, and files that are whole or not there."""

import os

import pytest

from cr_jax.bank.files import BankFolder
from cr_jax.cli import main
from cr_jax.config.files import with_homes
from cr_jax.data import load_corpus, load_tokenizer
from cr_jax.data.sources import documents, parse
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError
from cr_jax.host import files
from cr_jax.parallel import compiled
from cr_jax.training.workdir import LONGEST, locked


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another one that the process is in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_tilde_in_front_is_the_home_folder_and_no_other_is(home):
    assert files.expanded("~/run") == home / "run"
    for name in ("run/~", "a~b", ".", "/x/~"):
        assert str(files.expanded(name)) == name
    assert files.expanded("./~/run") == home.parent / "here" / "~" / "run"


def test_a_home_that_is_not_known_is_one_line_and_never_a_folder(home, monkeypatch):
    with pytest.raises(UserError, match="not known here"):
        files.expanded("~nobody-of-this-name/run")
    monkeypatch.setenv("HOME", "")
    for place in (
        lambda: files.expanded("~/run"),
        lambda: BankFolder("~/run"),
        lambda: with_homes(["main.py", "--workdir=~/run"]),
        lambda: locked("~/run").__enter__(),
    ):
        with pytest.raises(UserError, match="home folder that is not known") as caught:
            place()
        assert "\n" not in str(caught.value)
    assert os.listdir() == []


def test_every_place_that_takes_a_path_expands_it(home):
    ByteTokenizer().save(home / "tokenizer")
    assert load_tokenizer("~/tokenizer").kind == "bytes"
    (home / "a.txt").write_text("river")
    assert [d.text for d in documents("files:~/a.txt")] == ["river"]
    assert with_homes(
        ["main.py", "--config=~/c.py:v", "--workdir", "~/run", "--config.x=~", "~"]
    ) == ["main.py", f"--config={home}/c.py:v", "--workdir", f"{home}/run", "--config.x=~", "~"]
    with locked("~/run") as folder:
        assert folder == home / "run"
    with pytest.raises(UserError, match=f"no bank at {home}/bank"):
        BankFolder("~/bank")
    assert os.listdir() == []  # of the folder that the process is in


@pytest.mark.parametrize("cache", ["", "not/absolute"])
def test_no_home_means_no_cache_and_no_folder(home, monkeypatch, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert compiled.folder()[0] == (f"{home}/.cache/cr-jax/programs" if not cache else "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert compiled.folder()[0] == "" and os.listdir() == []


def test_a_home_that_cannot_be_written_means_no_cache(home, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (home / ".cache").write_text("a file")
    assert compiled.folder()[0] == ""


@pytest.mark.parametrize(
    "spec, target, field",
    [
        ("jsonl:C#/a.jsonl", "C#/a.jsonl", "text"),
        ("jsonl:C#/a.jsonl#code", "C#/a.jsonl", "code"),
        ("jsonl:a.jsonl#code@train", "a.jsonl", "code"),
        ("jsonl:a#b.jsonl#text", "a#b.jsonl", "text"),
        ("jsonl:a.jsonl#", "a.jsonl", "text"),
        ("jsonl:#/a", "#/a", "text"),
    ],
)
def test_the_last_number_sign_begins_the_field_unless_a_folder_ends_there(spec, target, field):
    found = parse(spec)
    assert (found.target, found.field) == (target, field)


@pytest.mark.parametrize("folder", ["run[1]", "a*b", "what?", "C#", "two words"])
def test_patterns_below_a_folder_of_any_name(home, folder):
    place = home / folder / "sub"
    place.mkdir(parents=True)
    (place / "1.txt").write_text("one")
    (place / "2.txt").write_text("two")
    for pattern in ("sub/*.txt", "*/?.txt", "**/[12].txt", "sub/1.txt", "sub", ""):
        found = [d.text for d in documents(f"files:~/{folder}/{pattern}")]
        assert found == (["one"] if "1.txt" in pattern else ["one", "two"]), pattern
    names = [d.name for d in documents(f"files:~/{folder}/sub/*.txt")]
    assert names == ["1.txt", "2.txt"]  # they do not depend on where the folder lies


def test_a_pattern_is_still_a_pattern(home):
    for name in ("run1", "run2"):
        (home / name).mkdir()
        (home / name / "a.txt").write_text(name)
    assert [d.text for d in documents("files:~/run[1]/a.txt")] == ["run1"]


def test_a_workdir_that_is_too_long_is_refused_before_anything_is_made(tmp_path):
    most = os.pathconf(tmp_path, "PC_PATH_MAX")
    room = most - LONGEST - len(os.fsencode(tmp_path))
    name = "/".join(["x" * 99] * (room // 100 + 2))
    with pytest.raises(UserError, match="too long") as caught, locked(tmp_path / name):
        pass
    assert len(str(caught.value)) < 300 and os.listdir(tmp_path) == []
    with locked(tmp_path / name[: room - 2]) as folder:
        assert folder.is_dir()


def test_a_workdir_that_is_not_utf8_is_one_line(tmp_path):
    name = tmp_path / os.fsdecode(b"run\xff")
    with pytest.raises(UserError, match="not UTF-8") as caught, locked(name):
        pass
    assert str(caught.value).isprintable() and os.listdir(tmp_path) == []


def test_links_that_lead_in_a_circle_are_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="cannot be made") as caught, locked(tmp_path / "a" / "run"):
        pass
    assert "\n" not in str(caught.value)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x"
    files.write_whole(path, "größe")
    assert path.read_bytes() == "größe".encode()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"other")
    assert path.read_bytes() == "größe".encode() and os.listdir(tmp_path) == ["x"]


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002])
def umask(request):
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def mode(path):
    return path.stat().st_mode & 0o777


def test_files_and_folders_have_the_umask_s_modes(tmp_path, umask):
    path = files.write_whole(tmp_path / "x", b"")
    assert mode(path) == 0o666 & ~umask
    assert mode(files.fresh_folder(tmp_path, ".making-")) == 0o777 & ~umask
    path.chmod(0o600)
    files.give_usual_mode(path)
    assert mode(path) == 0o666 & ~umask and os.listdir(tmp_path).count("x") == 1


def test_the_token_cache_has_the_umask_s_modes(tmp_path, umask):
    (tmp_path / "a.txt").write_text("river " * 40)
    load_corpus(f"files:{tmp_path}/a.txt", ByteTokenizer(), tmp_path / "cache")
    found = list((tmp_path / "cache").rglob("*"))
    assert len(found) == 4
    for path in found:
        assert mode(path) == (0o777 if path.is_dir() else 0o666) & ~umask, path.name


def test_a_flag_that_names_an_unknown_home_says_why(home, capsys, monkeypatch):
    monkeypatch.setenv("HOME", "")
    assert main(["bank", "list", "--bank=~/bank"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "home folder that is not known here" in err
