"""New experts of a bank know their text, others keep their bytes, and no stop leaves half."""

import dataclasses
import functools
import json
import signal

import jax
import numpy as np
import pytest
import tiny_bank
import tiny_run
from tiny_bank import contents, refuses

import cr_jax
from cr_jax.bank import ExpertBank, cascade_file, pretrained
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.entry_checks import unused_fits
from cr_jax.bank.files import BankFolder
from cr_jax.cli import main
from cr_jax.errors import UserError
from cr_jax.experiment import finished_bank, new_experts
from cr_jax.experiment.new_experts import NewExperts, train_new
from cr_jax.parallel.plan import make_plan
from cr_jax.training.loop import Interrupted

KINDS = ("digits", "marks")


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """The step of eight takes eight times as long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        plan = functools.partial(make_plan, devices=jax.devices()[:1])
        patch.setattr(new_experts, "make_plan", plan)
        yield


def write(folder, kinds=KINDS, documents=40):
    """KIND.jsonl -> sources by name."""
    for kind in kinds:
        rows = [{"text": tiny_run.text(kind, seed, 30)} for seed in range(documents)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{kind}.jsonl").write_text(lines, encoding="utf-8")
    return {kind: [f"jsonl:{folder}/{kind}.jsonl"] for kind in kinds}


def old_bank(folder):
    """e0 and e1, untrained, with bigram models, and a cascade."""
    bank = tiny_bank.stored(folder, tiny_bank.in_memory(2, model=tiny_run.MODEL))
    fit = CandidateFit(1, 0.5, 0.0, None, 1.0, 1.0, 10)
    cascade_file.write(bank.folder, fit, 0, bank.names, 0.0)
    return bank.folder


def stop_in_training(line):
    if " steps, at step " in line:
        signal.raise_signal(signal.SIGTERM)


def interrupted(*_):
    raise KeyboardInterrupt  # itself: a shell may have told its jobs to ignore SIGINT


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A bank that got two experts although the command was stopped three times: while it trained,
    before it calibrated, and between the first and the second; (folder, bank before, in between,
    lines of the last start)."""
    folder, said = tmp_path_factory.mktemp("grown"), []
    bank = old_bank(folder / "bank")
    before = contents(bank)
    new = NewExperts(write(folder), steps=120, batch=16, learning_rate=0.02)
    go_on = functools.partial(train_new, bank, new, folder / "run")
    with pytest.raises(Interrupted, match="saved"):
        go_on(stop_in_training)
    assert contents(bank) == before
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finished_bank, "make", interrupted)
        go_on(said.append)
    assert any("at step 1:" in line for line in said)  # and not from the start
    assert contents(bank) == before
    take = new_experts.take

    def first_only(files, source, name):
        if name == KINDS[1]:
            raise KeyboardInterrupt
        take(files, source, name)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(new_experts, "take", first_only)
        go_on(said.append)
    assert BankFolder(bank).verify() == []
    between = contents(bank)
    said.clear()
    assert go_on(said.append) == list(KINDS)
    return folder, before, between, said


def test_new_experts_know_their_text_and_the_others_keep_their_bytes(grown):
    folder, before, between, _ = grown
    bank = ExpertBank.load(folder / "bank")
    assert bank.names == ("e0", "e1", *KINDS) and bank.verify() == []
    now = contents(folder / "bank")
    same = [path for path in before if path.name not in ("bank.json", "cascade.json")]
    assert same and all(now[path] == before[path] for path in same)
    first = [path for path in between if path.parts[:2] == ("experts", KINDS[0])]
    assert first and all(now[path] == between[path] for path in first)
    for kind in KINDS:
        route = cr_jax.route(bank, tiny_run.text(kind, 1000, 60))
        assert (route.expert, route.nearest) == (kind, kind)
        assert bank.expert(kind).bigram is not None
        assert bank.about[kind]["sources"] == [f"jsonl:{folder}/{kind}.jsonl"]
    # Letters that neither has seen, which the untrained two do not know either.
    assert cr_jax.route(bank, tiny_run.text("letters", 1, 60)).expert is None


def test_an_expert_is_calibrated_on_documents_that_it_was_not_trained_on(grown):
    folder, *_ = grown
    bank = ExpertBank.load(folder / "bank")
    residuals = bank.calibration["digits"].residuals[bank.model.window]
    assert 20 < len(residuals) < 80  # of four documents of about 140 bytes


def test_the_last_start_trains_nothing_and_says_what_is_to_do(grown):
    folder, _, _, said = grown
    text = "\n".join(said)
    assert "digits: added to" in text and "by an earlier start of this command" in text
    assert "training was complete at step 120" in text
    assert f"marks: added to {folder / 'bank'}" in said
    assert "few validation documents" in text and "digits below 20, marks below 20" in text
    assert said[-1].startswith("cascade.json of") and "fit-cascade" in said[-1]


def test_the_same_call_is_done_and_another_one_may_not_take_the_name(grown):
    folder, *_ = grown
    before, said = contents(folder / "bank"), []
    same = NewExperts(write(folder), steps=120, batch=16, learning_rate=0.02)
    train_new(folder / "bank", same, folder / "run", said.append)
    assert sum("by an earlier start" in line for line in said) == 2
    other = dataclasses.replace(same, steps=121)
    call = lambda: train_new(folder / "bank", other, folder / "run", said.append)
    refuses(call, "already has an expert 'digits'")
    assert contents(folder / "bank") == before


def test_with_text_of_every_expert_the_larger_bank_is_fitted_again(grown, monkeypatch):
    folder, *_ = grown
    given, fitted, said = write(folder), {}, []
    others = {name: given["digits"] for name in ("e0", "e1")}
    fit = finished_bank.fit

    def no_screen(*_, **__):
        raise UserError("not here")

    def noted(bank, valid, documents, settings, say):
        fitted.update(names=bank.names, valid=valid, documents=documents)
        return fit(bank, valid, documents, settings, say)

    monkeypatch.setattr(finished_bank, "MIN_CANDIDATES", 2)  # of so few a cascade has no use
    monkeypatch.setattr(finished_bank, "fit_screen", no_screen)  # which takes as long again
    monkeypatch.setattr(finished_bank, "fit", noted)
    new = NewExperts(given, others, steps=120, batch=16, learning_rate=0.02)
    train_new(folder / "bank", new, folder / "run", said.append)
    assert unused_fits(BankFolder(folder / "bank")) is None
    assert not any("fit-cascade" in line for line in said)
    assert fitted["names"] == tuple(fitted["valid"]) == tuple(fitted["documents"])
    assert len(fitted["valid"]["e0"]) > 5 * len(fitted["valid"]["digits"])  # all, and a tenth
    tokens = lambda windows: {row.tobytes() for row in windows.tokens}
    assert len(tokens(fitted["valid"]["e0"])) > 100
    assert np.array_equal(fitted["valid"]["e0"].tokens, fitted["valid"]["e1"].tokens)


def test_bad_input_is_one_line_and_leaves_the_bank_as_it_was(tmp_path, monkeypatch):
    bank = old_bank(tmp_path / "bank")
    before, given = contents(bank), write(tmp_path)
    call = lambda train, **more: train_new(
        bank, NewExperts(train, **more), tmp_path / "run", lambda line: None
    )
    good = {"digits": given["digits"]}
    refuses(lambda: call({"e0": given["digits"]}), "already has an expert 'e0'")
    refuses(lambda: call({"E0": given["digits"]}), "'e0'", "case only")
    refuses(lambda: call({"a b": given["digits"]}), "a b")
    refuses(lambda: call({"x": ["nonsense"]}), "x=nonsense", "not understood")
    refuses(lambda: call({"x": [f"files:{tmp_path}/none*"]}), "x=files", "matches no file")
    refuses(lambda: call(good, valid={"x": given["digits"]}), "'x'", "neither new nor")
    refuses(lambda: call(good, valid={"digits": ["?"]}), "--valid digits=?")
    assert not (tmp_path / "run").exists()
    (tmp_path / "one.txt").write_text("a single document", encoding="utf-8")
    one = [f"files:{tmp_path}/one.txt"]
    refuses(lambda: call({"x": one}), "x: too little text to hold some out")
    refuses(lambda: call({"x": given["digits"]}, valid={"x": ["samples/math@train"]}), "x: no text")
    (tmp_path / "two.txt").write_text("few", encoding="utf-8")
    few = [f"files:{tmp_path}/two.txt"]
    refuses(lambda: call({"x": few}, valid={"x": one}), "x: too little text to train on")
    refuses(lambda: call({"x": one}, valid={"x": few}), "x: no validation window is long enough")
    shipped = lambda: train_new(pretrained.folder(), NewExperts(good), tmp_path / "run", print)
    refuses(shipped, "ships with cr_jax", "cp -r")

    def closed(files):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(BankFolder, "changing", closed)
    refuses(lambda: call(good), "cannot write the bank", "Permission denied")
    assert contents(bank) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits"], "digits: must be NAME=SPEC"),
        (["=files:x"], "=files:x: must be NAME=SPEC"),
        (["unknown=files:x"], "bad expert name"),
        (["e0=files:x"], "already has an expert 'e0'"),
        (["x=files:x", "--valid", "x"], "--valid x: must be NAME=SPEC"),
        (["x=files:x", "--steps", "0"], "--steps must be"),
        (["x=files:x", "--batch", "-1"], "--batch must be"),
        (["x=files:x", "--learning-rate", "nan"], "--learning-rate must be"),
        (["x=files:x", "--seed", "-1"], "--seed must lie"),
        (["x=files:nowhere/x"], "x=files:nowhere/x: data source"),
    ],
)
def test_the_command_answers_bad_words_with_one_line(tmp_path, capsys, words, said):
    bank = old_bank(tmp_path / "bank")
    assert main(["bank", "train", "--bank", str(bank), *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err
    assert not (tmp_path / "bank.training").exists()


def test_the_command_hands_its_words_over_and_a_stop_is_status_130(tmp_path, capsys, monkeypatch):
    bank, heard = old_bank(tmp_path / "bank"), []

    def stopped(folder, new, workdir, say):
        heard.append((folder, new, workdir))
        say("first line")
        raise Interrupted("stopped at step 3, saved; run the same command to go on")

    monkeypatch.setattr(new_experts, "train_new", stopped)
    words = ["x=files:a=b", "y=stdlib", "x=files:c", "--valid", "e0=files:d", "--steps", "7"]
    assert main(["bank", "train", "--bank", str(bank), *words]) == 130
    out, err = capsys.readouterr()
    assert out == "first line\n" and err == (
        "cr-jax: stopped at step 3, saved; run the same command to go on\n"
    )
    want = NewExperts(
        {"x": ["files:a=b", "files:c"], "y": ["stdlib"]}, {"e0": ["files:d"]}, steps=7
    )
    assert heard == [(str(bank), want, str(tmp_path / "bank.training" / "x+y"))]


def test_a_new_expert_can_begin_with_one_of_the_bank(tmp_path):
    bank = old_bank(tmp_path / "bank")
    given = {"marks": write(tmp_path)["marks"]}
    begin = lambda start, rate=1e-9: train_new(
        bank,
        NewExperts(given, steps=1, start=start, learning_rate=rate),
        tmp_path / (start or "noise"),
        lambda line: None,
    )
    refuses(lambda: begin("e7"), "no expert 'e7'")
    begin("e1")
    stored = ExpertBank.load(bank)
    for made, old in zip(
        jax.tree.leaves(stored.expert("marks").params), jax.tree.leaves(stored.expert("e1").params)
    ):
        np.testing.assert_allclose(made, old, atol=1e-5)
    about = stored.about["marks"]
    assert about["start"] == "e1" and len(about["start_sha256"]) == 64
    begin("e1")  # the same call is done
    BankFolder(bank).remove("marks")
    begin("")
    noise = ExpertBank.load(bank)
    assert "start" not in noise.about["marks"]
    pairs = zip(
        jax.tree.leaves(noise.expert("marks").params), jax.tree.leaves(stored.expert("e1").params)
    )
    assert any(not np.allclose(a, b, atol=1e-3) for a, b in pairs)
