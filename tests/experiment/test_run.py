"""The whole experiment at a tiny size, its negative controls, and the same call again."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_run

import cr_jax
from cr_jax import config as settings
from cr_jax.bank import import_expert
from cr_jax.data import load_corpus
from cr_jax.data.windows import Windows, eval_windows
from cr_jax.errors import UserError
from cr_jax.experiment import finished_bank, outcome, run
from cr_jax.routing.cascade import Cascade
from cr_jax.studies import evaluation, routing
from cr_jax.training.phases import PHASES


def settings_of(folder):
    made = tiny_run.config(folder)
    made.eval.update(every="25 steps", every_windows=30, target_tra=0.5)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_run.write(folder, (*tiny_run.NAMES, "marks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished_bank, "MIN_CANDIDATES", 1)  # two experts then have a cascade
        report = run.run(settings.build(settings_of(folder)), folder / "run")
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
        "explained_variance",
        "components_95",
        "linear_probe_accuracy",
        "points",
        "labels",
    }
    assert stored["overlap"].keys() == domains - {"random_tokens"}
    assert stored["overlap"]["digits"]["test"].keys() >= {
        "documents",
        "of_documents",
        "windows",
        "of_windows",
    }
    assert stored["seconds"].keys() == {"text", "training", "calibration", "evaluation", "studies"}
    origin = stored["provenance"]
    assert {"commit", "versions", "devices", "config"} <= origin.keys()
    assert origin["steps"] == 60 and origin["tokens_per_expert"] == 60 * 8 * 12
    built = settings.build({k: v for k, v in origin["config"].items()})
    assert settings.to_dict(built) == settings.to_dict(
        settings.build(settings_of(folder))
    )  # the run can be repeated from its report
    page = (folder / "run" / "report.html").read_text()
    assert page.startswith("<!") and len(page) > 10_000
    assert report["curves"]["digits"]["step"] == [20, 40, 60]
    curves = stored["curves"]["digits"]
    assert curves["valid_step"] == [25, 50, 60] and len(curves["valid_tra"]) == 3
    training = stored["training"]
    assert training["steps"] == 60 and training["tokens_per_expert"] == 60 * 8 * 12
    assert training["seconds_by_phase"].keys() == PHASES.keys()
    assert 0 < training["seconds"] <= training["seconds_by_phase"]["step"] + 1
    assert training["seconds_by_phase"]["validate"] > 0
    assert training["best"]["step"] in (25, 50, 60) and training["best"]["kept"]
    assert training["best"]["loss_is"] == "valid nll, nats/token, mean over the experts"
    low = [x for x, tra in zip(curves["valid_seconds"], curves["valid_tra"]) if tra >= 0.5]
    assert training["target_tra"] == 0.5
    assert training["seconds_to_target"]["digits"] == (low[0] if low else None)


def test_the_summary_names_the_best_step_and_the_time_to_the_target(finished, capsys):
    _, report = finished
    said = []
    outcome.tell(report, said.append)
    assert any(
        line.startswith("  best step on valid: ") and "checkpoint is kept" in line for line in said
    )
    assert any("digits" in line and "TRA 50.00% of valid: after " in line for line in said)
    late = {**report["training"], "seconds_to_target": {"digits": None}}
    said.clear()
    outcome.tell({**report, "training": late}, said.append)
    assert any("TRA 50.00% of valid: not reached" in line for line in said)


def test_the_workdir_says_by_which_settings_it_runs_from_the_start_on(tmp_path, monkeypatch):
    """Before the text is read; a run that is refused leaves what stands there."""
    config = tiny_run.config(tmp_path)
    with pytest.raises(UserError):  # there is no text
        run.run(settings.build(config), tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored == json.loads(json.dumps(settings.to_dict(settings.build(config))))
    assert settings.build(stored) == settings.build(config)
    assert not list((tmp_path / "run").glob("*.partial"))


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


def test_bigram_models_are_counted_and_a_cascade_is_chosen(finished):
    folder, _ = finished
    cascade = Cascade.load(folder / "run" / "bank")
    assert (cascade.min_candidates, cascade.fitted.agreement) == (1, 1)
    for kind in tiny_run.NAMES:
        found = cascade.route(tiny_run.text(kind, seed=9))
        assert found.expert == kind == min(found.bigrams, key=found.bigrams.get)
        assert list(found.residuals) == [kind]


def test_the_same_call_again_trains_nothing_and_says_the_same(finished):
    folder, report = finished
    weights = {p.name: p.read_bytes() for p in (folder / "run").rglob("params.safetensors")}
    lines = (folder / "run" / "metrics.jsonl").read_bytes()
    again = run.run(settings.build(settings_of(folder)), folder / "run")
    assert again["fingerprint"] == report["fingerprint"]
    assert again["routing"] == report["routing"]
    assert (folder / "run" / "metrics.jsonl").read_bytes() == lines
    assert {p.name: p.read_bytes() for p in (folder / "run").rglob("params.safetensors")} == weights


def test_an_expert_that_was_added_survives_the_same_call_again(finished, capsys):
    folder, _ = finished
    bank = folder / "run" / "bank"
    before = (bank / "experts" / "digits" / "params.safetensors").read_bytes()
    import_expert(bank, bank / "experts" / "digits", "extra")
    again = run.run(settings.build(settings_of(folder)), folder / "run")
    assert again["fingerprint"].keys() == set(tiny_run.NAMES)
    stored = cr_jax.ExpertBank.load(bank)
    assert stored.names == (*tiny_run.NAMES, "extra") and not stored.verify()
    with pytest.raises(UserError, match="route without it"):  # chosen without the added one
        Cascade.load(bank)
    assert (bank / "experts" / "extra" / "params.safetensors").read_bytes() == before
    assert "extra: added to the bank earlier, kept" in capsys.readouterr().out
    # Stopped between putting the old bank aside and the new one in its place.
    bank.rename(folder / "run" / "bank.old")
    run.run(settings.build(settings_of(folder)), folder / "run")
    assert cr_jax.ExpertBank.load(bank).names == (*tiny_run.NAMES, "extra")
    # What cannot be taken along is not thrown away.
    (bank / "experts" / "extra" / "params.safetensors").write_bytes(b"")
    same = bank.stat().st_ino
    run.run(settings.build(settings_of(folder)), folder / "run")
    assert "warning:" in capsys.readouterr().out
    assert cr_jax.ExpertBank.load(bank).names == tiny_run.NAMES
    assert (folder / "run" / "bank.damaged" / "experts" / "extra").is_dir()
    assert (folder / "run" / "bank.damaged").stat().st_ino == same  # moved: a copy could fail
    assert {p.name for p in (folder / "run").glob("bank*")} == {"bank", "bank.damaged"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train.batch": 16}, "train: batch"),
        ({"model.d_ff": 40}, "model: d_ff"),
        ({"seed": 5}, "seed"),
        ({"tokenizer.kind": "gpt2"}, "tokenizer: kind"),
    ],
    ids=["train", "model", "seed", "tokenizer"],
)
def test_other_settings_are_refused_before_the_text_is_read(finished, monkeypatch, change, said):
    folder, _ = finished
    reads = []
    monkeypatch.setattr(
        run.experiment_text, "prepare", lambda *a: reads.append(a) or pytest.fail("read")
    )
    other = settings_of(folder)
    other.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=rf"other settings \({said}"):
        run.run(settings.build(other), folder / "run")
    assert not reads
    # What may change, and a record that is not as it was sealed, go on to the text.
    longer = settings_of(folder)
    longer.train.steps = 61
    other.eval.alpha = 0.1
    record = folder / "run" / "checkpoints" / "60" / "record" / "metadata"
    held = record.read_bytes()
    try:
        for given, raw in ((longer, held), (other, held + b" "), (other, b"")):
            record.write_bytes(raw)
            with pytest.raises(pytest.fail.Exception):
                run.run(settings.build(given), folder / "run")
    finally:
        record.write_bytes(held)
    assert len(reads) == 3


@pytest.fixture(scope="module")
def test_windows(finished):
    folder, _ = finished
    bank = cr_jax.ExpertBank.load(folder / "run" / "bank")
    corpora = {
        n: load_corpus([f"files:{folder}/{n}-test.txt"], bank.tokenizer, folder / "cache")
        for n in tiny_run.NAMES
    }
    return bank, {
        n: eval_windows(c, 12, limit=100, seed=0, pad_id=bank.tokenizer.pad_id)
        for n, c in corpora.items()
    }


def accuracy(bank, windows):
    scores = evaluation.score_domains(bank, windows)
    return routing.run(bank, scores, (), 0.05)["routing"], scores


def test_cloned_experts_route_at_chance(test_windows):
    """Negative control: two names for the same weights tie on every window."""
    bank, windows = test_windows
    assert accuracy(bank, windows)[0]["accuracy"] > 0.95
    clone = dataclasses.replace(bank.expert("digits"), name="letters")
    clones = bank.unmount("letters").mount(clone)
    found, scores = accuracy(clones, windows)
    assert found["accuracy"] == 0.5
    for s in scores.values():
        assert np.array_equal(s.nll[0], s.nll[1])


def test_shuffled_labels_route_at_chance(test_windows):
    """Negative control: windows dealt out to the domains at random."""
    bank, windows = test_windows
    mixed = [
        np.concatenate(x) for x in zip(*([w.tokens, w.mask, w.document] for w in windows.values()))
    ]
    order = np.random.default_rng(0).permutation(len(mixed[0]))
    parts = np.array_split(order, 2)
    dealt = {n: Windows(*(x[part] for x in mixed)) for n, part in zip(tiny_run.NAMES, parts)}
    # 200 windows: two standard deviations of a fair coin are 7 %.
    assert abs(accuracy(bank, dealt)[0]["accuracy"] - 0.5) < 0.1


def test_other_settings_in_an_old_workdir_are_one_line(finished, capsys):
    folder, _ = finished
    before = (folder / "run" / "report.json").read_bytes()
    config = settings_of(folder)
    config.optimizer.learning_rate = 0.5
    assert run.main(config, str(folder / "run")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "optimizer: learning_rate" in line
    assert (folder / "run" / "report.json").read_bytes() == before
