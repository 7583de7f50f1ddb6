"""The home folder in paths."""

import os
import pwd

import pytest

from cr_jax.errors import UserError
from cr_jax.paths import expanded


def test_the_home_folder_is_expanded_as_a_shell_does(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~") == str(tmp_path) and expanded("~/a/~b") == f"{tmp_path}/a/~b"
    for same in ("a/~/b", "./~/b", "/~", "~nobody-of-this-name/x", "", "$HOME/x", "a~"):
        assert expanded(same) == same
    user = pwd.getpwuid(os.getuid())
    assert expanded(f"~{user.pw_name}/x") == f"{user.pw_dir.rstrip('/')}/x"


def test_without_a_home_folder_no_path_is_made_up(monkeypatch):
    monkeypatch.setenv("HOME", "")
    for path in ("~", "~/runs"):
        with pytest.raises(UserError, match="HOME is not set"):
            expanded(path)
    monkeypatch.delenv("HOME")

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match="HOME is not set"):
        expanded("~/runs")
    assert expanded("runs") == "runs"
