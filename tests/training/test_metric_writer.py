"""metrics.jsonl after a kill, a bad disk or somebody's editor."""

import json

import pytest

from cr_jax.experiment.outcome import curves
from cr_jax.training.metric_writer import MetricWriter, read_metrics

GOOD = [
    {"step": step, "expert": name, "nll": 1.5, "tra": 0.5} for step in (1, 2) for name in ("a", "b")
]
DAMAGED = [
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"7",
    b"null",
    b"{}",
    b'{"step": 1}',
    b'{"step": "1", "expert": "a", "nll": 1.0, "tra": 1.0}',
    b'{"step": true, "expert": "a", "nll": 1.0, "tra": 1.0}',
    b'{"step": 1, "expert": ["a"], "nll": 1.0, "tra": 1.0}',
    b'{"step": 1, "expert": "a", "nll": "x", "tra": null}',
    b"",
]


def write(folder, damage, end=b""):
    lines = [json.dumps(line).encode() for line in GOOD]
    (folder / "metrics.jsonl").write_bytes(b"\n".join([lines[0], damage, *lines[1:], end]))


@pytest.mark.parametrize("damage", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_is_left_out_and_a_run_goes_on(tmp_path, caplog, damage):
    write(tmp_path, damage)
    assert read_metrics(tmp_path / "metrics.jsonl") == GOOD
    assert [r.message for r in caplog.records] == [
        f"1 damaged lines of {tmp_path / 'metrics.jsonl'} are left out"
    ]
    MetricWriter(tmp_path, 1).close()
    caplog.clear()
    assert read_metrics(tmp_path / "metrics.jsonl") == GOOD[:2] and not caplog.records


def test_a_line_that_a_kill_cut_off_needs_no_word(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(GOOD[0]) + '\n{"step": 2, "exp')
    assert read_metrics(tmp_path / "metrics.jsonl") == GOOD[:1] and not caplog.records
    assert read_metrics(tmp_path / "none") == []


def test_curves_know_only_the_runs_experts(tmp_path):
    stranger = b'{"step": 3, "expert": "stranger", "nll": 9.0, "tra": 0.0}'
    write(tmp_path, stranger + b'\n{"step": 4, "expert": "a", "nll": 1.0}')
    looks = [{"step": 2, "seconds": 1.0, "experts": {"a": {"nll": 2.0}, "stranger": {"nll": 3.0}}}]
    found = curves(tmp_path, ["a", "b"], looks)
    assert found.keys() == {"a", "b"} and found["a"]["step"] == found["b"]["step"] == [1, 2]
    assert found["a"]["valid_step"] == [2] and "valid_step" not in found["b"]
