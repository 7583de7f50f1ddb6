"""What is read of stored runs: whole, without a domain, damaged.  The runs are made up."""

import json

import numpy as np
import pytest

from benchmarks.bank import cascade, whole_windows
from benchmarks.bank.inputs import write_sets
from benchmarks.bank.residuals import read_run
from cr_jax.data import Windows
from cr_jax.errors import UserError

NAMES, WINDOW, WINDOWS = ("up", "down", "leaps"), 32, 20


@pytest.fixture
def folder(tmp_path_factory):
    """A run of three experts that are nearest to most of their own windows, by two rules; and the
    tokens that it might be made from."""
    made, rng, sums = tmp_path_factory.mktemp("runs"), np.random.default_rng(0), {}
    sets = {}
    for split in ("valid", "test"):
        for e, name in enumerate(NAMES):
            drawn = rng.normal(5, 1, (3, WINDOWS)) - 1.5 * (np.arange(3) == e)[:, None]
            sums |= {f"{split}/{name}:code:residual": WINDOW * drawn,
                     f"{split}/{name}:code2:residual": WINDOW / 2 * drawn}
            sets[f"{split}/{name}"] = Windows(
                rng.integers(0, 50, (WINDOWS, WINDOW)).astype(np.int32),
                np.ones((WINDOWS, WINDOW), bool), np.arange(WINDOWS))
            np.save(made / f"{name}.train.npy", rng.integers(0, 50, 20 * WINDOW))
    write_sets(made / "sets.npz", sets)
    np.savez(made / "bank.npz", **sums)
    code = {"predicted": True}
    (made / "bank.json").write_text(json.dumps({
        "spec": {"domains": NAMES, "model": {"window": WINDOW, "vocab_size": 50}, "train": {},
                 "rules": {"code": code, "code2": code | {"parts": 2, "passes": 1}}},
        "log": [{"tra": [0.9]}], "seconds": 1.0, "device": "cpu", "commit": "abc"}))
    return made


def test_whole_windows_without_a_domain_are_a_bank_that_never_had_it(folder, tmp_path):
    run, out = str(folder / "bank"), tmp_path / "found.json"
    assert whole_windows.main(["--run", run, "--without", "leaps", "--out", str(out)]) == 0
    found, left = json.loads(out.read_text()), ["up", "down"]
    assert found["experts"] == left and [*found["plain"]["per_domain"]] == left
    stored = read_run(run, NAMES)
    assert found["plain"]["test"] == np.mean([
        (stored[f"test/{n}:code:residual"][:2].argmin(0) == e).mean() for e, n in enumerate(left)])
    for wrong in (["none"], ["up", "down"]):
        with pytest.raises(UserError, match="--without"):
            whole_windows.report([run], "code", wrong)


@pytest.mark.parametrize("harm", ["json gone", "json broken", "json of another kind", "npz gone",
                                  "npz broken", "npz cut"])
def test_a_damaged_run_is_named(folder, tmp_path, capsys, harm):
    name, kind = tmp_path / "hurt", harm.split()[0]
    for ending in ("json", "npz"):
        whole = (folder / f"bank.{ending}").read_bytes()
        if ending != kind:
            (tmp_path / f"hurt.{ending}").write_bytes(whole)
        elif "gone" not in harm:
            (tmp_path / f"hurt.{ending}").write_bytes(
                whole[:99] if "cut" in harm else b"[]" if "kind" in harm else b"{broken")
    out = tmp_path / "found.json"
    for call in (
            lambda: whole_windows.main(["--run", str(name), "--out", str(out)]),
            lambda: cascade.main(["--run", str(name), "--rule", "code", "--tokens", str(folder),
                                  "--out", str(out)])):
        assert call() == 2
        assert "error: there is no run" in (said := capsys.readouterr().err) and "hurt" in said
    assert not out.exists()


def test_a_run_that_names_no_commit_can_be_read(folder, tmp_path):
    record = json.loads((folder / "bank.json").read_text())
    del record["commit"]
    (tmp_path / "bare.json").write_text(json.dumps(record))
    (tmp_path / "bare.npz").write_bytes((folder / "bank.npz").read_bytes())
    bare, out = str(tmp_path / "bare"), tmp_path / "found.json"
    assert whole_windows.report([bare], "code")["runs"][0]["commit"] is None
    words = ["--run", bare, "--rule", "code", "--tokens", str(folder), "--out", str(out)]
    assert cascade.main(words) == 0
    assert json.loads(out.read_text())["run_commit"] is None


def test_bigram_models_need_to_know_the_vocabulary(folder, tmp_path, capsys):
    record = json.loads((folder / "bank.json").read_text())
    del record["spec"]["model"]["vocab_size"]
    (tmp_path / "old.json").write_text(json.dumps(record))
    (tmp_path / "old.npz").write_bytes((folder / "bank.npz").read_bytes())
    assert cascade.main(["--run", str(tmp_path / "old"), "--rule", "code", "--tokens", str(folder),
                         "--out", str(tmp_path / "found.json")]) == 2
    assert "vocab_size" in capsys.readouterr().err and not (tmp_path / "found.json").exists()
