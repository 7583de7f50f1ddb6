"""Left-out domains on made-up token scores: what each witness must see, and must not."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.bank import witnesses as merging
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.unknown import leave_out, token_statistics
from cr_jax.studies.unknown.token_statistics import Nats

NAMES = ("patchwork", "distant", "one", "two", "three")
TOKENS = 40


def nats(kind, rng, count=60):
    """[E, count, TOKENS].  Text of one, two, three costs its expert 3 nats/token and any other 5.

    patchwork: cheap for its own expert; each token is cheap for one of the others by chance and
    dear for the rest, so that any of them has 3 nats/token in the mean.
    distant: its own expert alone is cheap, and all others are equally bad at each token.
    """
    experts, home = len(NAMES), NAMES.index(kind)
    level = rng.normal(0, 0.15, (count, 1))
    noise = rng.normal(0, 0.3, (experts, count, TOKENS))
    if kind == "patchwork":
        cheap = rng.integers(1, experts, (count, TOKENS)) == np.arange(experts)[:, None, None]
        mean = np.where(cheap, 1.5, 3.5)
        mean[home] = 1.0
    elif kind == "distant":
        mean = np.full((experts, 1, 1), 6.0)
        mean[home] = 3.0
        noise = np.broadcast_to(noise[:1], noise.shape)  # nobody wins a token by chance
    else:
        mean = np.full((experts, 1, 1), 5.0)
        mean[home] = 3.0
    return np.maximum(0.01, mean + level + noise)


def above(name, scores):
    """Surprise: noise, but for "sure", whose text is as cheap as "one" and surprises everybody."""
    drawn = np.random.default_rng(3).normal(2.0 * (name == "sure"), 0.3, scores.shape)
    return drawn.astype(np.float32)


def world(seed, extra=()):
    rng, made = np.random.default_rng(seed), {}
    for name in (*NAMES, *extra):
        scores = nats({"twin": "one", "sure": "one"}.get(name, name), rng)
        count = scores.shape[1]
        tokens = rng.integers(0, 200, (count, TOKENS)).astype(np.int32)
        windows = Windows(tokens, np.ones(tokens.shape, bool), np.arange(count))
        made[name] = token_statistics.statistics(Nats(scores, above(name, scores)), windows)
    return made


@pytest.fixture(scope="module")
def found():
    test = world(1, ("twin", "sure"))
    test["attack/one token"] = token_statistics.statistics(
        Nats(nats("one", np.random.default_rng(2), 8), np.zeros((len(NAMES), 8, TOKENS))),
        Windows(np.zeros((8, TOKENS), np.int32), np.ones((8, TOKENS), bool), np.arange(8)),
    )
    return leave_out.run(NAMES, world(0), test)


def cell(found, witness, domain):
    return found["witnesses"][witness]["per_domain"][domain]


def test_text_that_several_experts_share_is_seen_by_pairs_and_not_by_the_residual(found):
    assert cell(found, "residual", "patchwork")["auroc"] < 0.8
    for witness in ("pair_regret", "pair_clipped", "pair_share", "regret", "lead", "vector"):
        assert cell(found, witness, "patchwork")["auroc"] > 0.99, witness
        assert cell(found, witness, "patchwork")["reject_at_1pct"] > 0.95, witness


def test_text_that_is_cheap_and_surprising_is_seen_by_surprise_alone(found):
    for witness in ("residual", "vector", "pair_share", "sum_vector"):
        assert cell(found, witness, "sure")["auroc"] < 0.7, witness
    for witness in ("surprise", "largest_surprise"):
        assert cell(found, witness, "sure")["auroc"] > 0.99, witness
        assert cell(found, witness, "twin")["auroc"] < 0.7, witness  # as cheap, and no surprise


def test_text_that_is_equally_bad_for_all_is_seen_by_the_residual_and_not_by_pairs(found):
    assert cell(found, "residual", "distant")["auroc"] > 0.99
    for witness in ("pair_regret", "pair_share", "regret", "repetition"):
        assert cell(found, witness, "distant")["auroc"] < 0.8, witness


@pytest.mark.parametrize("witness", ["sum", "largest", "sum_vector", "largest_vector", "fisher"])
def test_joined_witnesses_see_both(found, witness):
    for domain in ("patchwork", "distant"):
        assert cell(found, witness, domain)["auroc"] > 0.99
    mean = found["witnesses"]
    assert mean[witness]["auroc"] > max(mean["residual"]["auroc"], mean["pair_share"]["auroc"])


def test_copies_of_training_text_are_counted_apart():
    """Half of an attack's windows are like known text and were copied, half are distant."""
    rng, experts = np.random.default_rng(2), len(NAMES)
    foreign = np.full((experts, 8, TOKENS), 6.0)
    scores = np.concatenate([nats("one", rng, 8), foreign], 1)
    windows = Windows(np.zeros((16, TOKENS), np.int32), np.ones((16, TOKENS), bool), np.arange(16))
    attack = token_statistics.statistics(Nats(scores, np.zeros(scores.shape)), windows)
    test = {**world(1), "attack/half": attack, "attack/whole": attack}
    copied = {"attack/half": np.arange(16) < 8, "attack/whole": np.ones(16, bool)}
    found = leave_out.run(NAMES, world(0), test, copied=copied)["witnesses"]["residual"]
    half, whole = (found["per_domain"][f"attack/{x}"] for x in ("half", "whole"))
    assert (half["copied"], whole["copied"]) == (0.5, 1.0)
    assert half["reject_at_1pct"] < 0.6 and half["reject_strange_at_1pct"] == 1.0
    assert whole["reject_strange_at_1pct"] is None
    assert found["attack_accept"] > 0.4 and found["attack_accept_strange"] == 0.0
    without = leave_out.run(NAMES, world(0), test)["witnesses"]["residual"]
    assert without["attack_accept_strange"] == without["attack_accept"] == found["attack_accept"]
    twice = leave_out.merge([{"witnesses": {"residual": found}, "target_false_alarm": 0.01}] * 2)
    assert twice["witnesses"]["residual"]["per_domain"]["attack/whole"]["copied"] == 1.0
    assert twice["witnesses"]["residual"]["attack_accept_strange"] == 0.0


def test_text_of_a_known_domain_is_unknown_to_no_witness(found):
    """A negative control: the twin is drawn as a known domain is."""
    for witness in found["witnesses"]:
        twin = cell(found, witness, "twin")
        assert twin["kind"] == "unseen" and twin["reject_at_1pct"] <= 0.15, witness
        assert 0.3 < twin["auroc"] < 0.7, witness
        assert found["witnesses"][witness]["false_alarm_at_1pct"] < 0.05, witness


def test_one_repeated_token_is_seen_by_repetition_alone(found):
    accepted = {w: of["attack_accept"] for w, of in found["witnesses"].items()}
    assert accepted["repetition"] == accepted["sum_repetition"] == 0
    assert accepted["residual"] == accepted["sum"] == accepted["vector"] == 1
    assert cell(found, "residual", "attack/one token")["kind"] == "attack"


def test_the_default_is_chosen_on_valid_and_the_result_is_json(found):
    of = found["witnesses"]
    assert found["default"] == max(of, key=lambda w: of[w]["valid_auroc"])
    assert of[found["default"]]["auroc"] > of["residual"]["auroc"]
    assert json.loads(json.dumps(found)) == found


def test_strange_trigrams_are_a_witness_where_they_were_counted(found):
    assert not {"novel", "sum_novel"} & found["witnesses"].keys()

    def counted(made, seed):
        share = np.random.default_rng(seed).uniform(0, 0.1, (len(NAMES), 60))
        return {
            n: dataclasses.replace(s, novel=share + (0.5 if n == "two" else 0.0))
            for n, s in made.items()
        }

    again = leave_out.run(NAMES, counted(world(0), 0), counted(world(1), 1))
    assert cell(again, "novel", "two")["auroc"] > 0.99 > 0.7 > cell(again, "novel", "one")["auroc"]
    assert cell(again, "vector", "two") == cell(found, "vector", "two")
    assert "sum_novel" in again["witnesses"]


def test_figures_are_means_over_left_out_domains_only(found):
    for of in found["witnesses"].values():
        held_out = [of["per_domain"][n]["auroc"] for n in NAMES]
        assert of["auroc"] == pytest.approx(np.mean(held_out))


def test_what_the_left_out_expert_says_has_no_part(found):
    """Its rows hold anything, and nothing of its domain's figures changes."""
    valid, test = world(0), world(1)
    rng = np.random.default_rng(5)

    def without_row(of):
        scores = of.residual.copy()
        scores[1] = rng.normal(size=scores.shape[1])
        pairs = {}
        for k in ("clipped", "share", "excess", "rival_excess", "rival_lead"):
            pairs[k] = getattr(of, k).copy()
            pairs[k][1] = 7.0
            if not k.startswith("rival"):
                pairs[k][:, 1] = 7.0
        kept = {k: getattr(of, k) for k in ("deviation", "dearest", "distinct")}
        return token_statistics.TokenStatistics(residual=scores, **pairs, **kept)

    spoilt = [{n: without_row(s) for n, s in given.items()} for given in (valid, test)]
    again = leave_out._Known(NAMES, *spoilt, leave_out.USUAL, left_out=1)
    for witness, figures in again.figures(spoilt[1]["distant"]).items():
        there = cell(found, witness, "distant")
        assert figures == {k: there[k] for k in figures}, witness


def test_runs_of_several_seeds_are_merged_by_means(found, tmp_path, capsys):
    other = json.loads(json.dumps(found))
    for of in other["witnesses"].values():
        of["auroc"] /= 2
        of["valid_auroc"] = 0.5
    other["witnesses"]["sum"]["valid_auroc"] = 2.0
    paths = [tmp_path / f"{i}.json" for i in range(2)]
    for path, report in zip(paths, (found, other), strict=True):
        path.write_text(json.dumps({"unknown_witnesses": report}))
    assert merging.main([*map(str, paths), "--out", str(tmp_path / "out.json")]) == 0
    merged = json.loads((tmp_path / "out.json").read_text())
    for name, of in merged["witnesses"].items():
        parts = [r["witnesses"][name] for r in (found, other)]
        assert of["auroc"] == pytest.approx(np.mean([p["auroc"] for p in parts]))
        assert of["seeds"] == 2 and of["per_domain"]["one"]["kind"] == "held_out"
    assert merged["default"] == "sum" != found["default"]
    assert merged["attacks"] == {"one token": found["witnesses"]["sum"]["attack_accept"]}
    del other["witnesses"]["sum"]["per_domain"]["twin"]
    with pytest.raises(UserError, match="differ by their seed"):
        leave_out.merge([found, other])
    capsys.readouterr()
    (tmp_path / "none.json").write_text("{}")
    assert merging.main([str(tmp_path / "none.json"), "--out", str(tmp_path / "x")]) == 2
    assert "study witnesses" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("names", "change", "words"),
    [
        (NAMES[:2], {}, "at least three domains"),
        (NAMES, {"one": None}, "test windows of one are missing"),
        (NAMES, {"two": 3}, "at least 5 validation windows"),
        (NAMES, {"all": 10}, "needs at least 99"),
    ],
)
def test_too_little_to_judge_is_one_line(names, change, words):
    valid, test = world(0), world(1)
    for name, count in change.items():
        if count is None:
            del test[name]
        for n in valid if name == "all" else (name,):
            valid[n] = valid[n].take(slice(count))
    with pytest.raises(UserError, match=words):
        leave_out.run(names, valid, test)
