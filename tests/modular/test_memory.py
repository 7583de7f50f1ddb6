"""A text's past as latents: whole pages, the right ones, by the experts that wrote them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank
import tiny_lms
from tiny_bank import refuses

from cr_jax.data.windows import windows_of
from cr_jax.modular import memory, memory_codes, memory_experts, memory_index
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import IDS, LATENTS, Z_DTYPES, MemoryOptions
from cr_jax.scoring.bigram import bigram_nats

L = tiny_bank.TINY.window
NEEDLE = "<<the key of Zu: 90-41-77>>"


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank()


@pytest.fixture(scope="module")
def text():
    """Of both experts' letters, with one line that neither knows, 13 windows from the start."""
    return tiny_lms.letters(0, 200) + NEEDLE + tiny_lms.letters(1, 250, seed=3)


@pytest.fixture(scope="module")
def latents(bank, text):
    return memory.write(bank, text, MemoryOptions(LATENTS))


@pytest.fixture(scope="module")
def ids(bank, text):
    return memory.write(bank, text, MemoryOptions(IDS))


def plain(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def joined(kept, rows) -> np.ndarray:
    return np.concatenate([r[:n] for r, n in zip(rows, kept.length, strict=True)])


def test_pages_are_the_text_where_corrections_suffice(bank, text, latents, ids):
    every = np.arange(len(latents))
    whole = plain(text)
    assert len(latents) == len(ids) == -(-len(whole) // L) and latents.tokens == len(whole)
    for kept in (latents, ids):
        assert (joined(kept, Reader(bank, kept).tokens(every)) == whole).all()
    # a negative control: without corrections the line that nobody knows is lost
    bare = memory.write(bank, text, MemoryOptions(LATENTS, corrections=0))
    wrong = joined(bare, Reader(bank, bare).tokens(every)) != whole
    assert wrong[200 : 200 + len(NEEDLE)].mean() > 0.5 and not wrong.all()
    assert len(latents.fixes.at) >= wrong.sum() and len(bare.fixes.at) == 0
    at = np.repeat(every, np.diff(latents.fixes.start.astype(int))) * L + latents.fixes.at
    assert set(np.flatnonzero(wrong)) <= set(at.tolist())


def test_too_many_wrong_tokens_are_corrected_as_far_as_it_goes(bank, text, latents):
    few = memory.write(bank, text, MemoryOptions(LATENTS, corrections=2))
    none = memory.write(bank, text, MemoryOptions(LATENTS, corrections=0))
    wrong = lambda m: (joined(m, Reader(bank, m).tokens(np.arange(len(m)))) != plain(text)).sum()
    assert wrong(few) < wrong(none) - 5
    count = np.diff(latents.fixes.start.astype(int))
    assert (np.diff(few.fixes.start.astype(int)) == np.minimum(count, 2)).all() and count.max() > 2


def test_each_window_is_written_and_read_by_the_router_s_expert(bank, latents):
    assert list(latents.writers) == ["e0", "e1"]
    assert set(latents.expert[:12]) == {0} and set(latents.expert[-12:]) == {1}
    every = np.arange(len(latents))
    own = Reader(bank, latents).tokens(every)
    swapped = dataclasses.replace(latents, expert=1 - latents.expert)
    other = Reader(bank, swapped).tokens(every)
    assert (own != other).mean() > 0.3  # a negative control
    # one window after another, in any order, is the same
    alone = [Reader(bank, latents).tokens(np.array([w]))[0] for w in (20, 2)]
    assert (np.stack(alone) == own[[20, 2]]).all()


def test_the_index_finds_what_shares_rare_things_and_nothing_later(bank, latents, ids):
    at = 200 // L
    for kept in (latents, ids):
        reader, query = Reader(bank, kept), plain("the key of Zu")
        assert reader.best([query], pages=2)[0, 0] in (at, at + 1)
        assert (reader.best([query], np.array([at]))[0] < at).all()
        assert (reader.best([query], np.array([0])) == -1).all()  # nothing was before
        assert (reader.best([np.zeros(0, np.int32)]) == -1).all()  # nothing is asked


def test_what_is_kept_of_a_text_does_not_depend_on_what_comes_later(bank, text, latents):
    part = memory.write(bank, text[: 14 * L])
    cut = latents.take(14)
    for name in ("expert", "length", "keys"):
        assert (getattr(part, name) == getattr(cut, name)).all()
    assert np.asarray(part.codes.numbers).tobytes() == cut.codes.numbers.tobytes()
    assert part.nbytes == cut.nbytes and (part.fixes.ids == cut.fixes.ids).all()


def test_attended_tokens_hold_the_answer_across_a_window_s_end(bank, text, latents, ids):
    query = plain("<<the key of Zu")
    pages = [Reader(bank, kept).attended([query], 8, pages=2)[0] for kept in (latents, ids)]
    assert (pages[0] == pages[1]).all() and 0 < len(pages[0]) <= 16
    # 16 tokens from the window of "key of Zu" on run over into the next one.
    at = text.index("Zu")
    reader, w = Reader(bank, ids), at // L
    got = bytes(reader.attended([plain("Zu: ")], L // 2, pages=1)[0].tolist()).decode()
    assert got in text and ": 90" in got and 200 <= text.index(got) <= w * L + L
    # what comes after the window is not read when it may not be
    end = np.array([w + 1])
    some = reader.attended([plain("Zu: ")], L // 2, end, pages=1)[0]
    assert bytes(some.tolist()).decode() in text[: (w + 1) * L]


def test_numbers_come_back_as_well_as_their_bits_allow():
    z = jnp.asarray(np.random.default_rng(0).normal(0, 2, (5, 4, 15)).astype(np.float32))
    errors = []
    for dtype in Z_DTYPES:
        codes = memory_codes.stored(z, dtype)
        back = np.asarray(memory_codes.values(codes, dtype, 15))
        errors.append(float(np.square(back - z).mean() / np.square(z).mean()))
        shapes = memory_codes.shapes(dtype, 4, 15)
        for x, (shape, kind) in zip(codes, shapes.values(), strict=True):
            assert (x.shape, x.dtype) == ((5, *shape), jnp.dtype(kind))
    assert errors[0] == 0 and (np.diff(errors) > 0).all()  # more with fewer bits
    assert errors[1] < 1e-5 and errors[2] < 1e-4 and errors[3] < 0.02


def test_fewer_bits_keep_less_in_fewer_bytes(bank):
    own = tiny_lms.letters(0, 40 * L)
    size, right = [], []
    for dtype in Z_DTYPES:
        kept = memory.write(bank, own, MemoryOptions(LATENTS, dtype=dtype, corrections=0))
        size.append(kept.bytes["latents"])
        back = Reader(bank, kept).tokens(np.arange(len(kept))).reshape(-1)
        right.append((back == plain(own)).mean())
    assert min(right) > 0.95 and (np.diff(right) <= 0.01).all()
    m = bank.model
    per = m.latents * m.d_latent
    scales = 4 * m.latents
    assert size == [40 * x for x in (4 * per, 2 * per, per + scales, per // 2 + scales)]


def test_bytes_are_those_of_the_arrays(latents, ids):
    told = latents.to_json()
    assert told["bytes"] == sum(told["bytes_of"].values()) == latents.nbytes
    assert (
        told["bytes_of"]["keys"] == 2 * (L * 3 // 4) * len(latents) and told["bytes_of"]["ids"] == 0
    )
    assert ids.bytes["ids"] == 2 * L * len(ids) and ids.bytes["latents"] == 0
    assert sum(told["experts"].values()) == told["windows"] == len(latents)
    assert f"{latents.nbytes:,} bytes" in str(latents) and "bfloat16" in str(latents)


def test_keys_are_the_most_surprising_distinct_pairs():
    tokens = np.array([[0, 3, 3, 1, 3, 3, 4]])
    mask = np.array([[True] * 6 + [False]])
    nats = np.array([[9.0, 5, 8, 2, 3, 8, 9]])  # a pair that comes again surprises as much
    found = memory_index.features(tokens, mask, nats)
    of = lambda *pair: memory_index.hashes_of(np.array([pair]), np.ones((1, 2), bool))[0, 1]
    # A first token and padding end no pair, however they surprise.
    assert (found.hashes[0, [0, 6]] == memory_index.EMPTY).all()
    assert (found.weights[0, [0, 6]] == 0).all()
    assert set(memory_index.keys_of(found, 2)[0]) == {of(3, 3), of(0, 3)}
    # A key of more hashes than there are different pairs has empty ones.
    assert (memory_index.keys_of(found, 9)[0] == memory_index.EMPTY).sum() == 5


def test_surprise_is_the_least_nats_of_any_bigram_model(bank):
    tokens = tiny_bank.windows(3, 1, 97, 107).tokens[:, :7]
    each = bigram_nats(bank.bigram_table, tokens)
    assert len(each) > 1 and not np.allclose(each[0], each[1])
    assert np.allclose(memory_index.surprise(bank, tokens), each.min(0))
    bare = tiny_bank.without_bigrams(bank)
    assert np.ptp(memory_index.surprise(bare, tokens)) == 0


def test_an_empty_text_has_no_pages(bank):
    for kind in (LATENTS, IDS):
        kept = memory.write(bank, "", MemoryOptions(kind))
        reader = Reader(bank, kept)
        assert len(kept) == kept.tokens == 0 and reader.tokens(np.zeros(0, int)).shape == (0, L)
        assert len(reader.attended([plain("abc")], 8)[0]) == 0 and "0 windows" in str(kept)


def test_what_cannot_be_is_one_line(bank, text, latents):
    refuses(lambda: memory.write(bank, text, MemoryOptions(LATENTS, limit=5)), "5 windows", "80")
    refuses(lambda: memory.write(bank, text, MemoryOptions("none")), "keeps nothing")
    refuses(lambda: Reader(bank.select(["e1"]), latents), "'e0', which the bank has no more")
    swapped = tiny_bank.altered(bank, params={"e0": bank.expert("e1").params})
    refuses(lambda: Reader(swapped, latents), "another expert 'e0'", "SHA-256")
    other = bank.changed(tokenizer=tiny_bank.OtherTokenizer())
    refuses(lambda: Reader(other, latents), "another tokenizer")
    wide = dataclasses.replace(latents, model=dataclasses.replace(bank.model, window=32))
    refuses(lambda: Reader(bank, wide), "windows of 32 tokens", "16 in 4 of 16")
    refuses(lambda: memory.write(bank.select([]), text), "no experts")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(kind="z"), ("memory='z'",)),
        (dict(dtype="int2"), ("dtype='int2'", "int4")),
        (dict(pages=0), ("pages=0",)),
        (dict(features=-1), ("features=-1",)),
        (dict(corrections=-1), ("corrections=-1",)),
        (dict(span=-1), ("span=-1",)),
        (dict(limit=True), ("limit=True",)),
    ],
)
def test_options_that_cannot_be(fields, words):
    refuses(lambda: MemoryOptions(**fields), *words)


def test_spans_divide_the_window_and_fit():
    assert MemoryOptions().span_of(64, 256) == 32 and MemoryOptions().span_of(512, 5000) == 512
    assert MemoryOptions(span=16).span_of(64, 256) == 16
    refuses(lambda: MemoryOptions(span=24).span_of(64, 256), "span=24 does not divide")
    refuses(lambda: MemoryOptions(span=64).span_of(64, 256), "span=64", "half of 256")
    refuses(lambda: MemoryOptions(pages=99).span_of(64, 64), "pages=99 do not fit")


def test_a_window_goes_to_the_expert_of_the_exact_rule(bank):
    some = windows_of(plain(tiny_lms.letters(1, 5 * L)), L, 0)
    sizes = memory.BatchSizes(1, 4, 64)
    assert memory_experts.chosen(bank, some, sizes).tolist() == [1] * 5
    assert memory_experts.chosen(bank.select(["e0"]), some, sizes).tolist() == [0] * 5
    digest = memory_experts.compressor_hash(bank.expert("e0"))
    assert digest != memory_experts.compressor_hash(bank.expert("e1")) and len(digest) == 64
