"""A process that is killed while it mounts an expert leaves none, and the same command goes on."""

import os
import pathlib
import subprocess
import sys

import tiny_grow
from tiny_bank import contents

import cr_jax
from cr_jax.bank import ExpertBank
from cr_jax.continual.grow import grow
from cr_jax.experiment import new_experts

PROGRAM = pathlib.Path(tiny_grow.__file__)
STREAM = [*tiny_grow.KINDS * 3, *["marks", "digits"] * 12]


def grown(*words):
    folders = [str(PROGRAM.parents[2]), str(PROGRAM.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_as_it_mounts_it_goes_on_without_training_again(tmp_path, monkeypatch):
    bank = tiny_grow.bank(tmp_path)
    inbox = tiny_grow.inbox(tmp_path / "inbox", STREAM)
    before = contents(bank)
    # The first folder of this name is the training's own bank's, the second the bank's.
    killed = grown(bank, inbox, "new-N", 2)
    assert killed.returncode == -9, killed.stderr
    assert ExpertBank.load(bank).names == tiny_grow.KINDS
    monkeypatch.setattr(new_experts, "make_plan", new_experts.make_plan)
    tiny_grow.one_device()
    said = grow(bank, tiny_grow.of_folder(inbox), tiny_grow.OPTIONS)
    assert any("training was complete" in e.get("line", "") for e in said)
    assert [e["event"] for e in said if e["event"] in ("found", "mounted")] == ["mounted"]
    now = contents(bank)
    assert all(now[path] == data for path, data in before.items() if path.parts[0] == "experts")
    made = ExpertBank.load(bank)
    assert made.names == (*tiny_grow.KINDS, "new-1") and made.verify() == []
    assert cr_jax.route(made, tiny_grow.text("marks", 5)).nearest == "new-1"
    left = [path for path in (tmp_path / "bank.buffer").rglob("*") if path.is_file()]
    kept = [path for path in left if path.parent.name == "documents"]
    assert len(kept) == said[-1]["kept"] and len(left) == len(kept) + 2  # no text of the expert's
