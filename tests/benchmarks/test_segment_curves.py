"""The curves of a record are drawn beside it; a record without them is refused."""

import json

import pytest

from benchmarks import segment_curves


def test_curves_become_a_picture_beside_the_record(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "segments.json"
    at = {"token": [-2, -1, 0, 1], "fixed windows": [1, 2, 2, 1], "spans": [1, 1, 1, 1]}
    found = {"f1": {"tokens": [30, 75], "experts": [0.8, 0.9]}, "at_switch": at}
    file.write_text(json.dumps({"curves": found}))
    assert segment_curves.main([str(file)]) == 0
    assert (tmp_path / "segments.png").read_bytes()[:4] == b"\x89PNG"


def test_a_record_without_curves_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert segment_curves.main([str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
