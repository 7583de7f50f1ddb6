"""A run's folder is made where it may be, and one run holds it."""

import os

import pytest

from cr_jax.errors import UserError
from cr_jax.training.workdir import locked


def test_an_empty_name_is_not_the_folder_that_we_are_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="empty"), locked(""):
        pass
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line_that_says_so():
    with pytest.raises(UserError, match="cannot be made") as caught, locked("/proc/nowhere"):
        pass
    assert "\n" not in str(caught.value) and "own" not in str(caught.value)
