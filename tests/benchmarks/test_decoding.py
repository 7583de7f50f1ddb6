"""The speed of decoding: rows that hold together, and flags that cannot be."""

import json

import pytest

from benchmarks.speed import decoding
from cr_jax.models import lm

TINY = [
    "--quick",
    *("--experts=3", "--batches=1,4", "--mix=2", "--prompt=8", "--tokens=64", "--context=128"),
    *("--documents=6", "--window=16", "--seconds=0.01"),
    *("--set=d_model=16", "--set=d_ff=16", "--set=vocab_size=64"),
]


def test_rows_of_a_run(tmp_path, capsys):
    out = tmp_path / "decoding.json"
    assert decoding.main([*TINY, f"--out={out}"]) == 0
    found = json.loads(out.read_text())
    rows = {(r["what"], r["arm"], r["batch"], r.get("mix")): r for r in found["rows"]}
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found["rows"])
    for batch in (1, 4):
        dense, routed, mixed = (
            rows["decode", arm, batch, mix]
            for arm, mix in (("dense", 1), ("routed", 1), ("routed", 2))
        )
        assert (dense["speak"], dense["of_dense"]) == (1, 1.0)
        assert 1 <= routed["speak"] <= min(3, batch) and mixed["speak"] >= 2
        for row in (routed, mixed):
            assert row["of_dense"] == row["tokens_per_s"] / dense["tokens_per_s"]
        for row in (dense, routed, mixed):
            assert row["tokens_per_s"] == pytest.approx(1000 * batch / row["ms"])
            assert row["tokens_per_s_range"][0] <= row["tokens_per_s"]
            assert row["cache_positions"] == 128  # nothing is filled anew while it is timed
    assert rows["score", "routed", 6, None]["of_dense"] > 0
    resident, one = (rows["memory", arm, 1, None] for arm in ("resident", "on demand"))
    assert resident["stored_bytes"] == 4 * 3 * found["parameters"]
    assert resident["ready_bytes"] == 3 * one["ready_bytes"] and one["load_ms"] > 0
    config = decoding._model(decoding._parser().parse_args(TINY))
    assert found["parameters"] == lm.count_lm_parameters(config)
    assert found["command"].startswith("python -m benchmarks.speed.decoding --quick")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tokens", "500"], "--context 128 has no room"),
        (["--set", "depth=3"], "no field 'depth'"),
        (["--set", "blocks=two"], "blocks is a int"),
        (["--set", "heads=3"], "multiple of"),
    ],
)
def test_bad_flags_are_one_line(capsys, flags, says):
    assert decoding.main([*TINY, *flags]) == 2
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and "error: " in err and not out
