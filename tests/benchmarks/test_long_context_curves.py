"""The picture of long contexts is drawn of what was measured, and of part of it."""

import json

import pytest

from benchmarks import long_context_curves as curves


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    row = lambda n: {"tokens_per_s": 1e6 / n, "state_bytes": 10 * n}
    speed = {arm: {str(n): row(n) for n in (1024, 10240)} for arm in ("static_kv", "tconst")}
    file = tmp_path / "long_context.json"
    file.write_text(json.dumps({"speed": speed}))
    assert curves.main([str(file)]) == 0
    without = file.with_suffix(".png").read_bytes()
    assert without[:4] == b"\x89PNG"
    file.write_text(json.dumps({"speed": speed, "perplexity": {"plain": {"1024": 9.0}}}))
    assert curves.main([str(file)]) == 0
    assert file.with_suffix(".png").read_bytes() != without  # perplexities are in it


def test_a_record_without_speeds_is_one_line(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert curves.main([str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
