"""Who speaks, where it changes and what is said: on experts of two alphabets and their seed."""

import copy
import dataclasses

import numpy as np
import pytest
import tiny_lms
from tiny_bank import refuses

import cr_jax
from cr_jax import GenerateOptions, UserError
from cr_jax.modular import deciding
from cr_jax.modular.deciding import Decision
from cr_jax.modular.language_models import BankLms

ODD = "Größe 12345 !!!! 中文 %%%% ---- {}" * 2
SHORT = GenerateOptions(max_tokens=48)


@pytest.fixture(scope="module")
def bank():
    return tiny_lms.bank()


def greedy(expert, text: bytes, tokens: int) -> str:
    """By one model alone, 0, 1 or 2, the seed's."""
    params = tiny_lms.one(tiny_lms.trained(), expert)
    return bytes(tiny_lms.greedy(tiny_lms.BYTES, params, list(text), tokens)).decode()


@pytest.mark.parametrize("expert", [0, 1])
def test_the_router_s_expert_goes_on_with_its_own_letters(bank, expert):
    prompt = tiny_lms.letters(expert, 40)
    found = cr_jax.generate(bank, prompt, SHORT)
    assert found.decision == Decision((f"e{expert}",), True, "known")
    pieces = list(found)
    low, high = tiny_lms.RANGES[expert]
    assert {p.expert for p in pieces} == {f"e{expert}"} and not any(p.changed for p in pieces)
    assert set(found.text) <= set(map(chr, range(low, high))) and len(set(found.text)) > 4
    assert found.text == "".join(p.text for p in pieces) and len(found.text) == 48
    assert (found.finish, found.tokens, found.prompt_tokens, found.unseen) == ("length", 48, 40, 0)


def test_what_is_said_is_the_expert_s_greedy_continuation(bank):
    prompt = tiny_lms.letters(1, 30)
    found = cr_jax.generate(bank, prompt, GenerateOptions(max_tokens=20, temperature=0))
    assert "".join(p.text for p in found) == greedy(1, prompt.encode(), 20)
    named = cr_jax.generate(
        bank, prompt, GenerateOptions(max_tokens=20, temperature=0, expert="e0")
    )
    assert "".join(p.text for p in named) == greedy(0, prompt.encode(), 20)
    assert named.decision == Decision(("e0",), None, "named")


def test_text_that_no_expert_knows_is_the_seed_s_and_it_says_so(bank):
    found = cr_jax.generate(bank, ODD, GenerateOptions(max_tokens=20, temperature=0))
    assert found.decision.experts == ("seed",) and found.decision.known is False
    assert found.decision.reason == "no expert knows it: residual too high"
    assert "".join(p.text for p in found) == greedy(2, ODD.encode(), 20)
    alone = cr_jax.generate(tiny_lms.bank(seed=False), ODD, SHORT)
    assert alone.decision.experts[0] in ("e0", "e1") and alone.decision.known is False


@pytest.mark.parametrize("prompt", ["", "abc"])
def test_the_seed_begins_until_there_is_enough_to_judge(bank, prompt):
    found = cr_jax.generate(bank, prompt, GenerateOptions(max_tokens=40, prefix=16))
    pieces = list(found)
    first = 16 - len(prompt)
    assert found.decision.known and [p.changed for p in pieces] == [False, True]
    assert [p.tokens for p in pieces] == [first, 40 - first]
    assert pieces[0].expert == "seed" and pieces[1].expert in ("e0", "e1")
    assert [(s.start, s.tokens) for s in found.spans] == [(0, first), (first, 40 - first)]
    # what was said before decides, and the expert that takes over reads all of it
    judged = deciding.Judge(bank, BankLms(bank), 16, 256)
    text = np.frombuffer((prompt + pieces[0].text).encode(), np.uint8).astype(np.int32)
    assert judged.first(text).experts == found.spans[1].decision.experts


def test_an_empty_prompt_without_a_seed_is_one_line_and_a_named_expert_begins():
    bank = tiny_lms.bank(seed=False)
    refuses(lambda: cr_jax.generate(bank, ""), "empty prompt", "name an expert")
    named = cr_jax.generate(bank, "", GenerateOptions(max_tokens=5, expert="e1"))
    assert len("".join(p.text for p in named)) == 5
    short = cr_jax.generate(bank, "zzz", GenerateOptions(max_tokens=5))
    assert short.decision.experts == ("e1",) and "too few" in short.decision.reason


def test_a_new_expert_reads_what_was_said_and_the_text_goes_on(bank, monkeypatch):
    judged = []

    def again(self, text, now):
        judged.append(len(text))
        return Decision(("e1",) if len(judged) % 2 else ("e0",), True, "known")

    monkeypatch.setattr(deciding.Judge, "again", again)
    prompt = tiny_lms.letters(0, 30)
    options = GenerateOptions(max_tokens=30, temperature=0, every=8)
    pieces = list(cr_jax.generate(bank, prompt, options))
    assert [(p.expert, p.changed, p.tokens) for p in pieces] == [
        ("e0", False, 8),
        ("e1", True, 8),
        ("e0", True, 8),
        ("e1", True, 6),
    ]
    assert judged == [38, 46, 54]
    text = prompt
    for piece in pieces:
        assert piece.text == greedy(int(piece.expert[1]), text.encode(), piece.tokens)
        text += piece.text


def test_unknown_text_on_the_way_changes_nobody(bank):
    judge = deciding.Judge(bank, BankLms(bank), 16, 256)
    odd = np.frombuffer(ODD.encode(), np.uint8).astype(np.int32)
    now = Decision(("e1",), True, "known")
    assert judge.again(odd, now) is now
    own = np.frombuffer(tiny_lms.letters(0, 64).encode(), np.uint8).astype(np.int32)
    assert judge.again(own, now).experts == ("e0",)
    # only the last `memory` tokens are judged
    other = np.frombuffer(tiny_lms.letters(1, 32).encode(), np.uint8).astype(np.int32)
    mixed = np.concatenate([own, own, own, other])
    assert judge.again(mixed, now).experts == ("e0",)
    assert dataclasses.replace(judge, memory=32).again(mixed, now).experts == ("e1",)


def test_seeds_repeat_and_differ(bank):
    prompt = tiny_lms.letters(0, 30)
    texts = []
    for seed in (0, 0, 1):
        found = cr_jax.generate(bank, prompt, GenerateOptions(max_tokens=32, seed=seed))
        texts.append("".join(p.text for p in found))
    assert texts[0] == texts[1] != texts[2]


def test_it_ends_before_a_stop(bank):
    prompt = tiny_lms.letters(1, 30)
    free = greedy(1, prompt.encode(), 24)
    at = 9
    stop = free[at : at + 3]
    first = free.index(stop)
    options = GenerateOptions(max_tokens=24, temperature=0, stop=("nothing", stop))
    found = cr_jax.generate(bank, prompt, options)
    assert "".join(p.text for p in found) == free[:first]
    assert (found.finish, found.tokens) == ("stop", first + 3)
    assert list(found) == []  # it has ended


def test_it_ends_where_the_model_ends_it(bank):
    prompt = tiny_lms.letters(1, 30)
    free = greedy(1, prompt.encode(), 24)
    ends = copy.copy(bank.tokenizer)
    ends.end_id = ord(free[7])
    options = GenerateOptions(max_tokens=24, temperature=0)
    found = cr_jax.generate(bank.changed(tokenizer=ends), prompt, options)
    list(found)
    assert found.finish == "end" and found.tokens == free.index(free[7]) + 1
    assert found.text == free[: free.index(free[7])]


def test_ids_that_stand_for_nothing_are_never_said(bank):
    """A model without an opinion says all ids alike, but for the padding."""
    params = tiny_lms.one(tiny_lms.trained(), 0)["params"]
    flat = {"params": {**params, "head": np.zeros_like(params["head"])}}
    flat = bank.with_lms(tiny_lms.BYTES, {"e0": flat})
    said = []
    for seed in range(3):
        options = GenerateOptions(max_tokens=300, expert="e0", top_p=1.0, seed=seed)
        found = cr_jax.generate(flat, "abc", options)
        list(found)
        said += found._speakers.texts[0][3:].tolist()
    assert len(set(said)) > 150 and bank.tokenizer.pad_id == 256 not in said


def test_a_mixture_names_its_heaviest_expert(bank):
    prompt = tiny_lms.letters(1, 40)
    found = cr_jax.generate(bank, prompt, GenerateOptions(max_tokens=40, mix=2))
    assert found.decision.experts == ("e1", "e0")
    for piece in found:
        assert piece.expert == "e1" and piece.weights["e1"] > 0.9
        assert sum(piece.weights.values()) == pytest.approx(1, abs=1e-5)
    seed = cr_jax.generate(bank, ODD, GenerateOptions(max_tokens=8, mix=2, temperature=0))
    assert "".join(p.text for p in seed) == greedy(2, ODD.encode(), 8)


def test_a_prompt_beyond_the_context_is_seen_by_its_end(bank):
    prompt = tiny_lms.letters(0, 500)
    options = GenerateOptions(max_tokens=70, temperature=0, positions=128, every=0)
    found = cr_jax.generate(bank, prompt, options)
    assert (found.prompt_tokens, found.unseen) == (500, 436)
    said = "".join(p.text for p in found)
    assert len(said) == 70  # longer than what is left of the cache: it moves on
    assert said[:32] == greedy(0, prompt[-64:].encode(), 32)


def test_the_context_is_the_window_of_training_unless_another_is_asked_for(bank):
    told = dataclasses.replace(tiny_lms.BYTES, window=128)
    told_bank = bank.with_lms(told, {e.name: e.lm for e in bank.experts}, bank.seed_lm)
    prompt, options = tiny_lms.letters(0, 500), dict(max_tokens=40, temperature=0, every=0)

    def said(bank, **more):
        found = cr_jax.generate(bank, prompt, GenerateOptions(**options, **more))
        return "".join(p.text for p in found), found.positions, found.unseen

    assert said(told_bank) == said(bank, positions=128) and said(told_bank)[1:] == (128, 436)
    assert said(told_bank, positions=512) == said(bank) and said(bank)[1] == 512
    short = bank.with_lms(dataclasses.replace(told, window=7), {"e0": bank.expert("e0").lm})
    assert said(short)[1] == 64  # the least that a cache has


def test_json_is_plain_and_whole(bank):
    found = cr_jax.generate(bank, "abc", GenerateOptions(max_tokens=20))
    list(found)
    said = found.to_json()
    assert said["text"] == found.text and said["tokens"] == 20 and said["finish"] == "length"
    assert "".join(span["text"] for span in said["spans"]) == found.text
    assert set(said["spans"][0]) == {"experts", "known", "reason", "start", "tokens", "text"}


def test_models_are_read_from_disk_when_they_are_to_speak(bank, tmp_path, monkeypatch):
    folder = tiny_lms.on_disk(tmp_path / "bank", bank)
    lazy, whole = (cr_jax.ExpertBank.load(folder, lms=x) for x in (False, True))
    assert all(e.lm is None for e in lazy.experts)
    prompt = tiny_lms.letters(1, 40)
    read = []
    monkeypatch.setattr(
        BankLms,
        "_from_disk",
        lambda self, place, real=BankLms._from_disk: read.append(place) or real(self, place),
    )
    texts = ["".join(p.text for p in cr_jax.generate(b, prompt, SHORT)) for b in (lazy, whole)]
    assert texts[0] == texts[1] and read == [1]
    path = tmp_path / "bank" / "experts" / "e1" / "lm.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    refuses(lambda: cr_jax.generate(lazy, prompt, SHORT), "lm.safetensors", "SHA-256")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(max_tokens=0), ("max_tokens=0", "at least 1")),
        (dict(max_tokens=True), ("max_tokens=True",)),
        (dict(temperature=-0.1), ("temperature=-0.1",)),
        (dict(temperature=float("nan")), ("temperature=nan",)),
        (dict(top_p=0.0), ("top_p=0.0",)),
        (dict(top_p=1.5), ("top_p=1.5",)),
        (dict(seed=-1), ("seed=-1",)),
        (dict(seed=2**32), ("seed=4294967296",)),
        (dict(every=-1), ("every=-1",)),
        (dict(mix=0), ("mix=0",)),
        (dict(mix=2, expert="e0"), ("mix=2", "leave out")),
        (dict(positions=8), ("positions=8",)),
        (dict(switch=1.0), ("switch=1.0",)),
        (dict(stop=("a", "")), ("a stop is a text",)),
    ],
)
def test_options_that_cannot_be_are_one_line(options, words):
    refuses(lambda: GenerateOptions(**options), *words)


def test_what_a_bank_does_not_have_is_one_line(bank):
    refuses(
        lambda: cr_jax.generate(bank.changed(lm=None), "abc"), "no language models", "modular.py"
    )
    some = tiny_lms.bank(experts=("e1",))
    for name, word in (("nobody", "nobody"), ("e0", "e0' has no language model: name another")):
        refuses(lambda n=name: cr_jax.generate(some, "abc", GenerateOptions(expert=n)), word)
    refuses(
        lambda: cr_jax.generate(tiny_lms.bank(seed=False), "a", GenerateOptions(expert="seed")),
        "no seed",
    )
    refuses(lambda: cr_jax.generate(bank, "abc", GenerateOptions(mix=3)), "mix=3", "2 experts")
    refuses(lambda: cr_jax.generate(bank, "a\ud800"), "lone surrogate")
    none = bank.select([]).changed(seed_lm=None)
    with pytest.raises(UserError, match="no expert of the bank has a language model"):
        cr_jax.generate(none, "abc")


def test_the_nearest_expert_with_a_model_speaks_for_one_without(bank):
    some = tiny_lms.bank(experts=("e1",))
    found = cr_jax.generate(some, tiny_lms.letters(0, 40), SHORT)
    assert found.decision == Decision(("e1",), True, "e0 is nearest and has no language model")


def test_bad_models_are_never_mounted(bank):
    bad = tiny_lms.one(tiny_lms.trained(), 0)
    bad = {"params": {**bad["params"], "start": np.full_like(bad["params"]["start"], np.nan)}}
    refuses(lambda: bank.with_lms(tiny_lms.BYTES, {"e0": bad}), "NaN")
    other = dataclasses.replace(tiny_lms.BYTES, vocab_size=29)
    refuses(lambda: bank.with_lms(other, {}), "vocabulary", "29")
