"""Merging rows: one denominator, the best of each, like against like; bad input in one line."""

import json

import pytest

from benchmarks import throughput
from benchmarks.results import Results, write
from cr_jax.errors import UserError


def row(framework, optimizer, rate, matmul, tflops):
    return {
        "model": "87m",
        "framework": framework,
        "optimizer": optimizer,
        "tokens_per_s": rate,
        "tflops": tflops,
        "mfu": tflops / matmul,
        "process_matmul_tflops": matmul,
    }


def test_rows_are_merged_and_written_as_they_come(tmp_path):
    out = tmp_path / "new" / "results.json"
    results = Results(str(out), "command")
    read = lambda: json.loads(out.read_text())
    results.add("row", row("jax", "adamw", 300.0, 700.0, 350.0))
    assert read()["rows"][0]["mfu"] == pytest.approx(0.5)
    assert read()["torch_ratio_87m"] is None
    results.add("row", row("torch", "adamw", 100.0, 800.0, 80.0))
    results.add("row", row("torch", "adamw", 200.0, 800.0, 160.0))
    results.add("row", row("jax", "muon", 280.0, 700.0, 320.0))
    results.add("skipped", {"model": "1b", "why": "time"})
    found = read()
    assert len(found["rows"]) == 3 and len(found["trials"]) == 4
    # The peer's best counts, and MFU is against the fastest product that any process measured.
    assert found["torch_ratio_87m"] == pytest.approx(1.5)
    assert found["torch_ratios"]["87m"]["muon"] == pytest.approx(1.4)
    assert {r["peak_tflops_measured"] for r in found["rows"]} == {800.0}
    assert found["rows"][0]["mfu"] == pytest.approx(350 / 800)
    assert found["skipped"] == [{"model": "1b", "why": "time"}]
    # Plain kernels have a row of their own, and the ratio stays the faster one's.
    results.add("row", {**row("jax", "adamw", 290.0, 700.0, 330.0), "kernels": "xla"})
    assert len(read()["rows"]) == 4 and read()["torch_ratio_87m"] == pytest.approx(1.5)
    assert [p.name for p in out.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    "bad",
    [
        ["--models", "90m"],
        ["--batches", "many"],
        ["--set", "remat=1"],
        ["--optimizers", "sgd"],
        ["--kernels", "cuda"],
        ["--set", "kernels=cuda"],
        ["--chunk", "0"],
        ["--chunks", "a"],
        ["--pieces", "("],
    ],
)
def test_bad_arguments_are_one_line_and_status_2(bad, capsys):
    with pytest.raises(UserError):
        throughput.parse_arguments(bad)
    assert throughput.main(bad) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1


def test_unwritable_results_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write(str(tmp_path / "file" / "results.json"), "{}")
