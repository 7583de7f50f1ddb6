"""Reading ends when the leader is certain, and hardly ever because of chance."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_bank
from scipy import signal, stats
from scipy.special import stdtr
from tiny_bank import FLAT, TEXT, TINY, fresh, in_memory, one, trained_bank, windows

from cr_jax import router
from cr_jax.bank import Expert, ExpertBank
from cr_jax.cli import main
from cr_jax.config import Scoring
from cr_jax.data.spool import Spool
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing import early_stop
from cr_jax.routing.cascade import Cascade
from cr_jax.routing.early_stop import FEWEST, FIRST_BLOCK, LOOK, LeaderTest, p_values
from cr_jax.routing.explain import explain
from cr_jax.routing.options import RouteOptions
from cr_jax.scoring.batching import BatchSizes

FIRST = FEWEST * FIRST_BLOCK  # windows before the first look


def read(nats, confidence=0.99, step=LOOK):
    """(windows read, leader) of one document, all windows when it never was certain."""
    test = LeaderTest(len(nats), confidence)
    for end in range(step, nats.shape[1] + 1, step):
        test.add(nats[:, end - step : end])
        if test.certain():
            return end, int(nats[:, :end].sum(1).argmin())
    return nats.shape[1], None


def test_independent_blocks_meet_about_student_s_t():
    """By another hand: the correlation that is found by chance, and its error, cost power only."""
    blocks = np.random.default_rng(0).normal(2.0, 5, (200, 24))
    plain = stats.ttest_1samp(blocks, 0, axis=1, alternative="greater").pvalue
    found = p_values(blocks)
    low = plain < 0.3
    assert (found[low] > plain[low]).mean() > 0.8 and stats.spearmanr(found, plain)[0] > 0.9
    assert np.median(found[low] / plain[low]) < 30


def correlated(random, rho, experts, windows):
    """Nats of windows, each `rho` times its neighbour and noise; standard deviation 20."""
    noise = random.normal(0, 1, (experts, windows))
    noise[:, 0] /= np.sqrt(1 - rho**2)
    return 300 + 20 * np.sqrt(1 - rho**2) * signal.lfilter([1], [1, -rho], noise)


def real(random, experts, windows):
    """As long documents of code are: windows near each other are alike, and pages, too."""
    parts = ((0.3, 0.88), (0.25, 0.5), (0.45, 0.0))
    return sum(w**0.5 * (correlated(random, r, experts, windows) - 300) for w, r in parts) + 300


@pytest.mark.parametrize("kind", [0.0, 0.8, 0.95, "real"])
def test_the_wrong_expert_wins_no_oftener_than_promised(kind):
    """At its worst: expert 0 is best, but by nothing that could be seen."""
    random = np.random.default_rng(1)
    draw = lambda n, w: real(random, n, w) if kind == "real" else correlated(random, kind, n, w)
    for experts, confidence in ((2, 0.95), (6, 0.7)):
        wrong = [read(draw(experts, 256), confidence)[1] not in (0, None) for _ in range(120)]
        risk = 1 - confidence  # and three standard deviations of this estimate
        assert np.mean(wrong) <= risk + 3 * np.sqrt(risk * (1 - risk) / 120)


def test_a_test_of_independent_windows_would_stop_wrongly(monkeypatch):
    """Negative control: without the blocks' correlation, and with blocks of a window."""
    monkeypatch.setattr(early_stop, "FIRST_BLOCK", 1)
    monkeypatch.setattr(
        early_stop,
        "p_values",
        lambda blocks: stdtr(
            blocks.shape[1] - 1, -blocks.mean(1) / blocks.std(1, ddof=1) * np.sqrt(blocks.shape[1])
        ),
    )
    random, wrong = np.random.default_rng(1), {}
    for rho in (0.0, 0.95):
        found = [read(correlated(random, rho, 2, 256), 0.95)[1] == 1 for _ in range(100)]
        wrong[rho] = np.mean(found)
    assert wrong[0.0] < 0.1 and wrong[0.95] > 0.2


def test_clear_documents_end_early_and_closer_ones_later():
    random = np.random.default_rng(2)
    draw = lambda margin: random.normal(300, 5, (4, 800)) + margin * (np.arange(4) != 2)[:, None]
    ends = {margin: [read(draw(margin)) for _ in range(20)] for margin in (30, 4, 1)}
    mean = {margin: np.mean([end for end, _ in found]) for margin, found in ends.items()}
    assert FIRST <= mean[30] < 1.2 * FIRST < mean[4] < 200 < mean[1] <= 800
    assert {leader for found in ends.values() for _, leader in found} <= {2, None}
    # More confidence reads more.
    document = draw(4)
    assert read(document, 0.5)[0] < read(document, 0.999999)[0]


def test_broken_and_equal_experts():
    same = np.tile(np.random.default_rng(3).normal(300, 5, 64), (2, 1))
    assert read(same) == (64, None)
    assert read(same + [[0.0], [1.0]]) == (FIRST, 0)  # always by the same: no scatter at all
    assert read(np.stack([same[0] * np.nan, same[0], same[1] + 30, same[0] + np.inf]))[0] == FIRST
    assert read(np.full((2, 64), np.nan)) == (64, None)
    assert read(same[:1])[0] == FIRST  # one expert has no rival


@pytest.mark.parametrize("step", [1, 3, 8, 40])
def test_a_look_depends_on_what_was_read_and_not_on_how_it_came(step):
    nats = correlated(np.random.default_rng(4), 0.5, 3, 240) + [[0.0], [9.0], [9.0]]
    once, again = LeaderTest(3, 0.9), LeaderTest(3, 0.9)
    once.add(nats)
    for start in range(0, 240, step):
        again.add(nats[:, start : start + step])
    np.testing.assert_allclose(once._blocks, again._blocks)
    assert once._blocks.shape == (3, 30) and once._size == 8
    first, second = again.certain(), again.certain()
    assert first == once.certain() and not second  # no look is due before more was read


@pytest.mark.parametrize("rule", [Scoring(), Scoring(parts=4)], ids=["seen", "hidden"])
def test_a_stopped_route_is_that_of_the_windows_it_read(rule):
    bank = dataclasses.replace(trained_bank(), scoring=rule)
    long = windows(201, 5, 97, 107)
    whole, seen = router.route(bank, long), []
    for batch in (64, 4):
        short = router.route(
            bank,
            long,
            options=RouteOptions(stop=0.99),
            sizes=BatchSizes(windows=batch),
            on_block=seen.append,
        )
        assert FIRST <= short.windows < 100 and short.of_windows == 201 == whole.windows
        assert short.nearest == whole.nearest == "e0"
        start = router.route(
            bank,
            long,
            options=RouteOptions(max_windows=short.windows),
            sizes=BatchSizes(windows=min(batch, LOOK)),
        )
        assert dataclasses.replace(short, of_windows=None) == start
    assert whole.of_windows is None
    assert whole == router.route(bank, long, RouteOptions(stop=0.0))
    assert sum(map(len, seen)) < 200
    # A text, of which more is read than is scored, and no more than its beginning is counted.
    text = "abcdefghij" * 300
    assert router.route(bank, text, options=RouteOptions(stop=0.9)).of_windows == -(
        -len(text) // TINY.window
    )
    assert router.route(bank, text, options=RouteOptions(stop=0.9, max_windows=50)).of_windows == 50


def test_what_is_only_counted_is_not_stored(monkeypatch):
    """The rest of a long text would fill a disk for nothing."""
    stored, add = [], Spool._add
    monkeypatch.setattr(
        Spool, "_add", lambda self, block: (stored.append(len(block)), add(self, block))[1]
    )
    bank = dataclasses.replace(trained_bank(), scoring=Scoring(parts=4))
    found = router.route(
        bank, windows(201, 5, 97, 107), options=RouteOptions(stop=0.99, tra="nearest")
    )
    assert found.of_windows == 201 and sum(stored) == found.windows < 100
    stored.clear()
    found = router.route(bank, windows(201, 5, 97, 107), options=RouteOptions(tra="nearest"))
    assert found.windows == 201 == sum(stored)


def test_an_ambiguous_text_is_read_to_its_end():
    """Negative control: half the windows are each expert's, and clones never differ."""
    bank, parts = trained_bank(), [windows(61, i, low, low + 10) for i, low in enumerate((97, 113))]
    order = np.random.default_rng(0).permutation(120)
    mixed = Windows(
        *(
            np.concatenate([getattr(p, field)[:60] for p in parts])[order]
            for field in ("tokens", "mask", "document")
        )
    )
    found = router.route(bank, mixed, options=RouteOptions(stop=0.99))
    assert found.windows == found.of_windows == 120
    clones = ExpertBank(TINY, bank.tokenizer)
    for i in range(3):
        clones = clones.mount(Expert(f"clone{i}", one(fresh(1), 0), FLAT))
    found = router.route(clones, TEXT * 4, options=RouteOptions(stop=0.5))
    assert found.windows == found.of_windows > 5 * LOOK
    assert found.residuals == pytest.approx(router.route(clones, TEXT * 4).residuals)


def test_the_kept_experts_of_a_cascade_stop():
    bank = trained_bank()
    long = windows(201, 5, 97, 107)
    found = Cascade(bank, 2).route(long, options=RouteOptions(stop=0.99))
    alone = router.route(bank, long, options=RouteOptions(stop=0.99))
    assert (found.nearest, found.windows, found.of_windows) == (
        alone.nearest,
        alone.windows,
        alone.of_windows,
    )
    assert found.residuals == pytest.approx(alone.residuals)
    assert found.bigrams == Cascade(bank, 2).route(long).bigrams  # these read it all


def test_the_command_says_how_many_windows_of_how_many(tmp_path, capsys):
    made = ExpertBank.create(tmp_path / "bank", TINY, tiny_bank.ByteTokenizer())
    for name in trained_bank().names:
        made = made.add(dataclasses.replace(trained_bank().expert(name), bigram=None))
    (tmp_path / "a.txt").write_text("abcdefghij" * 160)
    words = ["route", "--bank", str(tmp_path / "bank"), str(tmp_path / "a.txt")]

    def call(*more):
        return main([*words, *more]), *capsys.readouterr()

    said = json.loads(call("--json", "--stop", "0.99")[1])
    assert (said["expert"], said["of_windows"]) == ("e0", 100) and said["windows"] < 50
    assert (
        f"({said['windows']} of 100 windows, {said['tokens']} tokens)" in call("--stop", "0.99")[1]
    )
    assert "(100 windows, 1600 tokens)" in call()[1]
    assert json.loads(call("--json")[1])["of_windows"] is None
    shown = call("--stop", "0.99", "--explain", "--windows", "60")[1]
    assert f": {said['windows']} of 100 windows, {said['tokens']} tokens" in shown
    assert "below: the first" not in shown  # all that was scored is explained
    for bad in ("1", "-0.1", "nan", "x"):
        status, out, error = call("--stop", bad)
        assert (status, out) == (2, "") and "--stop" in error and error.count("\n") == 1
    assert "certain" in (main(["route", "--help"]), capsys.readouterr().out)[1]


def test_bad_confidences_are_one_line():
    bank = in_memory(2)
    for bad in (1.0, -0.5, float("nan")):
        for call in (
            lambda b=bad: router.route(bank, TEXT, options=RouteOptions(stop=b)),
            lambda b=bad: explain(bank, TEXT, options=RouteOptions(stop=b)),
            lambda b=bad: Cascade(bank, 1).route(TEXT, options=RouteOptions(stop=b)),
        ):
            with pytest.raises(UserError, match="stop"):
                call()
