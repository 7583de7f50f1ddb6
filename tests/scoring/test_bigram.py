"""A bigram model is a distribution counted on one text; look-ups say what plain arithmetic says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_bank
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bank import TEXT, fresh_bigram, in_memory, spread, windows

from cr_jax import router
from cr_jax.bank import Expert, ExpertBank, bigram_file
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.config import Scoring
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing.cascade import Cascade, fit_candidates
from cr_jax.routing.options import RouteOptions
from cr_jax.scoring import bigram, bigram_model
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram_lookup import BigramLookup
from cr_jax.scoring.bigram_windows import bigram_sums

V = 40


def text(seed=0, rows=30, length=16, zipf=1.3):
    """Windows of a skewed alphabet, some of them cut short, and their mask."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.zipf(zipf, (rows, length)) - 1, V - 1) * 7 % V
    mask = np.arange(length) < rng.integers(1, length + 1, (rows, 1))
    return tokens.astype(np.int32), mask


def by_hand(tokens, mask, most=None):
    """P(w | v) [V, V] and P(w) [V] by the formulas of the module, `most` pairs known."""
    ones, twos = np.zeros(V), np.zeros((V, V))
    for row, real in zip(tokens, mask):
        for i in np.flatnonzero(real):
            ones[row[i]] += 1
            if i and real[i - 1]:
                twos[row[i - 1], row[i]] += 1
    kinds = (ones > 0).sum()
    alone = (ones + kinds / V) / (ones.sum() + kinds)
    n, t = twos.sum(1, keepdims=True), (twos > 0).sum(1, keepdims=True)
    whole = (twos + t * alone) / np.maximum(n + t, 1)
    if most is not None:
        saved = np.where(
            twos > 0,
            twos
            * np.log(np.maximum(whole, 1e-9) / np.maximum(t / np.maximum(n + t, 1) * alone, 1e-9)),
            -np.inf,
        )
        stored = saved >= np.sort(saved.ravel())[-most]
        rest = t + np.where(stored, 0, twos).sum(1, keepdims=True)
        whole = (np.where(stored, twos, 0) + rest * alone) / np.maximum(n + t, 1)
    return np.where(n > 0, whole, alone), alone


def said(found, tokens, mask):
    return np.asarray(bigram.residuals(bigram.table([found]), tokens, mask))[0]


@pytest.mark.parametrize("most", [None, 12])
def test_look_ups_say_what_the_formulas_say(most):
    found = bigram.count(*text(), V, *(() if most is None else (most,)))
    assert found.keys.size == (most or len(np.unique(_pairs(*text()))))
    after, alone = by_hand(*text(), most)
    np.testing.assert_allclose(after.sum(1), 1)  # a distribution after every token, stored or not
    assert alone.sum() == pytest.approx(1)
    tokens, mask = text(seed=1, zipf=1.1)
    want = [
        sum(-np.log(alone[r[i]] if i == 0 else after[r[i - 1], r[i]]) for i in np.flatnonzero(real))
        for r, real in zip(tokens, mask)
    ]
    np.testing.assert_allclose(said(found, tokens, mask), want, rtol=2e-3)


def _pairs(tokens, mask):
    inside = mask[:, 1:] & mask[:, :-1]
    return tokens[:, :-1][inside] * V + tokens[:, 1:][inside]


def test_a_bigram_model_expects_its_own_text_and_forgets_order_only_with_its_pairs():
    tokens, mask = text(rows=400)
    tokens[:, 1::2] = (tokens[:, ::2] + 3) % V  # every second token follows from the one before
    own = said(bigram.count(tokens, mask, V), tokens, mask).sum()
    other = said(bigram.count(*text(seed=5, rows=400), V), tokens, mask).sum()
    alone = said(bigram.count(tokens, mask, V, max_bigrams=0), tokens, mask).sum()
    assert own < 0.8 * alone and own < 0.8 * other
    shuffled = np.random.default_rng(0).permuted(tokens, axis=1)
    full = np.ones_like(mask)  # negative control: without pairs order says nothing
    without = bigram.count(tokens, full, V, max_bigrams=0)
    np.testing.assert_allclose(
        said(without, shuffled, full), said(without, tokens, full), rtol=2e-2
    )
    assert said(bigram.count(tokens, full, V), shuffled, full).sum() > 1.2 * own


def test_each_says_beside_others_what_it_says_alone():
    made = [
        fresh_bigram(0),
        bigram.count(*text(), tiny_bank.TINY.vocab_size, 5),
        bigram.count(*text(rows=1, length=1), tiny_bank.TINY.vocab_size),
    ]
    batch = spread()
    stacked = bigram.table(made)
    for together in (1, 2, 3):
        all_of_them = bigram.residuals(stacked, batch.tokens, batch.mask, together)
        for found, row in zip(made, all_of_them, strict=True):
            np.testing.assert_array_equal(said(found, batch.tokens, batch.mask), row)
    changed = np.where(batch.mask, batch.tokens, 0)  # ids of padding change nothing
    np.testing.assert_array_equal(bigram.residuals(stacked, changed, batch.mask, 3), all_of_them)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 9))
def test_no_slot_holds_more_pairs_than_are_looked_at(distinct, pairs, seed):
    hashes = np.random.default_rng(seed).integers(0, 1 << 32, distinct, np.uint32)
    kept = bigram_model._stored(hashes, np.arange(distinct, 0, -1.0), pairs)
    keys = np.sort(hashes[kept])
    assert kept.sum() <= pairs and len(np.unique(keys)) == len(keys)
    assert kept.sum() >= 0.9 * min(pairs, len(np.unique(hashes)))
    assert bigram.bits_without_loss(keys) <= bigram.slot_bits(keys.size) + 2


def test_pairs_of_small_ids_have_hashes_of_their_own():
    ids = np.random.default_rng(0).integers(0, 1 << 16, (2, 100_000), np.uint32)
    hashes = bigram.pair_hashes(*ids)
    assert len(np.unique(hashes)) == len(np.unique(ids[0].astype(np.uint64) << 16 | ids[1]))
    spread_out = np.bincount(hashes >> np.uint32(28), minlength=16)
    assert spread_out.min() > 0.9 * spread_out.max()
    large = np.random.default_rng(1).integers(0, 1 << 18, (2, 10_000), np.uint32)
    neighbours = large + np.uint32(1 << 16), large ^ np.uint32(1)
    for some in (large, *neighbours, (large[0], neighbours[1][1]), (neighbours[0][0], large[1])):
        both = np.concatenate([bigram.pair_hashes(*large), bigram.pair_hashes(*some)])
        assert len(np.unique(both)) >= (9_990 if some is large else 19_980)


def test_a_stored_bigram_model_is_the_bigram_model_and_a_spoilt_one_is_refused(tmp_path):
    file, made = tmp_path / "bigram.safetensors", bigram.count(*text(), V)
    write = lambda model: file.write_bytes(bigram_file.dumps(model))
    read = lambda tokens: bigram_file.loads(file.read_bytes(), tokens, file)
    write(made)
    assert file.stat().st_size <= bigram_file.most_bytes(V)
    for a, b in zip(made, read(V), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    half = np.float16
    spoilt = {
        "keys": [
            made.keys[::-1],
            made.keys[:3],
            np.arange(made.keys.size, dtype=np.uint32),
            made.keys.astype(np.int64),
        ],
        "nats": [
            made.nats[:, None],
            made.nats.astype(np.float32),
            -made.nats,
            np.full_like(made.nats, np.nan),
        ],
        "alone": [made.alone[1:], np.full(V, np.inf, half)],
        "after": [np.zeros((V, 1), half)],
    }
    for field, values in spoilt.items():
        for value in values:
            write(made._replace(**{field: value}))
            with pytest.raises(UserError, match="no bigram model of 40 tokens"):
                read(V)
    write(made)
    with pytest.raises(UserError, match="no bigram model of 41"):
        read(41)
    raw = file.read_bytes()
    file.write_bytes(raw[:100])
    with pytest.raises(UserError, match="whole safetensors"):
        read(V)
    # A kind of number that numpy does not have, of the right number of bytes.
    file.write_bytes(
        raw.replace(
            b'"F16","shape":[40]', b'"F8_E4M3","shape":[80]'.ljust(len(b'"F16","shape":[40]'))
        )
    )
    with pytest.raises(UserError):
        read(V)
    many = np.arange(bigram.MOST + 1, dtype=np.uint32) * np.uint32(4000)
    write(made._replace(keys=many, nats=np.ones(many.size, np.float16)))
    with pytest.raises(UserError, match="no bigram model"):
        read(V)
    for most in (-3, bigram.MOST + 1):
        with pytest.raises(UserError, match="has from 0"):
            bigram.count(*text(), V, most)
    with pytest.raises(UserError, match="below 30"):
        bigram.count(*text(), 30)
    with pytest.raises(UserError, match="real tokens"):
        bigram.count(*text()[:1], np.zeros((30, 16), bool), V)


def test_a_document_is_chosen_by_the_sums_over_its_windows():
    bank, batch = in_memory(4), spread()
    cut = Cascade(bank, 2)
    found = cut.route(batch, sizes=BatchSizes(windows=4))
    sums = bigram_sums(bigram.table(bank.bigrams.values()), batch, BatchSizes(windows=4))
    want = dict(zip(bank.names, sums.sum(-1) / batch.mask.sum(), strict=True))
    assert found.bigrams == pytest.approx(want)
    assert set(found.residuals) == set(sorted(want, key=want.get)[:2])
    exact = router.route(bank, batch, sizes=BatchSizes(windows=4))
    assert found.residuals == pytest.approx({n: exact.residuals[n] for n in found.residuals})
    for size in (1, 7):
        parts = (TEXT[i : i + size] for i in range(0, len(TEXT), size))
        four = BatchSizes(windows=4)
        assert cut.route(parts, sizes=four) == cut.route(TEXT, sizes=four)


def test_max_windows_is_all_that_bigram_models_read(monkeypatch):
    bank = in_memory(4)
    monkeypatch.setattr("cr_jax.data.spool.MOST", 100)  # the rest lies in a file
    start = Cascade(bank, 1, max_windows=6).route(TEXT, sizes=BatchSizes(windows=4))
    first = Cascade(bank, 1).route(TEXT[: 6 * 16], sizes=BatchSizes(windows=4))
    assert start.bigrams == first.bigrams and start.tokens == len(TEXT)
    rest = Cascade(bank, 1).route(TEXT, sizes=BatchSizes(windows=4))
    assert rest.bigrams != start.bigrams
    assert start.residuals[start.nearest] == pytest.approx(
        router.route(bank, TEXT, sizes=BatchSizes(windows=4)).residuals[start.nearest]
    )


def test_a_bigram_model_goes_where_its_expert_goes(tmp_path):
    bank = tiny_bank.stored(tmp_path / "bank", in_memory(3))
    bank = bank.add(Expert("plain", tiny_bank.one(tiny_bank.fresh(9), 8), tiny_bank.FLAT))
    again = ExpertBank.load(tmp_path / "bank")
    assert set(again.bigrams) == {"e0", "e1", "e2"} == set(bank.bigrams) and not again.verify()
    for a, b in zip(again.bigrams["e1"], in_memory(3).bigrams["e1"], strict=True):
        np.testing.assert_array_equal(a, b)
    turned = again.select(["e2", "e0"])
    assert set(turned.bigrams) == {"e0", "e2"} and set(turned.unmount("e2").bigrams) == {"e0"}
    order = Cascade(turned, 1).route(TEXT)
    assert order.bigrams == pytest.approx(
        {n: x for n, x in Cascade(in_memory(3), 1).route(TEXT).bigrams.items() if n != "e1"}
    )
    with pytest.raises(UserError, match="no bigram model for plain"):
        Cascade(again, 1)
    file = tmp_path / "bank" / "experts" / "e0" / "bigram.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(UserError, match="changed"):
        ExpertBank.load(tmp_path / "bank")
    assert len(again.verify()) == 1
    file.write_bytes(raw)
    stray = tmp_path / "bank" / "experts" / "plain" / "bigram.safetensors"
    stray.write_bytes(raw)  # not sealed with its expert: not read, and named
    assert "plain" not in ExpertBank.load(tmp_path / "bank").bigrams
    assert "belongs to no expert" in again.verify()[0]


def test_a_cascade_keeps_its_bank_when_experts_come_and_go(tmp_path):
    bank = tiny_bank.stored(tmp_path / "bank", in_memory(3))
    cut = Cascade(bank, 2)
    before = cut.route(TEXT)
    new = Expert("e9", tiny_bank.one(tiny_bank.fresh(9), 8), tiny_bank.FLAT, bigram=fresh_bigram(9))
    later = bank.remove("e0").add(new)
    assert cut.route(TEXT) == before
    after = Cascade(later, 2).route(TEXT)
    assert list(after.bigrams) == ["e1", "e2", "e9"] and len(after.residuals) == 2
    assert {n: after.bigrams[n] for n in ("e1", "e2")} == {
        n: before.bigrams[n] for n in ("e1", "e2")
    }
    assert after.bigrams["e9"] == pytest.approx(
        Cascade(later.select("e9"), 1).route(TEXT).bigrams["e9"]
    )
    with pytest.raises(UserError, match="see e0, e9"):
        Cascade(later, 2, offsets=dict.fromkeys(bank.names, 0.0))
    with pytest.raises(UserError, match="min_candidates=2"):
        Cascade(later.remove("e9").remove("e2"), 2)


def test_a_fit_of_a_part_is_not_stored_as_the_whole_banks(tmp_path):
    bank = tiny_bank.stored(tmp_path / "bank", in_memory(3))
    mine = {n: spread() for n in bank.names}
    part = ExpertBank.load(tmp_path / "bank", ["e0", "e1"])
    with pytest.raises(UserError, match="load the whole bank"):
        Cascade.fit(part, mine, min_candidates=1).save()
    with pytest.raises(UserError, match="another typicality_weight"):
        other = ExpertBank.load(tmp_path / "bank").changed(scoring=Scoring(typicality_weight=2.0))
        Cascade.fit(other, mine, min_candidates=1).save()
    with pytest.raises(UserError, match="3 experts, no more than"):
        Cascade.load(tmp_path / "bank")


def test_a_bank_takes_no_bigram_model_that_it_cannot_use():
    bank = in_memory(1)
    foreign = bigram.count(*text(), V)
    with pytest.raises(UserError, match="knows 40 tokens"):
        bank.mount(dataclasses.replace(bank.expert("e0"), name="other", bigram=foreign))


def test_cascades_that_cannot_be_are_refused():
    bank = in_memory(3)
    bare = tiny_bank.without_bigrams(bank, ["e1", "e2"])
    cases = {
        "no bigram model for e1, e2": lambda: Cascade(bare, 1),
        "min_candidates=0": lambda: Cascade(bank, 0),
        "min_candidates=4": lambda: Cascade(bank, 4),
        "max_windows": lambda: Cascade(bank, 1, max_windows=-1),
        "candidate_margin=-0.1": lambda: Cascade(bank, 1, candidate_margin=-0.1),
        "candidate_margin=nan": lambda: Cascade(bank, 1, candidate_margin=float("nan")),
        "candidate_margin=inf": lambda: Cascade(bank, 1, candidate_margin=float("inf")),
        "see e2, e9": lambda: Cascade(bank, 1, offsets={"e0": 0.0, "e1": 0.0, "e9": 0.0}),
        "see e1": lambda: Cascade(bank, 1, offsets={"e0": 0.0, "e2": 0.0}),
        "e1=-1.0, e2=nan": lambda: Cascade(
            bank, 1, offsets={"e0": 0.0, "e1": -1.0, "e2": float("nan")}
        ),
        "no experts": lambda: Cascade(in_memory(0), 1),
        "empty": lambda: Cascade(bank, 1).route(""),
        "alpha": lambda: Cascade(bank, 1).route("x", options=RouteOptions(alpha=2.0)),
        "for e1, e2": lambda: fit_candidates(bank, {"e0": windows(3)}),
        "bigram model for e1": lambda: fit_candidates(bare, dict.fromkeys(bank.names, windows(3))),
        "e0 has a single": lambda: fit_candidates(bank, dict.fromkeys(bank.names, windows(1))),
        "min_candidates must": lambda: fit_candidates(
            bank, dict.fromkeys(bank.names, windows(3)), min_candidates=0
        ),
        "at_least": lambda: fit_candidates(bank, {}, at_least=1.5),
        "not measured": lambda: Cascade(bank, 1).save(),
        "memory only": lambda: Cascade(
            bank, 1, fitted=CandidateFit(1, 0.5, 0.0, None, 1.0, 1.0, 9)
        ).save(),
        "tokens": lambda: Cascade(bank, 1).route_windows(
            Windows(np.zeros((1, 9), np.int32), np.ones((1, 9), bool), np.zeros(1, np.int64))
        ),
    }
    for word, call in cases.items():
        with pytest.raises(UserError) as caught:
            call()
        assert word in str(caught.value) and "\n" not in str(caught.value)


def test_probabilities_after_a_token_add_up_to_one_in_large_vocabularies_too():
    """By hashes alone a pair that was never seen takes the share of a stored one."""
    size = 70_000
    random = np.random.default_rng(0)
    after = random.integers(0, size, size)  # each token is always followed by the same one
    pairs = np.stack([np.arange(size), after], 1).astype(np.int32)
    made = bigram.count(pairs, np.ones(pairs.shape, bool), size)
    assert made.high.size == made.keys.size > 30_000 and made.high.max() == 3

    def sums(model):
        one = bigram.BigramTable(*(x[0] for x in bigram.table([model])))
        every = jnp.arange(size, dtype=jnp.int32)
        rows = lambda v: jnp.stack([jnp.full(size, v, jnp.int32), every], 1)
        nats = jax.jit(lambda v: bigram.token_nats(one, rows(v))[:, 1])
        return np.array(
            [np.exp(-np.asarray(nats(v), np.float64)).sum() for v in range(0, size, 4999)]
        )

    np.testing.assert_allclose(sums(made), 1, atol=0.01)
    ids = np.concatenate([[v, w] for v, w in zip(random.integers(0, size, 2000), after[:2000])])
    rows = jnp.asarray(np.stack([ids[:-1], ids[1:]], 1), jnp.int32)
    one = bigram.BigramTable(*(x[0] for x in bigram.table([made])))
    found = BigramLookup([made, made]).token_nats(ids[1:], int(ids[0]))[:, 1]
    np.testing.assert_allclose(found, bigram.token_nats(one, rows)[:, 1], rtol=1e-3)
    assert sums(made._replace(high=bigram_model.NO_HIGH)).max() > 1.3  # as in older files


def test_a_large_vocabularys_model_is_stored_whole_and_an_older_file_is_read(tmp_path):
    size, file = 70_000, tmp_path / "bigram.safetensors"
    tokens = np.random.default_rng(0).integers(0, size, (40, 32)).astype(np.int32)
    made = bigram.count(tokens, np.ones(tokens.shape, bool), size)
    for model in (made, made._replace(high=bigram_model.NO_HIGH)):
        read = bigram_file.loads(bigram_file.dumps(model), size, file)
        for a, b in zip(model, read, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match="no bigram model"):
        bigram_file.loads(bigram_file.dumps(made._replace(high=made.high[1:])), size, file)
