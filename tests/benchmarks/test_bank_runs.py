"""The bank benchmark from token arrays to figures, at a tiny size."""

import json

import numpy as np
import pytest
from stepping_text import NAMES, WINDOW, text, windows

from benchmarks.bank import cascade, report, run, table, whole_windows
from benchmarks.bank.inputs import read_sets, write_sets
from benchmarks.bank.residuals import means, read_run, rules_of
from cr_jax.data.tokenizers import ByteTokenizer

MODEL = dict(vocab_size=384, window=WINDOW, latents=2, d_model=32, d_latent=32, heads=2, d_ff=48,
             encoder_blocks=1, decoder_blocks=1, bottleneck="fold", fold_channels=16,
             predictive=True)
CODE = {"predicted": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs, and the residuals of a bank, of a seed and of a bank that branches from it."""
    tokens = tmp_path_factory.mktemp("tokens")
    sets = {}
    for i, name in enumerate(NAMES):
        np.save(tokens / f"{name}.train.npy", text(name, 400, i).ravel())
        for split, count in (("valid", 60), ("test", 20), ("doc", 4), ("validdoc", 4)):
            sets[f"{split}/{name}"] = windows(text(name, count, 10 + i + count))
        for split, count in (("cut16", 8), ("validcut16", 40)):
            sets[f"{split}/{name}"] = windows(text(name, count, 50 + i + count), 16)
    sets["unseen/random_tokens"] = windows(
        np.random.default_rng(9).integers(0, 256, (8, WINDOW)).astype(np.int32))
    write_sets(tokens / "sets.npz", sets)
    ByteTokenizer().save(tokens / "tokenizer")
    spec = {"domains": list(NAMES), "seed": 0, "model": MODEL, "rows": 32,
            "optimizer": {"name": "adamw", "learning_rate": 1e-2},
            "train": {"batch": 16, "steps": 80, "predict_weight": 1.0},
            "rules": {"seen": {}, "code": CODE}}
    sample = {"code2": CODE | {"parts": 2, "passes": 1}}
    plan = tokens / "plan.json"
    plan.write_text(json.dumps([
        {**spec, "name": "bank_s0", "rules": spec["rules"] | sample},
        {**spec, "name": "seed", "domains": [], "generalist": ["up", "down"], "sets": ["test/*"],
         "rules": {"code": CODE}},
        {**spec, "name": "branch_s0", "start": "seed", "train": spec["train"] | {"steps": 20}}]))
    assert run.main(["--tokens", str(tokens), "--plan", str(plan), "--out", str(tokens / "runs"),
                     "--commit", "abc"]) == 0
    return tokens


def test_residuals_of_a_run_tell_the_directions_apart(folder):
    with np.load(folder / "runs/bank_s0.npz", allow_pickle=False) as stored:
        found = dict(stored)
    sets = read_sets(folder / "sets.npz")
    assert found["test/up:code:residual"].shape == (3, len(sets["test/up"]))
    for e, name in enumerate(NAMES):
        at_home = found[f"test/{name}:code:residual"]
        assert (at_home.argmin(0) == e).mean() > 0.9
        assert at_home[e].mean() < 0.7 * np.delete(at_home, e, 0).mean()
    record = json.loads((folder / "runs/bank_s0.json").read_text())
    assert record["commit"] == "abc" and record["steps"] == 80
    assert record["log"][-1]["nll"][0] < record["log"][0]["nll"][0]


def test_figures_from_residuals(folder, tmp_path):
    assert report.main([
        "--run", str(folder / "runs/bank_s0"), "--tokens", str(folder), "--rule", "code",
        "--out", str(tmp_path)]) == 0
    routing = json.loads((tmp_path / "routing.json").read_text())
    assert routing["accuracy"][str(WINDOW)] > 0.9 and routing["chance"] == pytest.approx(1 / 3)
    unknown = json.loads((tmp_path / "ood.json").read_text())
    assert unknown["per_domain"]["random_tokens"]["auroc"] > 0.9
    assert unknown["generalist"] is None and "generalist" not in unknown["scores"]
    assert table.main(["--runs", str(folder / "runs"), "--out", str(tmp_path / "s.json")]) == 0
    rules = {(r["variant"], r["rule"]) for r in
             json.loads((tmp_path / "s.json").read_text())["summary"]}
    assert {("bank", "code"), ("bank", "code2"), ("branch", "seen")} <= rules


def test_how_many_experts_a_run_needs(folder, tmp_path, capsys):
    assert cascade.main(["--run", str(folder / "runs/bank_s0"), "--rule", "code", "--tokens",
                         str(folder), "--min-candidates", "1",
                         "--out", str(tmp_path / "c.json")]) == 0
    found = json.loads((tmp_path / "c.json").read_text())
    fixed, experts = found["fixed"], found["experts"]["accuracy"]
    assert found["bigrams"]["accuracy"] == {"valid": 1, "test": 1}  # pairs tell directions apart
    # decisive bigram models keep the exact winner wherever the experts are right, and there alone
    for split in ("valid", "test"):
        assert fixed["1"][split] == {"agreement": pytest.approx(experts[split]), "accuracy": 1}
        assert fixed["3"][split] == {"agreement": 1, "accuracy": pytest.approx(experts[split])}
    assert experts["test"] > 0.9 and "agreement" in capsys.readouterr().out
    assert report.main(["--run", str(folder / "runs/bank_s0"), "--tokens", str(folder), "--rule",
                        "code", "--plain", "--out", str(tmp_path)]) == 0
    whole = json.loads((tmp_path / "routing.json").read_text())
    assert whole["accuracy"][str(WINDOW)] == pytest.approx(experts["test"])


def test_sampled_positions_are_means_over_the_sample(folder):
    stored, scorings = read_run(str(folder / "runs/bank_s0"), NAMES), rules_of(
        str(folder / "runs/bank_s0"))
    every, half = (means(NAMES, stored, rule, "test", WINDOW, scorings)["up"]
                   for rule in ("code", "code2"))
    assert half.mean() == pytest.approx(every.mean(), rel=0.1)
    np.testing.assert_allclose(  # negative control: taken over all positions it is half of that
        means(NAMES, stored, "code2", "test", WINDOW)["up"], half / 2)
    both = means(NAMES, stored, "code+code2", "test", WINDOW, scorings)["up"]
    np.testing.assert_allclose(both, every + half)


def test_branches_begin_with_their_seed_which_is_their_reference(folder, tmp_path):
    curve = lambda name: json.loads((folder / f"runs/{name}.json").read_text())["log"]
    # three steps from noise know nothing yet; those from a seed go on from what it knows
    assert curve("branch_s0")[2]["nll"][0] < 0.8 * curve("bank_s0")[0]["nll"][0]
    with np.load(folder / "runs/branch_s0.npz", allow_pickle=False) as stored:
        assert stored["test/up:code:residual"].shape[0] == 3
        home, away = (stored[f"test/{n}:code:generalist"].mean() for n in ("up", "leaps"))
        branch = dict(stored)
    assert home < 0.8 * away  # the seed was trained on up and down
    with np.load(folder / "runs/seed.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["test/up:code:generalist"],
                                   branch["test/up:code:generalist"], rtol=1e-5)
    assert report.main(["--run", str(folder / "runs/branch_s0"), "--tokens", str(folder),
                        "--rule", "code", "--out", str(tmp_path)]) == 0
    routing = json.loads((tmp_path / "routing.json").read_text())
    assert routing["experts"] == [*NAMES] and routing["accuracy"][str(WINDOW)] > 0.9
    unknown = json.loads((tmp_path / "ood.json").read_text())
    assert unknown["generalist"] == "generalist" and "gain" in unknown["scores"]
    # what the seed was trained on is no unknown text
    assert set(unknown["per_domain"]) == {"leaps", "random_tokens"}


def test_several_runs_are_reported_as_means(folder, tmp_path):
    runs = [str(folder / f"runs/{name}") for name in ("bank_s0", "branch_s0")]
    assert report.main(["--run", *runs, "--tokens", str(folder), "--rule", "code",
                        "--out", str(tmp_path)]) == 0
    both = json.loads((tmp_path / "routing.json").read_text())
    each = [both["by_run"][n]["accuracy"][str(WINDOW)] for n in ("bank_s0", "branch_s0")]
    assert both["accuracy"][str(WINDOW)] == pytest.approx(np.mean(each))
    unknown = json.loads((tmp_path / "ood.json").read_text())
    rule, auroc = unknown["rule"], []
    for path in runs:
        assert report.main(["--run", path, "--tokens", str(folder), "--rule", "code",
                            "--out", str(tmp_path), "--name", "one"]) == 0
        alone = json.loads((tmp_path / "ood_one.json").read_text())["scores"][rule]["per_domain"]
        auroc.append({n: cell["auroc"] for n, cell in alone.items()})
    # the seed read up and down: of the branches, leaps alone is left out
    assert set(auroc[0]) - set(auroc[1]) == {"up", "down"}
    found = {n: cell["auroc"] for n, cell in unknown["per_domain"].items()}
    assert found["up"] == auroc[0]["up"]
    assert found["leaps"] == pytest.approx(np.mean([a["leaps"] for a in auroc]))


def test_members_vote_by_their_mean_residual(folder, tmp_path):
    one, other = ({k: v for k, v in read_run(str(folder / f"runs/{n}"), NAMES, []).items()}
                  for n in ("bank_s0", "branch_s0"))
    both, key = report._mean([one, other]), "test/up:code:residual"
    np.testing.assert_allclose(both[key], (one[key] + other[key]) / 2)
    assert report.main(["--run", str(folder / "runs/bank_s0"), "--members",
                        str(folder / "runs/branch_s0"), "--tokens", str(folder), "--rule", "code",
                        "--out", str(tmp_path), "--name", "two"]) == 0
    found = json.loads((tmp_path / "routing_two.json").read_text())
    assert found["members"] == ["branch_s0"] and found["accuracy"][str(WINDOW)] > 0.9


def test_a_head_start_is_chosen_on_valid_and_reported_beside_the_plain_rule(folder, tmp_path):
    stored = read_run(str(folder / "runs/bank_s0"), NAMES, [])
    # an expert that lost forty nats a token on everything, its own text included
    lost = np.array([[0.0], [0.0], [40.0 * WINDOW]])
    weak = {k: v + lost if k.endswith(":code:residual") else v for k, v in stored.items()}
    inputs = read_sets(folder / "sets.npz")
    plain = report.routing(NAMES, WINDOW, weak, inputs, "code", help_weak=False)
    helped = report.routing(NAMES, WINDOW, weak, inputs, "code")
    size = str(WINDOW)
    assert plain["per_domain"][size]["leaps"] < 0.1 < 0.6 < helped["per_domain"][size]["leaps"]
    assert helped["without_handicap"]["accuracy"] == plain["accuracy"]
    given = helped["offset"]["nats_per_token"]
    assert given["leaps"] > 1 and given["up"] == given["down"] == 0
    assert helped["paper_rule"] == plain["paper_rule"]


def test_a_domain_can_be_left_out_of_the_figures(folder, tmp_path, capsys):
    whole, part = (read_run(str(folder / "runs/branch_s0"), NAMES, left)
                   for left in ([], ["down"]))
    assert set(whole) - set(part) == {k for k in whole if "/down:" in k} != set()
    np.testing.assert_array_equal(part["test/up:code:residual"],
                                  whole["test/up:code:residual"][[0, 2]])
    assert len(part["test/up:code:generalist"]) == 1
    assert report.main(["--run", str(folder / "runs/bank_s0"), "--tokens", str(folder),
                        "--rule", "code", "--out", str(tmp_path), "--without", "none",
                        "--name", "without"]) == 0
    whole = json.loads((tmp_path / "routing_without.json").read_text())
    assert whole["experts"] == [*NAMES] and "--without none" in whole["command"]
    for named, name, tokens, left in (
            ("at least three known", "bank_s0", folder, "leaps"),  # of two, none can be left out
            ("there is no run", "none", folder, "down"), ("sets.npz", "bank_s0", tmp_path, "down")):
        assert report.main(["--run", str(folder / "runs" / name), "--tokens", str(tokens), "--rule",
                            "code", "--out", str(tmp_path), "--without", left]) == 2
        assert named in capsys.readouterr().err


def test_typicality_is_calibrated_at_each_length(folder):
    stored = read_run(str(folder / "runs/bank_s0"), NAMES, [])
    found = report.typicality(NAMES, WINDOW, stored, "code")
    assert list(found) == ["16", str(WINDOW)]
    plain = [row["test"] for n in found for row in found[n]["rows"] if row["weight"] == 0]
    want = [np.mean([(stored[f"{split}/{n}:code:residual"].argmin(0) == e).mean()
                     for e, n in enumerate(NAMES)]) for split in ("cut16", "test")]
    assert plain == pytest.approx(want)
    # a length without validation windows of its own has no limits
    whole = {k: v for k, v in stored.items() if "validcut" not in k}
    assert report.typicality(NAMES, WINDOW, whole, "code").keys() == {str(WINDOW)}


def test_whole_windows_alone_give_the_whole_studys_figures(folder, tmp_path, capsys):
    run, out = str(folder / "runs/bank_s0"), tmp_path / "found.json"
    assert whole_windows.main(["--run", run, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    whole = report.routing(NAMES, WINDOW, read_run(run, NAMES), read_sets(folder / "sets.npz"),
                           "code")
    assert found["plain"]["test"] == whole["without_handicap"]["accuracy"][str(WINDOW)]
    assert found["offsets"]["test"] == whole["accuracy"][str(WINDOW)]
    chosen = found["typicality"]["weight"]
    assert chosen == whole["typicality"]["chosen_on_valid"]
    assert [found["typicality"]["test"]] == [
        r["test"] for r in whole["typicality"]["rows"] if r["weight"] == chosen]
    # averaged with itself, a run routes as alone; with another it need not
    assert whole_windows.report([run, run], "code")["plain"] == found["plain"]
    assert whole_windows.main(["--run", run, "--members", run + "x", "--out", str(out)]) == 2
    assert "there is no run" in capsys.readouterr().err
