"""A table of runs: settings that differ, figures with their units, and one line for bad input."""

import copy
import json

import pytest

from cr_jax.cli import main
from cr_jax.report import compare

REPORT = {
    "fingerprint": {
        "a": {"a": {"tra": 0.5, "nll": 1.0, "residual": 2.0}, "b": {"tra": 0.0}},
        "b": {"b": {"tra": 0.7, "nll": 3.0, "residual": 4.0}, "a": {"tra": 0.0}},
    },
    "provenance": {
        "config": {"seed": 0, "model": {"latents": 8}, "data": {"domains": {"a": ["x" * 60]}}},
        "commit": "0123456789abcdef",
    },
    "training": {"steps": 10, "tokens_per_expert": 1_000_000, "best": {"loss": 0.25}},
    "routing": {"accuracy": 0.875, "accuracy_rebuild": 0.5},
    "seconds": {"training": 12.34},
    "summary": {"experts": 2, "parameters": 762_112},
}


@pytest.fixture
def runs(tmp_path):
    """Two runs that differ in their latents; the second one routed nothing."""
    other = copy.deepcopy(REPORT)
    other["provenance"]["config"]["model"]["latents"] = 4
    del other["routing"]
    for name, report in (("one", REPORT), ("two", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    return [str(tmp_path / "one"), str(tmp_path / "two" / "report.json")]


def cells(text):
    rows = [line.rsplit(None, 2) for line in text.splitlines() if line.strip()]
    return {row[0].strip(): tuple(row[1:]) for row in rows if len(row) == 3}


def test_what_differs_and_what_came_of_it(runs, capsys):
    assert main(["runs", "compare", *runs]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["one", "two"]
    shown = cells(out)
    assert shown["model.latents"] == ("8", "4")
    assert "seed" not in shown and "domains" not in out  # the same in both
    assert shown["TRA at home, %"] == ("60.00", "60.00")
    assert shown["rebuilding at home, nats/token"] == ("2.0000", "2.0000")
    assert shown["tokens trained on, of an expert"] == ("1,000,000", "1,000,000")
    assert shown["routed right, %"] == ("87.50", "-")
    assert "unknown text, AUROC" not in shown  # neither has it


def test_one_record_per_run(runs, capsys):
    assert main(["runs", "compare", "--json", *runs]) == 0
    one, two = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["run"], two["run"]) == ("one", "two")
    assert (one["settings"], two["settings"]) == ({"model.latents": 8}, {"model.latents": 4})
    assert one["figures"]["routed right, %"] == 87.5 and two["figures"]["routed right, %"] is None


def test_alike_runs_and_long_values(runs, capsys):
    assert main(["runs", "compare", runs[0], runs[0]]) == 0
    assert "(all settings are the same)" in capsys.readouterr().out
    assert len(compare._cell(["x" * 60], "")) == 40
    assert compare.short_names(["a/run", "b/run/report.json"]) == ["a/run", "b/run"]


@pytest.mark.parametrize(
    ("text", "says"), [(None, "has no report.json"), ("{", "not JSON"), ("[]", "is no report")]
)
def test_bad_input_is_one_line(tmp_path, capsys, text, says):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    assert main(["runs", "compare", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
