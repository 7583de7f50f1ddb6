"""Odd paths: whatever lies there is found."""

import os
from pathlib import Path

import jax
import pytest

from benchmarks.torture import fuzz, places, watch


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    fuzz.make_bank(folder / "bank", 1)
    return folder / "bank"


@pytest.mark.parametrize("name", ["run[1]", "a#b@test", "~", "a\nb", "-x", os.fsdecode(b"\xff")])
def test_everything_is_read_and_written_at_an_odd_path(bank, tmp_path, name):
    watch.install()
    calls = places.calls(bank, (tmp_path, Path(jax.config.jax_compilation_cache_dir)))
    assert len(calls) == 7
    for number, (what, call) in enumerate(calls.items()):
        if what == "a checkpoint" and name.startswith("\udcff"):
            continue  # a workdir's name is UTF-8
        folder = tmp_path / str(number)
        folder.mkdir()
        assert list(call(folder, folder / name / "x")) == [], what


def test_a_file_that_is_passed_over_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "documents", lambda spec: iter(()))
    assert places._text_at(tmp_path, tmp_path / "a") and places._jsonl_at(tmp_path, tmp_path / "b")
    assert places._folder_at(tmp_path, tmp_path / "c")
