"""The collected results say what the raw logs say, and no more."""

import json
import pathlib

import pytest

from benchmarks import collect

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = sorted((ROOT / "results" / "breakdown").glob("*.json"))
RUNS = sorted((ROOT / "results" / "record").glob("*.json"))


def test_the_committed_results_are_those_of_the_raw_logs():
    found = collect.collect([str(p) for p in STEPS], [str(p) for p in RUNS])
    committed = json.loads((ROOT / "results" / "throughput.json").read_text())
    assert len(committed["rows"]) == len(found["rows"]) >= 6
    for ours, theirs in zip(committed["rows"], found["rows"]):
        assert ours["source"] == theirs["source"] and ours["commit"] == theirs["commit"]
        for field in ("tokens_per_s", "tflops", "mfu", "peak_tflops_measured"):
            expected = theirs[field]
            assert ours[field] == (None if expected is None else pytest.approx(expected))
    assert committed["mfu_wanted"]["shown"] is found["mfu_wanted"]["shown"]


def test_a_share_of_a_rate_measured_elsewhere_is_not_called_mfu(tmp_path, capsys):
    out = tmp_path / "throughput.json"
    words = ["--breakdown", *map(str, STEPS), "--record", *map(str, RUNS), "--out", str(out)]
    assert collect.main(words) == 0
    found = json.loads(out.read_text())
    apart = [row for row in found["rows"] if row["host_work"]]
    beside = [row for row in found["rows"] if not row["host_work"]]
    assert len(apart) == len(RUNS) and all(row["mfu"] is None for row in apart)
    for row in beside:  # the log's share and the package's FLOP count agree
        assert row["tflops"] / row["peak_tflops_measured"] == pytest.approx(row["mfu"])
    low, high = apart[-1]["mfu_by_rates_of_other_runs"]
    rates = [row["peak_tflops_measured"] for row in beside]
    assert low == pytest.approx(apart[-1]["tflops"] / max(rates))
    assert high == pytest.approx(apart[-1]["tflops"] / min(rates))


def test_wanted_share_is_shown_only_by_a_product_of_the_same_run(tmp_path):
    raw = json.loads(STEPS[0].read_text())
    raw["pieces"][0]["share"] = 0.46
    fast = tmp_path / "fast.json"
    fast.write_text(json.dumps(raw))
    assert collect.collect([str(fast)], [])["mfu_wanted"]["shown"]
    assert not collect.collect([str(STEPS[0])], [])["mfu_wanted"]["shown"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pieces": [{}]}'])
def test_other_files_are_one_line_and_status_2(tmp_path, capsys, text):
    path, out = tmp_path / "log.json", tmp_path / "out.json"
    path.write_text(text)
    assert collect.main(["--breakdown", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not out.exists()
