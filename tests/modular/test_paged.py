"""What a model reads: pages of the past, then the last tokens; of ids and latents the same."""

import dataclasses

import numpy as np
import pytest
import tiny_lms
from tiny_bank import TINY, refuses

import cr_jax
from cr_jax import GenerateOptions, PerplexityOptions
from cr_jax.modular import deciding, memory, paged
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import IDS, LATENTS, MemoryOptions

L = TINY.window
P = 192  # positions: four pages of a whole window take a third of them
CONTEXT = tiny_lms.letters(0, 300) + "!!vault=QZ-7731!!" + tiny_lms.letters(1, 700, seed=2)
PROMPT = tiny_lms.letters(0, 30, seed=9) + "!!vault="
COLD = GenerateOptions(max_tokens=48, temperature=0, positions=P, every=16, memory=IDS)


@pytest.fixture(scope="module")
def bank():
    return tiny_lms.bank()


@pytest.fixture(scope="module")
def reader(bank):
    return Reader(bank, memory.write(bank, CONTEXT, MemoryOptions(IDS)))


def plain(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def said(bank, context=CONTEXT, prompt=PROMPT, **options):
    found = cr_jax.generate(bank, prompt, dataclasses.replace(COLD, **options), context=context)
    return "".join(piece.text for piece in found), found


def test_a_text_goes_on_from_its_pages_and_last_tokens(bank, reader):
    text, found = said(bank, max_tokens=16, expert="e0")
    tail = plain(CONTEXT)[-P:]
    whole = np.concatenate([tail, plain(PROMPT)])
    options = MemoryOptions(IDS)
    kept = (P - 4 * L) // 2  # of the positions that pages leave, half
    end = (len(CONTEXT) - (kept - len(PROMPT))) // L
    pages = reader.attended([whole[-options.query :]], L, np.array([end]))[0]
    assert b"QZ-7731" in bytes(pages.tolist()) and len(pages) == 4 * L
    params = tiny_lms.one(tiny_lms.trained(), 0)
    read = np.concatenate([pages, whole[-kept:]])
    want = tiny_lms.greedy(tiny_lms.BYTES, params, read, 16)
    assert text.encode() == bytes(want)
    assert found.memory.tokens == len(CONTEXT)
    assert found.prompt_tokens == len(CONTEXT) + len(PROMPT) and found.unseen > 700
    # a negative control: without the pages it says something else
    assert text != said(bank, max_tokens=16, expert="e0", memory="none")[0]


def test_latents_whose_wrong_tokens_are_corrected_say_what_ids_say(bank):
    many = MemoryOptions(LATENTS, corrections=L)
    text, found = said(bank, memory=many)
    assert text == said(bank)[0] and len(text) == 48
    kept = found.memory
    # a memory that was written before is asked the same, without the text's own end
    again = cr_jax.generate(bank, PROMPT, dataclasses.replace(COLD, memory=many), context=kept)
    assert len("".join(p.text for p in again)) == 48 and again.unseen == len(CONTEXT)
    assert again.to_json()["memory"] == kept.to_json() == found.to_json()["memory"]


@pytest.mark.parametrize("pages", [5, 6])
def test_any_number_of_pages_that_fits_fits_before_a_short_prompt(bank, reader, pages):
    five = MemoryOptions(IDS, pages=pages)
    _, found = said(bank, reader.memory, "abcdef", memory=five, max_tokens=1)
    assert len(found._speakers.pages[0]) == 16 * pages and found.tokens == 1


def test_a_short_prompt_behind_a_memory_is_judged_once_it_is_long_enough(bank, reader, monkeypatch):
    judged = []
    monkeypatch.setattr(
        deciding.Judge, "again", lambda self, text, now: judged.append(len(text)) or now
    )
    _, found = said(bank, reader.memory, PROMPT[:10], every=0, prefix=16, max_tokens=24)
    assert found.decision.experts == ("seed",) and found.prompt_tokens == len(CONTEXT) + 10
    assert judged == [16]


def test_without_a_memory_a_context_is_the_start_of_the_prompt(bank):
    whole = cr_jax.generate(bank, CONTEXT + PROMPT, dataclasses.replace(COLD, memory="none"))
    text, found = said(bank, memory="none")
    assert text == "".join(piece.text for piece in whole)
    assert (found.unseen, found.memory) == (whole.unseen, None)
    assert found.prompt_tokens == whole.prompt_tokens == len(CONTEXT + PROMPT)
    # what is not seen is not held: 256 tokens are judged
    assert len(found._speakers.texts[0]) == 256 + len(PROMPT) + 48


def test_a_short_context_is_seen_as_it_is(bank):
    text, found = said(bank, context=CONTEXT[:40])
    assert found.unseen == 0 and text == said(bank, context=CONTEXT[:40], memory="none")[0]


def test_each_segment_stands_behind_pages_and_last_tokens(reader):
    ids = plain(CONTEXT)
    tokens, own = paged.contexts(ids, reader, MemoryOptions(IDS), P)
    assert (tokens[own] == ids).all() and tokens.shape[1] == P
    segment = paged.segment_of(P)
    recent = P - segment - 4 * L
    for s in range(len(tokens)):
        start = s * segment
        at = int(np.flatnonzero(own[s])[0])
        room = min(start, recent)
        assert (tokens[s, at - room : at] == ids[start - room : start]).all()
        end = max(0, start - recent) // L
        query = ids[max(0, start - 64) : start]
        pages = reader.attended([query], L, np.array([end]))[0]
        assert (tokens[s, : len(pages)] == pages).all()
    alone, same = paged.contexts(ids, None, MemoryOptions("recent", span=1, pages=1), P)
    assert (alone[same] == ids).all() and (alone[5, : P - segment] == ids[96 : 96 + 144]).all()


def test_no_later_token_changes_what_an_earlier_one_is_read_after(bank, reader):
    ids = plain(CONTEXT)
    other = np.concatenate([ids[:500], ids[:500]])
    changed = Reader(bank, memory.write(bank, bytes(other.tolist()).decode(), MemoryOptions(IDS)))
    rows = 500 // paged.segment_of(P)
    one = paged.contexts(ids, reader, MemoryOptions(IDS), P)
    two = paged.contexts(other, changed, MemoryOptions(IDS), P)
    assert (one[0][:rows] == two[0][:rows]).all()
    assert (one[0][rows + 1] != two[0][rows + 1]).any()


def test_perplexity_by_latents_is_that_by_ids_and_counts_bytes(bank):
    def cost(kind):
        kept = MemoryOptions(kind, corrections=L)
        return cr_jax.perplexity(bank, CONTEXT, PerplexityOptions(16, 16, window=P, memory=kept))

    by_ids, by_latents, recent, none = map(cost, (IDS, LATENTS, "recent", "none"))
    assert by_latents.nats == by_ids.nats and by_ids.nats != recent.nats != none.nats
    assert by_latents.memory.nbytes > by_ids.memory.nbytes > 2 * len(CONTEXT)
    assert by_latents.to_json()["memory"]["windows"] == -(-len(CONTEXT) // L)
    assert recent.memory is None and "memory" not in none.to_json()
    assert by_ids.turns[0].start == 0 and by_ids.tokens == len(CONTEXT)


def test_what_cannot_be_is_one_line(bank, reader):
    refuses(lambda: said(bank, positions=128), "positions=128", "192 at least")
    refuses(lambda: said(bank, memory=MemoryOptions(IDS, span=3)), "span=3 does not divide")
    refuses(lambda: said(bank, memory=MemoryOptions(IDS, pages=99)), "pages=99 do not fit")
    refuses(lambda: said(bank, memory=MemoryOptions(IDS, limit=3)), "limit of 3 windows")
    refuses(lambda: said(bank, context=reader.memory, memory=LATENTS), "keeps ids")
    refuses(lambda: said(bank, context=reader.memory, memory="none"), "memory=latents or ids")
    refuses(lambda: GenerateOptions(memory="recent"), "memory='recent' is not for this")
    refuses(
        lambda: cr_jax.perplexity(
            bank, CONTEXT, PerplexityOptions(window=P, memory=MemoryOptions(IDS, span=5))
        ),
        "span=5 does not divide",
    )
