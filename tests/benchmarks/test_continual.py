"""Reports joined to one JSON, narrow domains cut, and what a few bigram models cost."""

import json

import numpy as np
import pytest

from benchmarks.continual import collect, narrow, scale
from cr_jax.errors import UserError

ROUTED = {
    "acc": 0.95,
    "bwt": -0.01,
    "fwt": 0.0,
    "forgetting": 0.01,
    "flip_rate": 0.004,
    "lost_rate": 0.002,
    "stored_bytes": 4.0,
    "parameters": 10,
    "tra": {"acc": 0.9, "bwt": -0.002, "fwt": 0.3, "forgetting": 0.003},
}
ALONE = {
    "acc": 0.4,
    "bwt": -0.3,
    "fwt": 0.2,
    "forgetting": 0.3,
    "code_length": {"acc": 3.0, "bwt": 1.0},
    "stored_bytes": 0,
    "parameters": 10,
}


def report(bwt=-0.3, order="near", name="small", domains=3):
    return {
        "name": name,
        "continual": {
            "methods": {
                "sequential": {**ALONE, "bwt": bwt},
                "ngrams": ROUTED,
                "joint": {"acc": 0.8},
            },
            "methods_order": order,
            "rules": {},
            "chosen": "plain",
            "before_routing": {},
            "orders": {order: ["d"] * domains},
        },
        "provenance": {"devices": ["cpu"], "commit": "x", "versions": {}},
    }


def written(folder, **reports):
    paths = []
    for name, made in reports.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(made))
        paths.append(str(path))
    return paths


def test_runs_are_joined_and_other_programs_keys_stay(tmp_path, capsys):
    out = tmp_path / "continual.json"
    out.write_text(json.dumps({"detection": {"documents": 7}, "methods": {"old": 1}}))
    paths = written(tmp_path, a=report(), b=report(-0.5))
    assert collect.main(["--reports", *paths, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["detection"] == {"documents": 7} and found["kills"] is None
    sequential, ngrams = found["methods"]["sequential"], found["methods"]["ngrams"]
    assert sequential["bwt"] == sequential["bwt_after_routing"] == pytest.approx(-0.4)
    assert sequential["spread"] == [-0.5, -0.3] and sequential["seeds"] == 2
    assert ngrams["bwt"] == 0 and ngrams["bwt_after_routing"] == -0.002
    assert ngrams["acc"] == 0.9 and ngrams["routing"]["acc"] == 0.95
    assert found["methods"]["joint"]["bwt"] is None and "ngrams" in capsys.readouterr().out


def test_other_runs_have_methods_of_their_own(tmp_path):
    small, large = report(), report(-0.7, name="large", domains=9)
    for rival in ("ngrams", "joint"):
        large["continual"]["methods"].pop(rival)
    paths = written(tmp_path, a=large, b=small)
    out = tmp_path / "o.json"
    assert collect.main(["--reports", *paths, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["methods"]["sequential"]["run"] == "large"
    assert found["methods"]["ngrams"]["run"] == "small"
    assert found["runs"]["large"]["domains"] == 9 and found["runs"]["small"]["devices"] == ["cpu"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["continual"].update(methods_order="far"), "other orders"),
        (lambda r: r["continual"]["methods"].pop("joint"), "other rivals"),
        (lambda r: r.pop("continual"), "has no rivals"),
    ],
)
def test_reports_that_do_not_belong_together_are_refused(tmp_path, capsys, change, says):
    other = report()
    change(other)
    paths = written(tmp_path, a=report(), b=other)
    assert collect.main(["--reports", *paths, "--out", str(tmp_path / "o.json")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "o.json").exists()


def test_a_run_is_named(tmp_path, capsys):
    assert collect.main(["--runs", "results/x", "--out", str(tmp_path / "o.json")]) == 2
    assert "NAME=RUN" in capsys.readouterr().err


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two wide domains: three repositories with enough text and one with little, and a program."""
    monkeypatch.setattr(narrow, "KEYS", {"code": "repo", "logs": "group"})
    monkeypatch.setattr(narrow, "LEAST", 4000)
    draw = np.random.default_rng(0)
    groups = {"code": ("one", "two", "three", "small"), "logs": ("ssh",)}
    for wide, names in groups.items():
        (tmp_path / wide).mkdir()
        lines = []
        for i, name in enumerate(names):
            words = [f"{name}{j}" for j in range(30 + i)]
            for _ in range(1 if name == "small" else 4):
                text = " ".join(draw.choice(words, 300))
                lines.append(json.dumps({"text": text, narrow.KEYS[wide]: name}))
        (tmp_path / wide / "train.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_narrow_domains_are_those_with_enough_text_of_every_wide_one(data):
    found = narrow.narrow(data, 3)
    assert "logs/ssh" in found and len(found) == 3
    assert set(narrow.narrow(data, 4)) == {"code/one", "code/three", "code/two", "logs/ssh"}
    assert all(sum(map(len, t)) >= 4000 for t in found.values())
    with pytest.raises(UserError, match="has 4 narrow domains"):
        narrow.narrow(data, 5)


def test_a_few_bigram_models_are_counted_mounted_and_planned_for(data, monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "SIZES", (2, 4))
    out = tmp_path / "scale.json"
    words = ["--data", str(data), "--experts", "4", "--orders", "2", "--out", str(out)]
    assert scale.main(words) == 0
    found = json.loads(out.read_text())
    assert found["sizes"].keys() == {"2", "4"}
    assert found["planned"]["table_bytes"] == found["sizes"]["4"]["table_bytes"] * 2500
    plain = found["rules"]["plain"]
    assert plain["experts"] == [2, 4] and plain["accuracy"][-1] > 0.9  # words of their own
    assert found["planned"]["expert_bytes"]["25M"]["int8"] > 2e11
