"""Many documents: the same answers as one by one, and fewer experts where bigram models decide."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_bank
from tiny_bank import TEXT, TINY, in_memory, refuses, stored, trained_bank, without_bigrams

import cr_jax
from cr_jax import router
from cr_jax.bank import ExpertBank, screen_file
from cr_jax.bank.files import BankFolder
from cr_jax.cli.route import _is_large
from cr_jax.data.windows import windows_of
from cr_jax.errors import UserError
from cr_jax.host import memory
from cr_jax.routing import many, rounds
from cr_jax.routing.cascade import Cascade
from cr_jax.routing.content import BLANK, REPEATED
from cr_jax.routing.looks import LOOKED
from cr_jax.routing.many import ManyRouter, route_many
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import BIGRAMS, EXPERTS
from cr_jax.routing.scored_documents import score_documents
from cr_jax.routing.screen_fit import fit_screen
from cr_jax.scoring.batching import BatchSizes

SIZES = BatchSizes(2, 4, 64)


def letters(low: int, high: int, seed: int, size: int = 100) -> str:
    draw = np.random.default_rng(seed).integers(low, high, size)
    return bytes(draw.tolist()).decode()


def documents(low: int, high: int, seed: int, count: int = 40):
    """Windows of whole documents, as `data.document_windows` gives them."""
    parts = []
    for d in range(count):
        ids = np.frombuffer(letters(low, high, 1000 * seed + d, 64).encode(), np.uint8)
        cut = windows_of(ids.astype(np.int32), TINY.window, 0)
        parts.append(dataclasses.replace(cut, document=np.full(len(cut), d)))
    fields = ("tokens", "mask", "document")
    return type(parts[0])(*(np.concatenate([getattr(x, f) for x in parts]) for f in fields))


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """e0 knows a-j, e1 knows q-z; with a screen."""
    folder = tmp_path_factory.mktemp("screened") / "bank"
    made = stored(folder, trained_bank())
    own = {"e0": documents(97, 107, 1), "e1": documents(113, 123, 2)}
    screen_file.write(folder, fit_screen(made, score_documents(made, own, SIZES)))
    return ExpertBank.load(folder)


TEXTS = [
    *(letters(97, 107, 10 + i) for i in range(9)),
    *(letters(113, 123, 20 + i) for i in range(9)),
    letters(48, 58, 3),  # of no expert
    TEXT,
    "   \n" * 30,
    "aa" * 60,
    "ab",
]


def test_the_screen_agrees_with_exact_routing_and_saves_experts(bank):
    screen = screen_file.read_of(BankFolder(bank.folder))
    assert screen.agreement == 1 and screen.decided > 0.5
    found = route_many(bank, TEXTS, sizes=SIZES)
    exact = [router.route(bank, text, sizes=SIZES) for text in TEXTS]
    assert [(f.expert, f.nearest) for f in found[:18]] == [
        (e.expert, e.nearest) for e in exact[:18]
    ]
    assert [f.known for f in found] == [e.known for e in exact]
    by = [f.decided_by for f in found]
    assert by.count(BIGRAMS) > 6 and set(by[18:]) == {EXPERTS}
    for one in (f for f in found if f.decided_by == BIGRAMS):
        assert one.known is True and one.residuals == {} == one.p_values
        assert one.ranked[0] == one.nearest == min(one.bigrams, key=one.bigrams.get)
        assert 0 < one.margin < np.inf and one.to_json()["decided_by"] == BIGRAMS
    assert found[20].reason == BLANK and found[21].reason == REPEATED


@pytest.mark.parametrize(
    "options", [RouteOptions(), RouteOptions(0.2, 3, tra="nearest"), RouteOptions(last_tokens=20)]
)
def test_exact_routing_of_many_is_routing_of_each(bank, options):
    found = route_many(bank, TEXTS, options, SIZES, exact=True)
    for ours, text in zip(found, TEXTS, strict=True):
        one = router.route(bank, text, options, SIZES)
        assert ours.reason == one.reason and ours.decided_by == EXPERTS
        assert (ours.expert, ours.windows, ours.tokens) == (one.expert, one.windows, one.tokens)
        assert ours.p_values == pytest.approx(one.p_values, nan_ok=True)
        assert ours.tra == pytest.approx(one.tra)
        assert ours.residuals == pytest.approx(one.residuals, rel=1e-5)
        assert ours.bigrams is None and ours.margin == pytest.approx(one.margin, rel=1e-4)


def test_residuals_of_experts_that_did_not_score_are_absent(bank):
    """The runner-up scores too: whether a text is known is also a question of its lead."""
    third = dataclasses.replace(
        tiny_bank.in_memory(3).experts[2], name="u", bigram=bank.bigrams["e1"]
    )
    stored_screen = screen_file.read_of(BankFolder(bank.folder))
    far = dataclasses.replace(stored_screen, usual={"e0": {}, "e1": {}, "u": {}})
    larger = bank.mount(third)
    many = ManyRouter.of_bank(larger, sizes=SIZES)
    many.bank = dataclasses.replace(many.bank, screen=far)
    (found,) = many.route([TEXTS[0]])
    whole = router.route(larger, TEXTS[0], sizes=SIZES)
    both = {name: pytest.approx(whole.residuals[name], rel=1e-5) for name in ("e0", "e1")}
    assert found.residuals == both and found.decided_by == EXPERTS
    assert found.margin == pytest.approx(both["e1"].expected - both["e0"].expected, rel=1e-4)
    assert found.p_values["e0"] == pytest.approx(whole.p_values["e0"])


def long_texts() -> list[str]:
    """Of e0, of e1, and of no expert; each of more windows than are looked at first."""
    return [letters(low, high, 5, 250) for low, high in ((97, 107), (113, 123), (48, 58))]


@pytest.fixture
def open_bank(bank):
    """Whose bigram models decide nothing."""
    found = ManyRouter.of_bank(bank, sizes=SIZES)
    nothing = dataclasses.replace(found.bank.screen, usual={"e0": {}, "e1": {}})
    found.bank = dataclasses.replace(found.bank, screen=nothing)
    return found


def test_a_few_windows_of_a_long_text_are_enough_where_it_is_known_by_far(bank, open_bank):
    found = list(open_bank.route([*long_texts(), TEXTS[0]]))
    exact = [router.route(bank, text, sizes=SIZES) for text in [*long_texts(), TEXTS[0]]]
    assert [f.expert for f in found] == [e.expert for e in exact] == ["e0", "e1", None, "e0"]
    for ours, one in zip(found[:2], exact, strict=False):
        assert (ours.windows, ours.tokens) == (LOOKED, LOOKED * TINY.window)
        assert ours.of_windows == one.windows and ours.decided_by == EXPERTS
        assert ours.residuals[one.nearest] == pytest.approx(one.residuals[one.nearest], rel=0.2)
    # What looks unknown, and what is short, is scored in full.
    for ours, one in zip(found[2:], exact[2:], strict=True):
        assert ours.windows == one.windows and ours.of_windows is None
        assert ours.residuals == pytest.approx(one.residuals, rel=1e-5)
        assert ours.p_values == pytest.approx(one.p_values)


def test_every_window_is_scored_once(open_bank, monkeypatch):
    scored, real = [], router.score_bank
    count = lambda bank, windows, *a, **k: (
        scored.append(len(windows)) or real(bank, windows, *a, **k)
    )
    monkeypatch.setattr(router, "score_bank", count)
    list(open_bank.route(long_texts()))
    cut = -(-250 // TINY.window)
    assert sum(scored) == LOOKED + LOOKED + cut  # by all experts of the bank at once


@pytest.mark.parametrize("how", [{"exact": True}, {"options": RouteOptions(tra="nearest")}])
def test_nothing_is_left_out_of_exact_routing_and_of_tra(bank, how):
    for found in ManyRouter.of_bank(bank, sizes=SIZES, **how).route(long_texts()):
        assert found.windows == -(-250 // TINY.window) and found.of_windows is None


def test_answers_come_in_order_and_bad_texts_cost_themselves_alone(bank, tmp_path):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.bin"
    good.write_text(TEXTS[1])
    bad.write_bytes(b"\0\1\2")
    asked = [good, bad, TEXTS[9], "", Path("nowhere"), 3, "\ud800", UserError("told"), *TEXTS]
    answers = list(ManyRouter.of_bank(bank, sizes=SIZES).route(iter(asked)))
    wrong = [i for i, a in enumerate(answers) if isinstance(a, UserError)]
    assert wrong == [1, 3, 4, 5, 6, 7] and len(answers) == len(asked)
    assert answers[0].nearest == "e0" and answers[2].nearest == "e1"
    assert [a.nearest for a in answers[8:26]] == ["e0"] * 9 + ["e1"] * 9
    refuses(lambda: route_many(bank, ["a" * 40, bad]), "bad.bin")


def test_a_text_is_large_by_its_characters_however_it_arrives(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds, "LARGE", 80)
    long, wide = TEXTS[0], "ä" * 60  # of 100 characters, and of 120 bytes
    for name, text in (("long", long), ("wide", wide)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        ways = text, tmp_path / name, iter([text[:50], text[50:]])
        assert [isinstance(rounds.read(way), rounds.Large) for way in ways] == [name == "long"] * 3
        assert _is_large(str(tmp_path / name)) == (name == "long")
    ways = [long, tmp_path / "long", iter([long])]
    found = route_many(bank, ways, sizes=SIZES)
    assert [f.decided_by for f in found] == [EXPERTS] * 3
    assert all(f.residuals == found[0].residuals for f in found)


def test_few_large_texts_are_held_at_a_time(bank, monkeypatch):
    monkeypatch.setattr(rounds, "LARGE", 80)
    read = []

    def texts():
        for i in range(9):
            read.append(i)
            yield iter([TEXTS[i]])

    answers = ManyRouter.of_bank(bank, sizes=SIZES).route(texts())
    assert next(answers).nearest == "e0" and len(read) <= 2
    assert [a.nearest for a in answers] == ["e0"] * 8 and len(read) == 9


def test_texts_are_read_as_they_are_needed(bank, monkeypatch):
    """A few rounds ahead, and no further, however long the experts take."""
    read, wait = [], threading.Event()
    monkeypatch.setattr(rounds, "LARGEST", 16)
    real = many.ManyRouter._experts
    slow = lambda router: wait.wait() and real(router)
    monkeypatch.setattr(many.ManyRouter, "_experts", slow)

    def texts():
        for i in range(16 * 9):
            read.append(i)
            if len(read) > 16 * many.AHEAD:
                wait.set()
            yield TEXTS[i % 19]

    answers = ManyRouter.of_bank(bank, sizes=SIZES).route(texts())
    next(answers)
    assert 16 * many.AHEAD < len(read) <= 16 * (many.AHEAD + 1)
    assert len(list(answers)) == 16 * 9 - 1


def test_a_caller_that_goes_away_is_not_worked_for(bank):
    many = ManyRouter.of_bank(bank, sizes=SIZES, exact=True)
    answers = many.route(iter([TEXTS[0] * 20] * 64))
    assert next(answers).nearest == "e0"
    begun = many._scorer._begun
    assert not all(job.done() for job in begun)
    answers.close()
    assert any(job.cancelled() for job in begun)


def test_banks_without_bigram_models_or_screen_are_scored_by_all(bank):
    for other in (without_bigrams(bank), in_memory(2)):
        found = route_many(other, TEXTS[:3], sizes=SIZES)
        for ours, text in zip(found, TEXTS, strict=False):
            one = router.route(other, text, sizes=SIZES)
            assert ours.nearest == one.nearest
            assert ours.residuals == pytest.approx(one.residuals, rel=1e-5)


def test_a_look_up_beyond_memory_leaves_all_to_the_experts(bank, monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    found = route_many(bank, TEXTS[:3], sizes=SIZES)
    assert [f.decided_by for f in found] == [EXPERTS] * 3
    assert all(set(f.residuals) == {"e0", "e1"} for f in found)


def test_a_list_is_no_text_and_a_text_is_no_list(bank):
    for call in (cr_jax.route, cr_jax.score, Cascade(bank, 1).route):
        one = (TEXTS[:2],) if call not in (cr_jax.route, cr_jax.score) else (bank, TEXTS[:2])
        refuses(lambda call=call, one=one: call(*one), "route_many")
    refuses(lambda: route_many(bank, TEXT), "list of texts")
    refuses(lambda: route_many(bank, [TEXT], RouteOptions(stop=0.9)), "stop")
    assert route_many(bank, []) == []
