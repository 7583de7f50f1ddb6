"""The whole experiment at a tiny size, its negative controls, and what bad input gets."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tiny_run

import cr_jax
from cr_jax import app, evaluation, finished_bank
from cr_jax import config as settings
from cr_jax.bank import import_expert
from cr_jax.cascade import Cascade
from cr_jax.data import load_corpus
from cr_jax.data.windows import Windows, eval_windows
from cr_jax.errors import UserError
from cr_jax.studies import routing

ROOT = pathlib.Path(__file__).resolve().parents[1]


def tiny_config(folder):
    """Two experts for 60 steps; `marks` is the domain that none was trained on."""
    config = settings.default()
    config.data.domains = {
        name: settings.domain(
            *(f"files:{folder}/{name}-{split}.txt" for split in ("train", "valid", "test")))
        for name in tiny_run.NAMES}
    config.data.unseen = {"marks": settings.domain(test=f"files:{folder}/marks-test.txt")}
    config.model.update({k: v for k, v in settings.to_dict(tiny_run.MODEL).items()
                         if k != "vocab_size"})
    config.tokenizer.kind = "bytes"
    config.optimizer.update(name="adamw", learning_rate=0.02)
    config.train.update(batch=tiny_run.BATCH, steps=60, log_every=20)
    config.eval.update(batch=16, windows=24, calibration_windows=40)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_run.write(folder, (*tiny_run.NAMES, "marks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished_bank, "KEEP", 1)  # two experts are then enough for a cascade
        report = app.run(settings.build(tiny_config(folder)), folder / "run")
    return folder, report


def test_the_report_has_what_readers_of_report_json_rely_on(finished):
    folder, report = finished
    stored = json.loads((folder / "run" / "report.json").read_text())
    experts, domains = set(tiny_run.NAMES), {*tiny_run.NAMES, "marks", "random_tokens"}
    assert stored["fingerprint"].keys() == experts
    for row in stored["fingerprint"].values():
        assert row.keys() == domains
        for cell in row.values():
            assert cell.keys() >= {"tra", "nll", "bits_per_byte", "majority_tra", "window_exact"}
            assert 0 <= cell["tra"] <= 1 and 0 < cell["majority_tra"] <= 1 and cell["nll"] > 0
    assert {"accuracy", "confusion"} <= stored["routing"].keys()
    assert stored["routing"]["confusion"].keys() == experts
    assert {"auroc_unseen_domain", "auroc_random"} <= stored["ood"].keys()
    assert stored["geometry"].keys() >= {
        "explained_variance", "components_95", "linear_probe_accuracy", "points", "labels"}
    assert stored["seconds"].keys() == {"text", "training", "calibration", "evaluation", "studies"}
    origin = stored["provenance"]
    assert {"commit", "versions", "devices", "config"} <= origin.keys()
    assert origin["steps"] == 60 and origin["tokens_per_expert"] == 60 * 8 * 12
    built = settings.build({k: v for k, v in origin["config"].items()})
    assert settings.to_dict(built) == settings.to_dict(
        settings.build(tiny_config(folder)))  # the run can be repeated from its report
    page = (folder / "run" / "report.html").read_text()
    assert page.startswith("<!") and len(page) > 10_000
    assert report["curves"]["digits"]["step"] == [20, 40, 60]


def test_compression_is_routing_even_here(finished):
    """Every expert rebuilds its own domain best; unknown text is told from known."""
    _, report = finished
    for expert, row in report["fingerprint"].items():
        assert min(row, key=lambda d, row=row: row[d]["nll"]) == expert
        assert row[expert]["tra"] > 2 * row["random_tokens"]["tra"]
    assert report["routing"]["accuracy"] > 0.95
    assert report["ood"]["auroc_random"] > 0.95
    assert report["ood"]["auroc_unseen_domain"] > 0.95
    assert report["geometry"]["linear_probe_accuracy"] > 0.7  # 24 windows


def test_the_bank_that_was_written_routes_text(finished):
    folder, _ = finished
    bank = cr_jax.ExpertBank.load(folder / "run" / "bank")
    assert bank.names == tiny_run.NAMES and not bank.verify()
    for kind in tiny_run.NAMES:
        assert cr_jax.route(bank, tiny_run.text(kind, seed=9)).expert == kind
    assert cr_jax.route(bank, tiny_run.text("marks", seed=9)).expert is None


def test_scouts_are_counted_and_a_cascade_is_chosen(finished):
    folder, _ = finished
    cascade = Cascade.load(folder / "run" / "bank")
    assert (cascade.keep, cascade.choice.agreement) == (1, 1)
    for kind in tiny_run.NAMES:
        found = cascade.route(tiny_run.text(kind, seed=9))
        assert found.expert == kind == min(found.scouts, key=found.scouts.get)
        assert list(found.residuals) == [kind]


def test_the_same_call_again_trains_nothing_and_says_the_same(finished):
    folder, report = finished
    weights = {p.name: p.read_bytes() for p in (folder / "run").rglob("params.safetensors")}
    lines = (folder / "run" / "metrics.jsonl").read_bytes()
    again = app.run(settings.build(tiny_config(folder)), folder / "run")
    assert again["fingerprint"] == report["fingerprint"]
    assert again["routing"] == report["routing"]
    assert (folder / "run" / "metrics.jsonl").read_bytes() == lines
    assert {p.name: p.read_bytes()
            for p in (folder / "run").rglob("params.safetensors")} == weights


def test_an_expert_that_was_added_survives_the_same_call_again(finished, capsys):
    folder, _ = finished
    bank = folder / "run" / "bank"
    before = (bank / "experts" / "digits" / "params.safetensors").read_bytes()
    import_expert(bank, bank / "experts" / "digits", "extra")
    again = app.run(settings.build(tiny_config(folder)), folder / "run")
    assert again["fingerprint"].keys() == set(tiny_run.NAMES)
    stored = cr_jax.ExpertBank.load(bank)
    assert stored.names == (*tiny_run.NAMES, "extra") and not stored.verify()
    with pytest.raises(UserError, match="how many experts"):  # chosen without the added one
        Cascade.load(bank)
    assert (bank / "experts" / "extra" / "params.safetensors").read_bytes() == before
    assert "extra: added to the bank earlier, kept" in capsys.readouterr().out
    # Stopped between putting the old bank aside and the new one in its place.
    bank.rename(folder / "run" / "bank.old")
    app.run(settings.build(tiny_config(folder)), folder / "run")
    assert cr_jax.ExpertBank.load(bank).names == (*tiny_run.NAMES, "extra")
    # What cannot be taken along is not thrown away.
    (bank / "experts" / "extra" / "params.safetensors").write_bytes(b"")
    same = bank.stat().st_ino
    app.run(settings.build(tiny_config(folder)), folder / "run")
    assert "warning:" in capsys.readouterr().out
    assert cr_jax.ExpertBank.load(bank).names == tiny_run.NAMES
    assert (folder / "run" / "bank.damaged" / "experts" / "extra").is_dir()
    assert (folder / "run" / "bank.damaged").stat().st_ino == same  # moved: a copy could fail
    assert {p.name for p in (folder / "run").glob("bank*")} == {"bank", "bank.damaged"}


@pytest.mark.parametrize(("change", "said"), [
    ({"train.batch": 16}, "train: batch"), ({"model.d_ff": 40}, "model: d_ff"),
    ({"seed": 5}, "seed"), ({"tokenizer.kind": "gpt2"}, "tokenizer: kind")],
    ids=["train", "model", "seed", "tokenizer"])
def test_other_settings_are_refused_before_the_text_is_read(finished, monkeypatch, change, said):
    folder, _ = finished
    reads = []
    monkeypatch.setattr(app.corpora, "prepare", lambda *a: reads.append(a) or pytest.fail("read"))
    config = tiny_config(folder)
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=rf"other settings \({said}"):
        app.run(settings.build(config), folder / "run")
    assert not reads
    # What may change, and a record that is not as it was sealed, go on to the text.
    longer = tiny_config(folder)
    longer.train.steps = 61
    config.eval.alpha = 0.1
    record = folder / "run" / "checkpoints" / "60" / "record" / "metadata"
    held = record.read_bytes()
    try:
        for given, raw in ((longer, held), (config, held + b" "), (config, b"")):
            record.write_bytes(raw)
            with pytest.raises(pytest.fail.Exception):
                app.run(settings.build(given), folder / "run")
    finally:
        record.write_bytes(held)
    assert len(reads) == 3


@pytest.fixture(scope="module")
def test_windows(finished):
    folder, _ = finished
    bank = cr_jax.ExpertBank.load(folder / "run" / "bank")
    corpora = {n: load_corpus([f"files:{folder}/{n}-test.txt"], bank.tokenizer, folder / "cache")
               for n in tiny_run.NAMES}
    return bank, {n: eval_windows(c, 12, limit=100, seed=0, pad_id=bank.tokenizer.pad_id)
                  for n, c in corpora.items()}


def accuracy(bank, windows):
    scores = evaluation.score_domains(bank, windows)
    return routing.run(bank, scores, (), 0.05)["routing"], scores


def test_cloned_experts_route_at_chance(test_windows):
    """Negative control: two names for the same weights tie on every window."""
    bank, windows = test_windows
    assert accuracy(bank, windows)[0]["accuracy"] > 0.95
    clones = bank.unmount("letters").mount(
        "letters", bank.expert_params("digits"), bank.calibration["digits"])
    found, scores = accuracy(clones, windows)
    assert found["accuracy"] == 0.5
    for s in scores.values():
        assert np.array_equal(s.nll[0], s.nll[1])


def test_shuffled_labels_route_at_chance(test_windows):
    """Negative control: windows dealt out to the domains at random."""
    bank, windows = test_windows
    mixed = [np.concatenate(x) for x in zip(
        *([w.tokens, w.mask, w.document] for w in windows.values()))]
    order = np.random.default_rng(0).permutation(len(mixed[0]))
    parts = np.array_split(order, 2)
    dealt = {n: Windows(*(x[part] for x in mixed)) for n, part in zip(tiny_run.NAMES, parts)}
    # 200 windows: two standard deviations of a fair coin are 7 %.
    assert abs(accuracy(bank, dealt)[0]["accuracy"] - 0.5) < 0.1


@pytest.fixture
def bad(tmp_path, capsys):
    """Calls main; -> the one line that it printed to stderr, when it ends with status 2."""
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))

    def call(change=lambda config: None, workdir=None, argv=()):
        config = tiny_config(tmp_path)
        with config.unlocked():
            change(config)
        assert app.main(config, str(workdir or tmp_path / "run"), argv) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return call


@pytest.mark.parametrize("change,words", [
    (lambda c: c.model.update(latent=3), "did you mean 'latents'"),
    (lambda c: c.train.update(steps=0), "exactly one of steps, tokens, seconds"),
    (lambda c: c.train.update(batch=12), "multiple of the 8 devices"),
    (lambda c: c.model.update(heads=3), "multiple of 2 x heads"),
    (lambda c: c.model.update(vocab_size=100), "does not hold the 258 ids"),
    (lambda c: c.data.domains.digits.update(train=("files:/nowhere/*.txt",)), "/nowhere"),
    (lambda c: c.data.domains.digits.update(test=("jsonl:/nowhere.jsonl",)), "/nowhere.jsonl"),
    (lambda c: c.data.domains.digits.update(train=("stdlib@trains",)), "unknown split"),
    (lambda c: c.tokenizer.update(kind="sentencepiece", folder="/nowhere"), "/nowhere"),
    (lambda c: c.update(studies=("astrology",)), "unknown study 'astrology'"),
], ids=range(10))
def test_bad_settings_and_missing_files_are_one_line(bad, change, words):
    assert words in bad(change)


def test_empty_text_is_one_line(bad, tmp_path):
    (tmp_path / "digits-train.txt").write_text("")
    assert "digits-train.txt" in bad()


def test_text_that_is_not_text_is_one_line(bad, tmp_path):
    (tmp_path / "digits-train.txt").write_bytes(b"abc\xff\xfe\x00" * 99)
    assert "digits-train.txt" in bad()


def test_a_workdir_in_use_is_one_line(bad, tmp_path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another run is using" in bad()
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_workdir_that_cannot_be_made_is_one_line(bad, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in bad(workdir=tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workdir_is_one_line(bad, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written" in bad(workdir=tmp_path / "locked" / "run")


def test_a_stray_argument_is_one_line(bad):
    assert "unexpected argument 'train.steps=3'" in bad(argv=("main.py", "train.steps=3"))


def test_other_settings_in_an_old_workdir_are_one_line(bad, finished):
    folder, _ = finished
    before = (folder / "run" / "report.json").read_bytes()

    def change(config):
        config.data = tiny_config(folder).data
        config.optimizer.learning_rate = 0.5

    assert "optimizer: learning_rate" in bad(change, workdir=folder / "run")
    assert (folder / "run" / "report.json").read_bytes() == before


@pytest.mark.parametrize("lost", [False, True])
def test_ctrl_c_between_stages_is_one_line(tmp_path, capsys, monkeypatch, lost):
    """Also where a library's callback swallows the exception."""
    tiny_run.write(tmp_path)

    def pressed(*_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            if not lost:
                raise
        return types.SimpleNamespace(tokenizer=None, train={})

    monkeypatch.setattr(app.corpora, "prepare", pressed)
    before = signal.getsignal(signal.SIGINT)
    assert app.main(tiny_config(tmp_path), str(tmp_path / "run")) == 130
    assert capsys.readouterr().err.strip() == "stopped; run the same command to go on"
    assert signal.getsignal(signal.SIGINT) is before


def test_as_a_program(tmp_path):
    """A misspelt flag: exit status 2 and one line, no traceback, nothing written."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), f"--config={ROOT / 'configs' / 'quickstart.py'}",
         f"--workdir={tmp_path / 'run'}", "--config.train.step=3"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "step" in done.stderr
    assert not (tmp_path / "run").exists()


