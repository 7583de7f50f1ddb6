"""What is read of stored runs: whole, without a domain, damaged.  The runs are made up."""

import json

import numpy as np
import pytest

from benchmarks.bank import whole_windows
from benchmarks.bank.residuals import read_run
from cr_jax.errors import UserError

NAMES, WINDOW, WINDOWS = ("up", "down", "leaps"), 32, 20


@pytest.fixture
def folder(tmp_path_factory):
    """A run of three experts that are nearest to most of their own windows, by two rules."""
    made, rng, sums = tmp_path_factory.mktemp("runs"), np.random.default_rng(0), {}
    for split in ("valid", "test"):
        for e, name in enumerate(NAMES):
            drawn = rng.normal(5, 1, (3, WINDOWS)) - 1.5 * (np.arange(3) == e)[:, None]
            sums |= {
                f"{split}/{name}:code:residual": WINDOW * drawn,
                f"{split}/{name}:code2:residual": WINDOW / 2 * drawn,
            }
    np.savez(made / "bank.npz", **sums)
    code = {"predicted": True}
    (made / "bank.json").write_text(
        json.dumps(
            {
                "spec": {
                    "domains": NAMES,
                    "model": {"window": WINDOW, "vocab_size": 50},
                    "train": {},
                    "rules": {"code": code, "code2": code | {"parts": 2, "passes": 1}},
                },
                "log": [{"tra": [0.9]}],
                "seconds": 1.0,
                "device": "cpu",
                "commit": "abc",
            }
        )
    )
    return made


def test_whole_windows_without_a_domain_are_a_bank_that_never_had_it(folder, tmp_path):
    run, out = str(folder / "bank"), tmp_path / "found.json"
    assert whole_windows.main(["--run", run, "--without", "leaps", "--out", str(out)]) == 0
    found, left = json.loads(out.read_text()), ["up", "down"]
    assert found["experts"] == left and [*found["plain"]["per_domain"]] == left
    stored = read_run(run, NAMES)
    assert found["plain"]["test"] == np.mean(
        [(stored[f"test/{n}:code:residual"][:2].argmin(0) == e).mean() for e, n in enumerate(left)]
    )
    with pytest.raises(UserError, match="not scored by code2"):
        whole_windows.report([run], "code2")  # a sample of the positions
    for wrong in (["none"], ["up", "down"]):
        with pytest.raises(UserError, match="--without"):
            whole_windows.report([run], "code", wrong)


@pytest.mark.parametrize(
    "harm",
    ["json gone", "json broken", "json of another kind", "npz gone", "npz broken", "npz cut"],
)
def test_a_damaged_run_is_named(folder, tmp_path, capsys, harm):
    name, kind = tmp_path / "hurt", harm.split()[0]
    for ending in ("json", "npz"):
        whole = (folder / f"bank.{ending}").read_bytes()
        if ending != kind:
            (tmp_path / f"hurt.{ending}").write_bytes(whole)
        elif "gone" not in harm:
            (tmp_path / f"hurt.{ending}").write_bytes(
                whole[:99] if "cut" in harm else b"[]" if "kind" in harm else b"{broken"
            )
    out = tmp_path / "found.json"
    assert whole_windows.main(["--run", str(name), "--out", str(out)]) == 2
    assert "error: there is no run" in (said := capsys.readouterr().err) and "hurt" in said
    assert not out.exists()


def test_a_run_that_names_no_commit_can_be_read(folder, tmp_path):
    record = json.loads((folder / "bank.json").read_text())
    del record["commit"]
    (tmp_path / "bare.json").write_text(json.dumps(record))
    (tmp_path / "bare.npz").write_bytes((folder / "bank.npz").read_bytes())
    assert whole_windows.report([str(tmp_path / "bare")], "code")["runs"][0]["commit"] is None
