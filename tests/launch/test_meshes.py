"""Two real processes train as one: each with half of the rows, then with a part of the state, half
of the experts, then half of each.  Process 0 alone writes, and has the whole bank at the end.

Each process has one CPU device: with more, gloo's collectives deadlock on few cores.
"""

import json
import runpy

import jax
import numpy as np
import pytest
from local_launch import CONFIG, LOCAL, call

import cr_jax
from cr_jax import config as settings
from cr_jax.experiment import run

ENDS = 20, 25, 32  # the steps at which the starts of one run end


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(workdir of two processes, of a run in this process, what the former's three starts said and
    what their second processes logged).
    """
    folder = tmp_path_factory.mktemp("meshes")
    file = folder / "tiny.py"
    # The rate must not depend on the length: the first starts end early.
    # Batches of four windows: 8 test windows of a domain are dealt over the processes.
    looks = 'config.eval.update(every="5 steps", every_windows=9, batch=4, '
    file.write_text(
        CONFIG.replace("config.eval.update(", looks)
        .replace(
            'optimizer.name = "adamw"',
            'optimizer.update(name="adamw", schedule="constant", warmup=0)',
        )
        .replace("steps=20", f"steps={ENDS[-1]}")
        .replace("decoder_blocks=1", "decoder_blocks=0")  # each start compiles it in two processes
    )
    two, one = folder / "two", folder / "one"
    said = []
    for end, mesh in zip(ENDS, ((), ("--config.mesh_expert=2",), ("--config.mesh_fsdp=2",))):
        done = call(
            LOCAL,
            "--processes=2",
            "--on=cpu",
            f"--config={file}",
            f"--workdir={two}",
            f"--config.train.steps={end}",
            *mesh,
        )
        assert done.returncode == 0, done.stderr
        (log,) = (two / "processes").iterdir()  # process 0 has none
        assert log.name == "1.log"
        said.append((done.stdout, log.read_text()))
    run.run(settings.build(runpy.run_path(str(file))["get_config"]()), one)
    return two, one, said


def test_the_losses_are_those_of_one_process_also_from_one_layout_to_the_next(runs):
    two, one, said = runs
    for (out, _), layout in zip(
        said,
        ("data 2 x fsdp 1 x expert 1", "data 1 x fsdp 1 x expert 2", "data 1 x fsdp 2 x expert 1"),
    ):
        assert f"{layout}, 2 processes" in out
    for (out, _), step in zip(said[1:], ENDS):
        assert f"at step {step}" in out  # it goes on, it does not start anew
    ours, theirs = (
        [json.loads(x) for x in (w / "metrics.jsonl").read_text().splitlines()] for w in (two, one)
    )
    looks = [[x for x in found if "valid_nll" in x] for found in (ours, theirs)]
    ours, theirs = ([x for x in found if "nll" in x] for found in (ours, theirs))
    assert [(m["step"], m["expert"]) for m in looks[0]] == [
        (s, n) for s in (*range(5, ENDS[-1], 5), ENDS[-1]) for n in ("novels_en", "statutes")
    ]
    for a, b in zip(*looks, strict=True):
        assert (a["step"], a["expert"]) == (b["step"], b["expert"])
        assert a["valid_nll"] == pytest.approx(b["valid_nll"], abs=1e-4)
    for found in (ours, theirs):
        assert [(m["step"], m["expert"]) for m in found] == [
            (s, n) for s in range(1, ENDS[-1] + 1) for n in ("novels_en", "statutes")
        ]
    for a, b in zip(ours, theirs, strict=True):
        tolerance = 1e-5 if a["step"] <= ENDS[0] else 1e-4
        assert a["nll"] == pytest.approx(b["nll"], abs=tolerance)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], abs=tolerance)
        assert a["tra"] == b["tra"] or a["step"] > ENDS[0]
    # The comparison can fail: losses differ from step to step by far more.
    assert abs(ours[0]["nll"] - ours[2 * ENDS[0] - 2]["nll"]) > 1e-2


def test_only_process_0_writes_and_speaks(runs):
    workdir, _, said = runs
    for out, other in said:
        assert "on 2 cpu device(s)" in out and "report: " in out
        assert not [w for w in ("train", "report", "error", "Traceback") if w in other]
    assert len(list(workdir.glob("events.*"))) == len(said)
    assert (workdir / "report.html").exists() and (workdir / "bank").is_dir()


def test_process_0_builds_the_whole_bank(runs):
    banks = [cr_jax.ExpertBank.load(w / "bank") for w in runs[:2]]
    assert banks[0].names == banks[1].names == ("novels_en", "statutes")
    assert not banks[0].verify()
    for a, b in zip(*(jax.tree.leaves(bank.params) for bank in banks)):
        # Adam turns a gradient that is zero but for rounding into a step of 0.001.
        np.testing.assert_allclose(a, b, atol=3e-3)
        assert np.median(np.abs(a - b)) < 1e-5 < np.median(np.abs(a[0] - a[1]))


def test_what_two_processes_measured_is_what_one_does(runs):
    banks = [cr_jax.ExpertBank.load(w / "bank") for w in runs[:2]]
    for name in banks[0].names:
        ours, theirs = (b.calibration[name].residuals for b in banks)
        assert ours.keys() == theirs.keys()
        for length, values in ours.items():
            np.testing.assert_allclose(values, theirs[length], atol=1e-3)
    ours, theirs = (json.loads((w / "report.json").read_text())["fingerprint"] for w in runs[:2])
    for expert, row in ours.items():
        for domain, cell in row.items():
            other = theirs[expert][domain]
            assert cell["windows"] == other["windows"] and cell["tokens"] == other["tokens"]
            assert cell["nll"] == pytest.approx(other["nll"], abs=1e-3)
    nll = {domain: cell["nll"] for domain, cell in ours["statutes"].items()}
    assert abs(nll["statutes"] - nll["novels_en"]) > 1e-2  # cells are not all alike


def test_each_process_wrote_its_own_parts_of_a_checkpoint(runs):
    state = runs[0] / "checkpoints" / str(ENDS[-1]) / "state"
    assert {p.name for p in state.glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}
