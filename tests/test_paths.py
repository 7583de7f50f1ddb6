"""The home folder in paths."""

import os
import pwd
from pathlib import Path

import pytest

from cr_jax.errors import UserError
from cr_jax.host.files import expanded


def test_the_home_folder_is_expanded_as_a_shell_does(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~") == tmp_path and expanded("~/a/~b") == tmp_path / "a" / "~b"
    for same in ("a/~/b", "/~", "", "$HOME/x", "a~"):
        assert expanded(same) == Path(same) and expanded(Path(same)) == Path(same)
    monkeypatch.chdir(tmp_path.parent)
    assert expanded("./~/b") == expanded(expanded("./~/b")) == tmp_path.parent / "~" / "b"
    user = pwd.getpwuid(os.getuid())
    assert expanded(f"~{user.pw_name}/x") == Path(user.pw_dir, "x")


def test_a_name_of_nobody_is_a_path_only_where_it_is_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for path in ("~nobody-of-this-name", "~nobody-of-this-name/*.txt"):
        with pytest.raises(UserError, match="set HOME") as caught:
            expanded(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "~nobody-of-this-name").mkdir()
    for path in ("~nobody-of-this-name", "~nobody-of-this-name/*.txt"):
        assert expanded(path) == tmp_path / path


def test_without_a_home_folder_no_path_is_made_up(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "")
    for path in ("~", "~/runs"):
        with pytest.raises(UserError, match="set HOME"):
            expanded(path)
    monkeypatch.delenv("HOME")

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match="set HOME"):
        expanded("~/runs")
    assert expanded("runs") == Path("runs")
