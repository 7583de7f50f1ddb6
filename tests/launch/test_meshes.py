"""Two real processes that each hold a part of the state: half of the experts, then half of each.

Neither has all of it at any time; the bank on process 0 does.
"""

import json
import runpy

import jax
import numpy as np
import pytest
from test_local import CONFIG, LOCAL, call

import cr_jax
from cr_jax import app
from cr_jax import config as settings


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(workdir of two processes, of a run in this process, what the former's two starts said)."""
    folder = tmp_path_factory.mktemp("meshes")
    file = folder / "tiny.py"
    # The rate must not depend on the length: the first start ends early.
    file.write_text(CONFIG.replace(
        'optimizer.name = "adamw"', 'optimizer.update(name="adamw", schedule="constant", warmup=0)'
    ).replace("steps=20", "steps=12"))
    two, one = folder / "two", folder / "one"
    start = [LOCAL, "--processes=2", "--on=cpu", f"--config={file}", f"--workdir={two}"]
    said = [call(*start, "--config.mesh_expert=2", "--config.train.steps=5"),
            call(*start, "--config.mesh_fsdp=2")]
    for done in said:
        assert done.returncode == 0, done.stderr
    app.run(settings.build(runpy.run_path(str(file))["get_config"]()), one)
    return two, one, said


def test_the_losses_are_those_of_one_process_also_from_one_layout_to_the_next(runs):
    two, one, said = runs
    assert "data 1 x fsdp 1 x expert 2, 2 processes" in said[0].stdout
    assert "data 1 x fsdp 2 x expert 1, 2 processes" in said[1].stdout
    assert "at step 5" in said[1].stdout  # it goes on, it does not start anew
    ours, theirs = ([json.loads(x) for x in (w / "metrics.jsonl").read_text().splitlines()]
                    for w in (two, one))
    assert [(m["step"], m["expert"]) for m in ours] == [(m["step"], m["expert"]) for m in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["nll"] == pytest.approx(b["nll"], abs=1e-4)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], abs=1e-4)
    assert abs(ours[0]["nll"] - ours[-2]["nll"]) > 1e-2  # the comparison can fail


def test_process_0_builds_the_whole_bank(runs):
    banks = [cr_jax.ExpertBank.load(w / "bank") for w in runs[:2]]
    assert banks[0].names == banks[1].names == ("novels_en", "statutes")
    assert not banks[0].verify()
    for a, b in zip(*(jax.tree.leaves(bank.params) for bank in banks)):
        # Adam turns a gradient that is zero but for rounding into a step of 0.001.
        np.testing.assert_allclose(a, b, atol=3e-3)
        assert np.median(np.abs(a - b)) < 1e-5 < np.median(np.abs(a[0] - a[1]))


def test_each_process_wrote_its_own_parts_of_a_checkpoint(runs):
    state = runs[0] / "checkpoints" / "12" / "state"
    assert {p.name for p in state.glob("ocdbt.process_*")} == {
        "ocdbt.process_0", "ocdbt.process_1"}
