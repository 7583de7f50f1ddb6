"""How many experts bigram models leave, from text whose pairs tell the domains apart.

The run is made up: three experts that are nearest to most of their own windows.
"""

import json

import numpy as np
import pytest
from stepping_text import NAMES, WINDOW, text, windows

from benchmarks.bank import cascade
from benchmarks.bank.inputs import read_sets, write_sets
from cr_jax.studies import weak_experts

VOCABULARY, COUNTS = 384, {"valid": 60, "test": 20}


def drawn(rng, name, count):
    """nats/token [3, count]: of ten windows, about nine are the domain's own expert's."""
    own = np.arange(3) == NAMES.index(name)
    return rng.normal(5, 1, (3, count)) - 2.5 * own[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run and the tokens that it was made from."""
    made, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    sums, sets = {}, {}
    for i, name in enumerate(NAMES):
        np.save(made / f"{name}.train.npy", text(name, 400, i).ravel())
        for split, count in COUNTS.items():
            sets[f"{split}/{name}"] = windows(text(name, count, 10 + i + count))
            sums[f"{split}/{name}:code:residual"] = WINDOW * drawn(rng, name, count)
    np.savez(made / "bank.npz", **sums)
    write_sets(made / "sets.npz", sets)
    (made / "bank.json").write_text(json.dumps({
        "spec": {"domains": NAMES, "model": {"window": WINDOW, "vocab_size": VOCABULARY},
                 "rules": {"code": {"predicted": True}}}, "device": "cpu", "commit": "abc"}))
    return made


@pytest.fixture
def call(folder, tmp_path):
    """The report of bigram models counted from a folder of tokens."""
    def found(*more, tokens=folder, status=0):
        out = tmp_path / "c.json"
        assert cascade.main(["--run", str(folder / "bank"), "--rule", "code", "--tokens",
                             str(tokens), "--out", str(out), *more]) == status
        return json.loads(out.read_text()) if not status else None

    return found


def other_text(folder, to, texts):
    """The folder with other training texts."""
    to.mkdir()
    (to / "sets.npz").write_bytes((folder / "sets.npz").read_bytes())
    for name, ids in texts.items():
        np.save(to / f"{name}.train.npy", ids)
    return to


def test_how_many_experts_a_run_needs(folder, tmp_path, call, capsys):
    found = call("--min-candidates", "1", "4")
    fixed, experts, bigrams = (found[k] for k in ("fixed", "experts", "bigrams"))
    assert [*found["adaptive"]] == ["1", "4"]
    # pairs tell the directions apart; of three experts, at least four are all
    assert bigrams["accuracy"] == {"valid": 1, "test": 1} == {
        k: np.mean([*bigrams["per_domain"].values()]) for k in ("valid", "test")}
    assert fixed["3"]["test"] == {"agreement": 1.0, "accuracy": experts["accuracy"]["test"]}
    three = found["adaptive"]["4"]
    assert (three["min_candidates"], three["candidate_margin"], three["offsets"]) == (3, 0, None)
    assert three["test"] == fixed["3"]["test"] | {"mean_candidates": 3}
    # the first that such bigram models keep is right, and the exact winner where the experts are
    assert fixed["1"]["test"] == {"agreement": pytest.approx(experts["accuracy"]["test"]),
                                  "accuracy": 1}
    assert 0.8 < experts["accuracy"]["test"] < 1
    assert 1 <= found["adaptive"]["1"]["test"]["mean_candidates"] < 3
    assert np.mean([*experts["per_domain"].values()]) == pytest.approx(
        experts["accuracy"]["test"])
    assert found["run_commit"] == "abc" and "--min-candidates 1 4" in found["command"]
    assert found["windows"] == {"valid": 180, "test": 60}
    assert call("--typicality-weight", "2")["typicality_weight"] == 2
    assert "agreement" in capsys.readouterr().out


def test_what_bigram_models_are_and_cost(folder, call):
    bigrams = call()["bigrams"]
    for name in NAMES:  # each step makes 256 pairs
        assert 0.9 * 256 < bigrams["stored"][name] <= 256
        assert bigrams["bytes"][name] == 6 * bigrams["stored"][name] + 2 * 2 * VOCABULARY
    few = call("--max-bigrams", "32")["bigrams"]
    assert max(few["stored"].values()) <= 32 == few["max_bigrams"]
    assert 0 < few["table_bytes"] < bigrams["table_bytes"]
    assert min(bigrams[k] for k in ("seconds_to_count", "seconds_to_score", "tokens_per_s")) > 0


def test_bigram_models_of_other_text_lose_the_winner(folder, tmp_path, call):
    """Negative controls: a neighbour's text keeps him instead, random text anyone."""
    own = {n: np.load(folder / f"{n}.train.npy") for n in NAMES}
    turned = other_text(folder, tmp_path / "turned", dict(zip(
        NAMES, (own[n] for n in (*NAMES[1:], NAMES[0])), strict=True)))
    fixed = call(tokens=turned)["fixed"]
    right = call()["fixed"]
    for split in ("valid", "test"):
        assert fixed["1"][split]["agreement"] < 0.2 < 0.8 < right["1"][split]["agreement"]
        assert fixed["3"][split]["agreement"] == 1
    random = other_text(folder, tmp_path / "random", {
        n: np.random.default_rng(i).integers(0, 256, own[n].size)
        for i, n in enumerate(NAMES)})
    found = call("--min-candidates", "1", tokens=random)
    assert 0.15 < found["fixed"]["1"]["valid"]["agreement"] < 0.55  # chance is a third
    assert found["adaptive"]["1"]["valid"]["mean_candidates"] > 2.5  # nearly all are in doubt


def test_offsets_help_a_bigram_model_that_pays_too_much():
    rng = np.random.default_rng(0)
    valid, test = ({n: drawn(rng, n, count) for n in NAMES} for count in COUNTS.values())
    weak = np.array([[0.0], [9.0], [0.0]])
    dear = [{n: r + weak for n, r in x.items()} for x in (valid, test)]
    found = cascade.report(NAMES, valid, test, *dear, least=(1,))
    plain, offsets = (found[k]["1"]["test"]["agreement"] for k in ("fixed", "fixed_with_offsets"))
    assert plain < 0.75 and offsets > plain + 0.05  # an offset wins half of what is its expert's
    adaptive = found["adaptive"]["1"]
    assert adaptive["offsets"]["down"] > 5
    assert found["bigrams"]["per_domain"]["down"] < 0.1  # plain
    even = cascade.report(NAMES, valid, test, valid, test, least=(1,))
    assert even["fixed"]["1"] == even["fixed_with_offsets"]["1"]  # none is needed, none is given
    assert even["fixed"]["1"]["test"]["agreement"] == 1


@pytest.mark.parametrize(("words", "said"), [
    (["--rule", "h50"], "not scored by h50"), (["--run", "none"], "no run none"),
    (["--typicality-weight", "-1"], "--typicality-weight must"),
    (["--max-bigrams", "0"], "--max-bigrams and --batch at least 1"),
    (["--min-candidates", "3", "0"], "--min-candidates"),
    (["--at-least", "2"], "--at-least a share")])
def test_arguments_of_a_cascade_that_cannot_be(call, capsys, words, said):
    call(*words, status=2)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_tokens_that_a_run_was_not_made_from(folder, tmp_path, call, capsys):
    texts = {n: np.load(folder / f"{n}.train.npy") for n in NAMES}

    def refused(word, harm):
        tokens = other_text(folder, tmp_path / f"t{len(list(tmp_path.iterdir()))}", texts)
        harm(tokens)
        call(tokens=tokens, status=2)
        said = capsys.readouterr().err
        assert word in said and said.startswith("error: ") and said.count("\n") == 1

    def with_sets(change):
        def harm(tokens):
            sets = read_sets(tokens / "sets.npz")
            write_sets(tokens / "sets.npz", change(sets))
        return harm

    train = lambda of: lambda tokens: of(tokens / "up.train.npy")
    refused("sets.npz", lambda tokens: (tokens / "sets.npz").unlink())
    refused("valid/up", with_sets(lambda x: {k: w for k, w in x.items() if k != "valid/up"}))
    refused("20 whole windows of test/down", with_sets(
        lambda x: x | {"test/down": x["test/down"].take(slice(19))}))
    refused("test/down", with_sets(lambda x: x | {"test/down": windows(text("down", 20, 0), 16)}))
    refused("up.train.npy", train(lambda path: path.unlink()))
    refused("up.train.npy", train(lambda path: path.write_bytes(b"\x93NUMPY broken")))
    refused("no row", train(lambda path: np.save(path, texts["up"][:WINDOW - 1])))
    refused("no row", train(lambda path: np.save(path, texts["up"].astype(np.float32))))
    refused("below 384", train(lambda path: np.save(path, texts["up"] + 300)))
    assert not (tmp_path / "c.json").exists()


def test_the_typicality_penalty_is_the_experts_alone():
    rng = np.random.default_rng(0)
    some = lambda: {n: 3 + rng.gamma(2, 1, (3, 40)) - 1.5 * (np.arange(3) == e)[:, None]
                    for e, n in enumerate(NAMES)}
    valid, test, *bigrams = (some() for _ in range(4))
    limit = weak_experts.limits(valid, NAMES)
    added = [{n: r[n] + 2 * np.maximum(0, r[n] - limit[:, None]) for n in NAMES}
             for r in (valid, test)]
    rule = dict(least=[1], at_least=0.9)
    found = cascade.report(NAMES, valid, test, *bigrams, typicality_weight=2.0, **rule)
    assert found == cascade.report(NAMES, *added, *bigrams, **rule)
    plain = cascade.report(NAMES, valid, test, *bigrams, **rule)
    assert plain["fixed"]["1"] != found["fixed"]["1"]
    assert plain["experts"] != found["experts"]
