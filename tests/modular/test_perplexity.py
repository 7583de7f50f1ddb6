"""A text's price, scheduled and by each model alone; no token chooses who speaks it."""

import dataclasses
import math

import numpy as np
import pytest
import tiny_lms
from tiny_bank import contents, refuses

import cr_jax
from cr_jax import PerplexityOptions
from cr_jax.bank import LanguageModels, store_lms
from cr_jax.scoring.batching import BatchSizes

TEXT = tiny_lms.letters(0, 200) + tiny_lms.letters(1, 300)
FINE = PerplexityOptions(prefix=16, every=16, judged=32, window=64)


@pytest.fixture(scope="module")
def bank():
    return tiny_lms.bank()


@pytest.fixture(scope="module")
def found(bank):
    return cr_jax.perplexity(bank, TEXT, FINE)


def nats(expert: int, text: bytes, window: int = 64) -> np.ndarray:
    """Of each byte by one model, 0, 1 or 2, window by window, token by token."""
    params, out = tiny_lms.one(tiny_lms.trained(), expert), []
    for i in range(len(text)):
        before = list(text[i - i % window : i])
        out.append(-tiny_lms.next_log_probs(tiny_lms.BYTES, params, before)[text[i]])
    return np.array(out)


def test_each_model_costs_what_it_says_token_by_token(bank):
    text = TEXT[150:250]
    found = cr_jax.perplexity(bank, text, FINE)
    for name, expert in (("e0", 0), ("e1", 1)):
        assert found.experts[name] == pytest.approx(nats(expert, text.encode()).sum(), rel=1e-4)
    assert found.seed == pytest.approx(nats(2, text.encode()).sum(), rel=1e-4)


def test_windows_are_those_of_training_unless_others_are_asked_for(bank, found):
    told = dataclasses.replace(tiny_lms.BYTES, window=64)
    told_bank = bank.with_lms(told, {e.name: e.lm for e in bank.experts}, bank.seed_lm)
    unasked = dataclasses.replace(FINE, window=0)
    assert cr_jax.perplexity(told_bank, TEXT, unasked).to_json() == found.to_json()
    other = cr_jax.perplexity(told_bank, TEXT, dataclasses.replace(FINE, window=32))
    assert other.experts["e0"] != found.experts["e0"]


def test_language_models_of_any_kind_are_read_and_those_that_cannot_speak_refused(bank, found):
    other = dataclasses.replace(tiny_lms.BYTES, kind="sliding", chunk=0)  # sees all, as these do
    sliding = bank.changed(lm=other)
    same = cr_jax.perplexity(sliding, TEXT, FINE)
    assert same.seed == pytest.approx(found.seed, rel=1e-5)
    refuses(lambda: cr_jax.generate(sliding, "abc"), "this bank's is 'sliding'")


def test_turns_are_the_schedule_and_what_it_costs(found):
    assert [t.expert for t in found.turns] == ["seed", "e0", "e1"]
    assert (found.turns[1].start, found.turns[0].tokens) == (16, 16)
    change = found.turns[2].start
    assert change % 16 == 0 and 200 < change <= 200 + 32
    assert "".join(t.text for t in found.turns) == TEXT
    assert sum(t.tokens for t in found.turns) == found.tokens == found.bytes == 500
    assert found.scheduled == pytest.approx(sum(t.nats for t in found.turns))
    by_hand = np.concatenate(
        [
            nats(model, TEXT.encode())[start:end]
            for model, start, end in ((2, 0, 16), (0, 16, change), (1, change, 500))
        ]
    )
    assert found.scheduled == pytest.approx(by_hand.sum(), rel=1e-4)


@pytest.mark.parametrize("later", [False, True])
def test_a_further_expert_changes_no_bit_where_the_others_speak(bank, tmp_path, later):
    """Its language model comes with it, or is stored later."""
    folder = tmp_path / "bank"
    one = cr_jax.ExpertBank.load(tiny_lms.on_disk(folder, bank.select(["e0"])))
    own, both = tiny_lms.letters(0, 300), TEXT
    options = cr_jax.GenerateOptions(max_tokens=40, every=16)

    def told(bank, text):
        said = cr_jax.generate(bank, text[:60], options)
        return cr_jax.perplexity(bank, text, FINE), [piece.text for piece in said]

    before, bytes_before = told(one, own), contents(folder / "experts" / "e0")
    new = dataclasses.replace(bank.expert("e1"), about={})
    if later:
        one.add(dataclasses.replace(new, lm=None))
        store_lms(folder, LanguageModels(tiny_lms.BYTES, None, {"e1": new.lm}))
    else:
        one.add(new)
    assert contents(folder / "experts" / "e0") == bytes_before
    grown = cr_jax.ExpertBank.load(folder)
    after = told(grown, own)
    assert after[0].turns == before[0].turns and after[1] == before[1]  # every nat, every letter
    assert after[0].experts["e0"] == before[0].experts["e0"] and "e1" in after[0].experts
    # A negative control: where the new one speaks, what is said and what it costs are its own.
    more = cr_jax.perplexity(grown, both, FINE)
    assert more.experts["e0"] == cr_jax.perplexity(one, both, FINE).experts["e0"]
    assert {t.expert for t in more.turns} == {"seed", "e0", "e1"}
    assert more.scheduled < cr_jax.perplexity(one, both, FINE).scheduled


def test_units(found):
    for nat in found.nats.values():
        assert found.bits_per_byte(nat) == pytest.approx(nat / math.log(2) / 500)
        assert math.log(found.perplexity(nat)) == pytest.approx(nat / 500)
    assert list(found.nats.values()) == sorted(found.nats.values())
    assert min(found.scheduled, found.mixture) < min(found.experts.values())
    assert found.perplexity(1e9) == math.inf


def test_what_comes_later_changes_no_earlier_turn(bank, found):
    for other in ("\u4e2d" * 100, tiny_lms.letters(0, 300, seed=9)):
        changed = cr_jax.perplexity(bank, TEXT[:200] + other, FINE)
        assert changed.turns[0] == found.turns[0]
        assert changed.turns[1].expert == "e0" and changed.turns[1].start == 16


@pytest.mark.parametrize(("prefix", "every"), [(16, 64), (64, 16), (40, 40), (48, 64)])
def test_the_first_decision_comes_after_the_prefix(bank, prefix, every):
    options = dataclasses.replace(FINE, prefix=prefix, every=every)
    turns = cr_jax.perplexity(bank, TEXT[:150], options).turns
    assert [(t.expert, t.tokens) for t in turns] == [("seed", prefix), ("e0", 150 - prefix)]


def test_without_a_seed_the_mixture_begins(found):
    alone = cr_jax.perplexity(tiny_lms.bank(seed=False), TEXT, FINE)
    assert alone.seed is None and "seed" not in alone.nats
    assert [t.expert for t in alone.turns] == ["mixture", "e0", "e1"]
    assert alone.turns[1:] == found.turns[1:] and alone.mixture == pytest.approx(found.mixture)
    short = cr_jax.perplexity(tiny_lms.bank(seed=False), TEXT[:10], FINE)
    assert short.scheduled == pytest.approx(short.mixture)


def test_sizes_and_pieces_change_nothing(bank, found):
    pieces = (TEXT[i : i + 7] for i in range(0, 500, 7))
    other = cr_jax.perplexity(bank, pieces, FINE, BatchSizes(windows=2, tokens=64))
    assert other.turns[1].start == found.turns[1].start
    for name, cost in found.nats.items():
        assert other.nats[name] == pytest.approx(cost, rel=1e-5)


def test_json_is_plain(found):
    said = found.to_json()
    assert said["scheduled"]["nats"] == found.scheduled and set(said["experts"]) == {"e0", "e1"}
    assert said["turns"][1] == {
        "expert": "e0",
        "start": 16,
        "tokens": found.turns[1].tokens,
        "nats": found.turns[1].nats,
    }


def test_bytes_are_those_of_the_text_in_the_bank_s_form(bank):
    found = cr_jax.perplexity(bank, "größe\r\n" * 20, FINE)
    assert found.bytes == len("größe\n".encode()) * 20


def test_what_cannot_be_is_one_line(bank):
    refuses(lambda: cr_jax.perplexity(bank, ""), "empty")
    refuses(lambda: cr_jax.perplexity(bank.changed(lm=None), "abc"), "no language models")
    refuses(lambda: cr_jax.perplexity(bank.select([]), "abc"), "only its seed")
    for bad, word in ((dict(prefix=0), "prefix=0"), (dict(judged=-1), "judged=-1")):
        refuses(lambda bad=bad: PerplexityOptions(**bad), word)
