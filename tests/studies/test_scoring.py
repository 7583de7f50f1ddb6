"""Scoring rules are judged by what residuals say, worked out by hand; clones are at chance."""

import json

import numpy as np
import pytest

from cr_jax.studies import scoring

EXPERTS = ["a", "b"]


def stored(seen, hidden, tra):
    """Residuals of one run: arrays [E, N] for valid and test of a, b and unseen u."""
    out = {}
    for place in ("valid/a", "valid/b", "test/a", "test/b", "unseen/u"):
        for key, of in (("seen:nll", seen), ("seen:correct", tra), ("h50:residual", hidden)):
            out[f"{place}:{key}"] = 4 * np.asarray(of[place[-1]], np.float32)
    return out


SEEN = {"a": [[1, 3], [2, 2]], "b": [[9, 9], [1, 1]], "u": [[8, 8], [5, 7]]}
HIDDEN = {"a": [[1, 1], [2, 2]], "b": [[9, 9], [1, 3]], "u": [[30, 30], [20, 20]]}
TRA = {"a": [[0.9, 0.5], [0.8, 0.8]], "b": [[0.1, 0.1], [0.9, 0.9]], "u": [[0, 0], [0, 0]]}


@pytest.fixture
def found():
    return scoring.rules(stored(SEEN, HIDDEN, TRA), 4, EXPERTS)


def test_routing_is_the_share_of_windows_whose_lowest_residual_is_at_home(found):
    assert scoring.judge(found["seen"], EXPERTS)["per_domain"] == {"a": 0.5, "b": 1.0}
    assert scoring.judge(found["TRA"], EXPERTS)["per_domain"] == {"a": 0.5, "b": 1.0}
    assert scoring.judge(found["h50"], EXPERTS)["routing"] == 1.0
    # 1 + 1 against 2 + 2, but 3 + 1 against 2 + 2: the first of equal residuals wins.
    assert scoring.judge(found["seen + h50"], EXPERTS)["per_domain"]["a"] == 1.0


def test_unseen_text_is_told_by_the_least_standardised_residual(found):
    judged = scoring.judge(found["h50"], EXPERTS)
    assert judged["auroc"] == 1.0 and judged["fpr95"] == 0.0
    # Nothing tells text apart that is the experts' own.
    own = {split: {**of, "u": of["b"]} for split, of in found["h50"].items()}
    assert scoring.judge(own, EXPERTS)["auroc"] < 0.8


def test_standardised_residuals_have_the_experts_own_valid_mean_and_deviation(found):
    z = scoring.standardised(found["seen"], EXPERTS)
    assert z["valid"]["a"][0].tolist() == [-1.0, 1.0]
    assert z["test"]["u"][0].tolist() == [6.0, 6.0]


def test_typicality_sends_home_what_an_expert_wins_that_finds_it_untypical(found):
    residuals = {"a": np.array([[5.0, 5.0], [4.5, 9.0]]), "b": np.array([[9.0, 9.0], [1.0, 1.0]])}
    plain = {"valid": residuals, "test": residuals | {"u": np.array([[5.0], [2.0]])}}
    counted = scoring.exceeding(plain, EXPERTS)
    assert scoring.judge(plain, EXPERTS)["routing"] == 0.75
    assert scoring.judge(counted, EXPERTS)["routing"] == 1.0
    assert counted["test"]["u"][0, 0] == 5.0 and counted["test"]["u"][1, 0] > 2.0
    assert "code, typicality" not in found  # a rule of the code length's


def test_cloned_experts_route_one_domain_only(found):
    clones = {
        split: {d: np.stack([r[0], r[0]]) for d, r in of.items()}
        for split, of in found["seen"].items()
    }
    assert scoring.judge(clones, EXPERTS)["routing"] == 0.5


def test_seeds_of_a_variant_are_averaged_and_their_spread_is_kept(tmp_path):
    for name, shift in (("x_s0", 0), ("x_s1", 2)):
        seen = {
            d: [[v + shift * (e == 0) for v in row] for e, row in enumerate(of)]
            for d, of in SEEN.items()
        }
        np.savez(tmp_path / f"{name}.npz", **stored(seen, HIDDEN, TRA))
        spec = {"domains": EXPERTS, "seed": shift, "model": {"window": 4}}
        (tmp_path / f"{name}.json").write_text(
            json.dumps(
                {"spec": spec, "params": 1, "seconds": 1.0, "tokens_per_expert": 4, "device": "cpu"}
            )
        )
    rows = scoring.run(tmp_path, lambda name: name[:1])
    line = next(r for r in scoring.summary(rows) if r["rule"] == "seen")
    assert (line["variant"], line["seeds"]) == ("x", 2)
    assert line["routing"] == pytest.approx(0.625)  # 0.75, and 0.5: a's windows all go to b
    assert line["routing_spread"] == pytest.approx(0.25)
    assert line["tra"] == pytest.approx(0.8)
