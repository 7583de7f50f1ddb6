"""Claims and ratios are what the measured figures say; every arm has a cache of its size."""

import dataclasses

import pytest

from benchmarks import long_context
from benchmarks.speed import long_arms
from benchmarks.speed.long_context import main, ratios


def test_claims_are_judged_by_both_arms_and_not_where_one_is_missing():
    ppl = {
        "plain": {"1024": 20.0, "2048": 20.0},
        "tlin": {"1024": 20.5, "2048": 21.5},
        "tconst": {"1024": 20.7},
        "sliding": {"1024": 20.6},
    }
    found = long_context.claims(ppl)
    assert found["tlin within 3 % of plain at 1,024"] is True
    assert found["tconst within 3 % of plain at 1,024"] is False
    assert found["tlin within 5 % of plain at 2,048"] is False
    assert found["tconst within 5 % of plain at 2,048"] is None
    assert found["tlin better than the sliding window at 1,024"] is True
    assert found["tconst better than the sliding window at 1,024"] is False
    assert found["some form within 1 % of plain at 1,024 (goal)"] is False
    ppl["tlin_one"] = {"1024": 20.1}
    assert long_context.claims(ppl)["some form within 1 % of plain at 1,024 (goal)"] is True


def test_ratios_are_over_the_static_cache():
    speed = {
        "static_kv": {"64": {"tokens_per_s": 10.0, "state_bytes": 600}},
        "tconst": {"64": {"tokens_per_s": 50.0, "state_bytes": 6}, "128": {"tokens_per_s": 1.0}},
    }
    assert ratios(speed)["tconst"] == {"64": {"tokens_per_s": 5.0, "state": 100.0}}


def test_the_prediction_at_a_million_tokens(monkeypatch):
    monkeypatch.setattr(long_arms, "LENGTHS", (1 << 20,))
    predicted = long_arms.predicted(long_arms.FULL)
    assert set(predicted) == set(long_arms.ARMS)
    assert all(value == 1 for value in predicted["static_kv"].values())
    at = {arm: of[str(1 << 20)] for arm, of in predicted.items()}
    assert 5 < at["tconst"] < 20 and 1 < at["tlin"] <= 4 and at["recurrent"] > at["tconst"]


def test_state_is_counted_arm_by_arm():
    n, sizes = 1 << 20, {}
    for arm, changes in long_arms.ARMS.items():
        config = dataclasses.replace(long_arms.FULL, dtype="bfloat16", **changes)
        sizes[arm] = long_arms.state_and_ids(arm, config, n)[0]
    full = 8 * n * 2 * 512 * 2  # keys and values of 8 layers, 2 bytes a number
    assert sizes["static_kv"] - full == 4 and sizes["grouped_kv"] - full // 4 == 4
    assert sizes["int8_kv"] - 8 * n * 2 * (512 + 8 * 4) == 4
    assert sizes["static_kv"] / sizes["tlin"] == pytest.approx(4, rel=0.01)
    assert sizes["static_kv"] / sizes["tlin_one"] == pytest.approx(8, rel=0.01)
    assert sizes["static_kv"] > 100 * sizes["tconst"]
    # The baseline of equal state has at least as much.
    assert sizes["tconst"] <= sizes["sliding"] and sizes["tconst_one"] <= sizes["sliding"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--arms", "dense"], "no arm dense"),
        (["--lengths", "1000"], "1000 must be twice the window of 256"),
    ],
)
def test_what_cannot_be_timed_is_one_line(arguments, says, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_token_folder_serves_some_of_its_corpora(monkeypatch, tmp_path):
    """Its tokenizer was trained on all of them, and fewer would be another one."""
    folder = str(tmp_path / "tokens")
    args = long_context._parser().parse_args(
        ["--workdir", str(tmp_path), "--tokens-folder", folder, "--corpora", "wiki"]
    )
    e = long_context._experiment(
        long_context._config_file(), "plain", 1024, long_context.FULL, args
    )
    assert list(e.data.domains) == ["wiki"] and e.data.tokens == folder
    assert e.tokenizer.folder == str(tmp_path / "tokens" / "tokenizer")
