"""Routes add up: the nearest expert, documents as sums of windows, known or unknown, bad input."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_bank
from tiny_bank import BYTES, FLAT, TEXT, TINY, fresh, one, trained, trained_bank, windows

from cr_jax import router
from cr_jax.bank import Expert, ExpertBank
from cr_jax.config import SEEN, Scoring
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError
from cr_jax.routing import document
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ranking import one_sided_p_values
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.calibrate import calibrate
from cr_jax.scoring.calibration import p_sums


def test_trained_experts_route_their_own_letters_and_refuse_others():
    bank = trained_bank()
    own = [
        router.route_windows(bank, windows(64, 50 + i, low, high))
        for i, (low, high) in enumerate(((97, 107), (113, 123)))
    ]
    for i, routes in enumerate(own):
        assert (routes.expert == i).mean() > 0.95
    digits = router.route_windows(bank, windows(64, 60, 48, 58))
    best = digits.p_values[digits.expert, np.arange(64)]
    assert (best < 0.05).mean() > 0.9
    text = "".join(chr(97 + i * i % 10) for i in range(200))
    assert router.route(bank, text).expert == "e0"
    assert router.route(bank, "0123456789" * 20).expert is None
    assert (
        router.route(bank, "0123456789" * 20, options=RouteOptions(alpha=0.0)).expert in bank.names
    )
    assert router.route(bank, "0123456789" * 20).nearest in bank.names


def test_cloned_experts_tie_and_route_at_chance():
    bank = ExpertBank(TINY, BYTES)
    for i in range(4):
        bank = bank.mount(Expert(f"clone{i}", one(fresh(1), 0), FLAT))
    document = router.route(bank, TEXT)
    assert document.margin == 0 and len(set(document.residuals.values())) == 1
    batch = windows(40)
    routes = router.route_windows(bank, batch)
    assert (routes.residuals == routes.residuals[:1]).all()
    labels = np.arange(40) % 4
    assert (routes.expert == labels).mean() == 0.25


def test_a_document_is_the_sum_of_its_windows():
    bank, ids = trained_bank(), BYTES.encode(TEXT)
    whole = router.route(bank, TEXT, RouteOptions(tra="all"), BatchSizes(windows=64))
    cut = windows_of(ids, TINY.window, BYTES.pad_id)
    each = router.route_windows(bank, cut)
    lengths = cut.mask.sum(-1)
    assert whole.tokens == len(ids) and whole.windows == len(cut.tokens)
    high, low = one_sided_p_values(bank, each.residuals, lengths)
    for e, name in enumerate(bank.names):
        mean = np.sum(each.residuals[e] * lengths) / len(ids)
        assert whole.residuals[name] == pytest.approx(mean, rel=1e-6)
        assert whole.p_values[name] == pytest.approx(
            bank.calibration[name].document_p(*p_sums(high[e], lengths), p_sums(low[e], lengths)[0])
        )
        hits = router.score_tokens(bank, cut).correct[e][cut.mask]
        assert whole.tra[name] == pytest.approx(hits.mean())
    ranked = sorted(whole.residuals.values())
    assert whole.margin == pytest.approx(ranked[1] - ranked[0])
    assert whole.nearest == min(whole.residuals, key=whole.residuals.get)


def test_the_last_tokens_are_judged_whatever_stands_before_them():
    bank, last = trained_bank(), RouteOptions(tra="all", last_tokens=32)
    draw = np.random.default_rng(0)
    before, asked = ("".join(map(chr, draw.integers(a, a + 10, 37))) for a in (113, 97))
    prompt = before * 2 + asked
    assert router.route(bank, prompt).nearest == "e1"
    found = router.route(bank, prompt, last, BatchSizes(windows=2))
    assert found.nearest == "e0" and (found.windows, found.tokens) == (2, 32)
    # As the same tokens alone, also from windows that began earlier; a short text is all of it.
    tiny_bank.same_route(found, router.route(bank, asked[-32:], RouteOptions(tra="all")))
    cut = windows_of(BYTES.encode(prompt), TINY.window, BYTES.pad_id)
    tiny_bank.same_route(found, router.route(bank, cut, last, BatchSizes(windows=1)))
    short = router.route(bank, "abc", last)
    assert short.residuals == router.route(bank, "abc").residuals and short.tokens == 3
    tiny_bank.refuses(lambda: router.route(bank, "", last), "empty")


@pytest.mark.parametrize("rule", [Scoring(predicted=True), Scoring(parts=4, hidden=2)], ids=str)
def test_the_winners_tra_alone_is_that_of_the_full_computation(monkeypatch, rule):
    model = dataclasses.replace(TINY, predictive=rule.predicted)
    params = {"params": fresh(2, model)["params"] | trained()["params"]}  # a fresh predictor
    rows = {name: one(params, e) for e, name in enumerate(trained_bank().names)}
    bank = tiny_bank.altered(trained_bank(), params=rows).changed(scoring=rule, model=model)
    rebuilt, real = [], router.score_experts

    def score_experts(scorer, params, *more, **groups):
        if scorer.rule == SEEN:
            rebuilt.append(jax.tree.leaves(params)[0].shape[0])
        return real(scorer, params, *more, **groups)

    monkeypatch.setattr(router, "score_experts", score_experts)
    winners = set()
    for text in (TEXT, windows(7, 1, 97, 107), windows(9, 2, 113, 123)):
        for batch in (64, 4) if text is TEXT else (4,):
            sizes = BatchSizes(windows=batch)
            without = router.route(bank, text, sizes=sizes)
            assert without.tra == {} and not rebuilt
            short = router.route(bank, text, RouteOptions(tra="nearest"), sizes)
            assert set(rebuilt) == {1}
            full = router.route(bank, text, RouteOptions(tra="all"), sizes)
            rebuilt.clear()
            assert dataclasses.replace(short, tra={}) == without
            assert list(short.tra) == [short.nearest] and list(full.tra) == list(bank.names)
            assert short.tra[short.nearest] == full.tra[full.nearest]
            for field in ("expert", "nearest", "p_values", "windows", "tokens", "known"):
                assert getattr(short, field) == getattr(full, field), field
            assert short.residuals == pytest.approx(full.residuals, rel=1e-6)
            assert short.margin == pytest.approx(full.margin, rel=1e-4)
            winners.add(short.nearest)
            # The other expert's count is another one: the equality above says something.
            assert len(set(full.tra.values())) == 2
    assert len(winners) > 1


def test_a_text_is_read_once_unless_tra_is_asked_for(monkeypatch):
    bank, spools = tiny_bank.in_memory(3), []
    real = document.Spool
    monkeypatch.setattr(document, "Spool", lambda *a: spools.append(1) or real(*a))
    assert router.route(bank, TEXT).tra == {} and not spools
    found = router.route(bank, TEXT, RouteOptions(tra="all"))
    assert list(found.tra) == list(bank.names) and len(spools) == 1


def test_a_route_does_not_depend_on_how_the_text_arrives(monkeypatch):
    bank = tiny_bank.in_memory(2)
    whole = router.route(bank, TEXT, sizes=BatchSizes(windows=4))
    for size in (1, 7, 1000):
        parts = (TEXT[i : i + size] for i in range(0, len(TEXT), size))
        assert router.route(bank, parts, sizes=BatchSizes(windows=4)) == whole
    assert (
        router.route(
            bank, windows_of(BYTES.encode(TEXT), 16, BYTES.pad_id), sizes=BatchSizes(windows=4)
        )
        == whole
    )


def test_windows_shorter_than_any_calibration_say_nothing():
    bank = tiny_bank.in_memory(2)
    short = router.route(bank, "abc")
    assert (short.tokens, short.windows) == (3, 1)
    # Neither known nor unknown, whatever alpha is.
    assert np.isnan(list(short.p_values.values())).all()
    for alpha in (0, 0.05, 1):
        found = router.route(bank, "abc", options=RouteOptions(alpha=alpha))
        assert found.known is None and found.expert == found.nearest
    said = json.loads(json.dumps(short.to_json(), allow_nan=False))
    assert said["known"] is None and set(said["p_values"].values()) == {None}
    judged = router.route(bank, "ab" * 4)
    assert judged.known is True and judged.to_json()["known"] is True
    refused = router.route(bank, "ab" * 4, options=RouteOptions(alpha=1))
    assert refused.known is False and refused.expert is None
    # A short end of a long document leaves the document's p-value alone.
    assert router.route(bank, "a" * 19).p_values == router.route(bank, "a" * 16).p_values


def test_a_window_without_tokens_has_no_expert():
    bank, batch = tiny_bank.in_memory(3), windows(6)
    batch.mask[4] = False
    routes = router.route_windows(bank, batch)
    assert (routes.expert == -1).tolist() == [False, False, False, False, True, False]
    assert (np.isnan(routes.residuals).all(0) == (routes.expert == -1)).all()
    # As `route` says of the same windows, one at a time.
    with pytest.raises(UserError, match="empty"):
        router.route(bank, batch.take(slice(4, 5)))
    for i in (0, 1, 3):
        alone = router.route(bank, batch.take(slice(i, i + 1)), options=RouteOptions(alpha=0))
        assert bank.names[routes.expert[i]] == alone.expert


def test_route_is_json_and_frozen():
    found = router.route(tiny_bank.in_memory(1), TEXT)
    assert found.margin == np.inf and found.to_json()["margin"] is None
    assert json.loads(json.dumps(found.to_json()))["residuals"] == found.residuals
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.expert = "other"


def test_score_takes_what_route_takes_and_means_are_the_route_s():
    for rule in (SEEN, Scoring(parts=4)):
        bank = tiny_bank.in_memory(2, rule=rule)
        got, found = (
            router.score(bank, TEXT[:50], sizes=BatchSizes(windows=2)),
            router.route(bank, TEXT[:50]),
        )
        assert got.shape == (2, 4, TINY.window)
        mean = np.nanmean(got.astype(float), axis=(1, 2))
        np.testing.assert_allclose(mean, list(found.residuals.values()), rtol=1e-6)
        cut = windows_of(BYTES.encode(TEXT[:50]), TINY.window, BYTES.pad_id)
        np.testing.assert_array_equal(got, router.score(bank, cut, sizes=BatchSizes(windows=2)))
        assert (np.isfinite(got) == cut.mask[None]).all()


def test_a_path_is_a_file_and_a_str_never_is(tmp_path):
    bank, path = tiny_bank.in_memory(2), tmp_path / "text"
    path.write_text(TEXT)
    assert router.route(bank, path) == router.route(bank, TEXT)
    assert router.route(bank, str(path)).tokens == len(str(path))
    with pytest.raises(UserError, match="nowhere"):
        router.route(bank, tmp_path / "nowhere")


def test_a_head_is_judged_by_its_own_windows_and_the_rest_is_not_read():
    bank, read = tiny_bank.in_memory(2), []
    text = TEXT * 4_000  # several pieces of 65,536 characters

    def parts():
        for i in range(0, len(text), 1000):
            read.append(i)
            yield text[i : i + 1000]

    for few in (1, 3, 4, 7):
        seen = []
        found = router.route(
            bank,
            text,
            options=RouteOptions(max_windows=few),
            sizes=BatchSizes(windows=4),
            on_block=seen.append,
        )
        assert found == router.route(bank, text[: few * TINY.window], sizes=BatchSizes(windows=4))
        assert sum(len(block) for block in seen) == found.windows == few
    assert (
        router.route(
            bank, parts(), options=RouteOptions(max_windows=4), sizes=BatchSizes(windows=4)
        ).windows
        == 4
    )
    assert len(read) < 150  # of 600
    short = router.route(bank, TEXT, options=RouteOptions(max_windows=99))
    assert short == router.route(bank, TEXT, options=RouteOptions(max_windows=0))
    batch = windows(9)
    assert router.route(bank, batch, options=RouteOptions(max_windows=5)) == router.route(
        bank, batch.take(slice(5))
    )


def test_bad_input_is_one_line():
    bank = tiny_bank.in_memory(1)
    narrow = Windows(np.zeros((2, 8), np.int32), np.ones((2, 8), bool), np.zeros(2, np.int64))
    high = windows(2)
    high.tokens[0, 0] = TINY.vocab_size
    empty = windows(2)
    empty.mask[:] = False
    cases = {
        "empty": [
            lambda: router.route(bank, ""),
            lambda: router.route(bank, iter(["", ""])),
            lambda: router.route(bank, empty),
        ],
        "no experts": [lambda: router.route(ExpertBank(TINY, BYTES), "x")],
        "surrogate": [lambda: router.route(bank, "\udc80")],
        "alpha": [
            lambda: router.route(bank, "x", options=RouteOptions(alpha=2.0)),
            lambda: router.route(bank, "x", options=RouteOptions(alpha=float("nan"))),
        ],
        "max_windows=-1": [lambda: router.route(bank, TEXT, options=RouteOptions(max_windows=-1))],
        "to score": [lambda: router.score(bank, "")],
        "16 tokens": [lambda: router.score(bank, narrow)],
        "token ids": [lambda: router.score(bank, high)],
        "8 tokens": [lambda: calibrate(TINY, one(fresh(1), 0), empty)],
    }
    for word, tried in cases.items():
        for call in tried:
            with pytest.raises(UserError) as caught:
                call()
            assert word in str(caught.value) and "\n" not in str(caught.value)
