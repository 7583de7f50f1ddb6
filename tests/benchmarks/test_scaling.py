"""The scaling benchmark at a tiny size: rows, checks that can fail, a file that keeps its parts."""

import json

import pytest

from benchmarks import jax_bench, scaling

QUICK = ["--quick"]


@pytest.fixture(scope="module", autouse=True)
def _keep_programs():
    """Those of all other tests would be freed between the rows, too, and compiled again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_bench, "release", lambda: None)
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("scaling") / "scaling.json"
    out.write_text(json.dumps({"params_1b": {"kept": 1}, "runs": {"1b": {"command": "c"}}}))
    assert scaling.main([*QUICK, "--work=expert", f"--out={out}"]) == 0
    return json.loads(out.read_text())


def test_rows_of_one_and_two_devices_and_the_same_losses(measured):
    one, two = measured["rows"]
    assert (one["devices"], two["devices"]) == (1, 2) and one["efficiency"] == 1
    assert {"devices", "kind", "mode", "tokens_per_s", "efficiency"} <= two.keys()
    assert two["efficiency"] == pytest.approx(two["tokens_per_s"] / one["tokens_per_s"] / 2)
    # Each of two devices holds half of the experts.
    held = [r["planned_gib_per_device"]["state"] for r in (one, two)]
    assert held[1] == pytest.approx(held[0] / 2, rel=0.02)
    (check,) = measured["checks"]
    assert check["same"] and check["largest_difference"] < check["tolerance"]
    losses = check["losses_one_device"]
    assert len(losses) == scaling.STEPS and len(losses[0]) == 4
    # The comparison can fail: steps and experts differ by far more.
    assert abs(losses[0][0] - losses[1][0]) > 10 * check["tolerance"]
    assert abs(losses[0][0] - losses[0][1]) > 10 * check["tolerance"]


def test_the_other_part_of_the_file_is_kept(measured):
    assert measured["params_1b"] == {"kept": 1}
    assert measured["runs"].keys() == {"1b", "87m"}
    assert "--work=expert" in measured["runs"]["87m"]["command"]


def test_other_losses_fail_and_bad_flags_are_one_line(monkeypatch, capsys):
    rows = iter([({"tokens_per_s": 1.0}, [[1.0]]), ({"tokens_per_s": 1.5}, [[1.5]])])
    monkeypatch.setattr(scaling, "time_steps", lambda *_: next(rows))
    monkeypatch.setattr(scaling, "COLUMNS", ("tokens_per_s",))
    assert scaling.main([*QUICK, "--work=expert"]) == 1
    assert "NOT THE SAME" in capsys.readouterr().out
    for flags in (["--work=experts"], ["--devices=9"], ["--model=1b", "--set=blocks=2"]):
        assert scaling.main([*QUICK, *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --") and error.count("\n") == 1


def test_a_billion_in_small(tmp_path):
    out = tmp_path / "s.json"
    assert scaling.main([*QUICK, "--model=1b", "--micro=8", f"--out={out}"]) == 0
    found = json.loads(out.read_text())["params_1b"]
    assert found["finite"] and found["accumulate"] == 4 and len(found["losses"]) == 4
    assert found["losses"][-1] < found["losses"][0]
    assert {"tokens_per_s", "mfu_measured_matmul", "peak_memory_gib"} <= found.keys()
