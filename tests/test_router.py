"""Scores are those of single experts, calibration keeps its promise, routes add up."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_bank
from tiny_bank import FLAT, TINY, fresh, one

from cr_jax import calls, models, objective, router, scoring, text_windows
from cr_jax.bank import ExpertBank
from cr_jax.calibration import Calibration, document_p, p_sums, too_few
from cr_jax.config import SEEN, Scoring
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError

BYTES = ByteTokenizer()
TEXT = "def route(text):\n    return min(experts, key=residual)  # it is argmin\n" * 3


def windows(rows: int, seed: int = 0, low: int = 97, high: int = 123) -> Windows:
    """Random bytes from [low, high), every window full but the last, which has 9 tokens."""
    tokens = np.random.default_rng(seed).integers(low, high, (rows, TINY.window)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    mask[-1, 9:] = False
    return Windows(tokens, mask, np.zeros(rows, np.int64))


@functools.cache
def trained():
    """Two experts trained together for a moment: e0 on letters a-j, e1 on letters q-z."""

    def loss(params, tokens):
        h, _ = models.Autoencoder(TINY).apply(params, tokens)
        kernel = models.head(TINY, params)
        return objective.linear_cross_entropy(
            h, kernel, tokens, jnp.full(tokens.shape, 1 / tokens.size))[0]

    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, state, tokens):
        grads = jax.vmap(jax.grad(loss))(params, tokens)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, fresh(2))
    state = tx.init(params)
    for i in range(60):
        pair = windows(33, 2 * i, 97, 107), windows(33, 2 * i + 1, 113, 123)
        params, state = step(params, state, jnp.stack([w.tokens[:32] for w in pair]))
    return jax.tree.map(np.asarray, params)


@functools.cache
def trained_bank() -> ExpertBank:
    bank = ExpertBank(TINY, BYTES)
    for i, (low, high) in enumerate(((97, 107), (113, 123))):
        params = one(trained(), i)
        calibration = router.calibrate(TINY, params, windows(300, 1000 + i, low, high))
        bank = bank.mount(f"e{i}", params, calibration)
    return bank


@jax.jit
def score_alone(params, tokens, mask):
    h, _ = models.Autoencoder(TINY).apply(params, tokens, mask)
    return objective.token_scores(h, models.head(TINY, params), tokens)


@pytest.mark.parametrize(("experts", "expert_chunk"), [(1, 4), (3, 4), (4, 2), (5, 2)])
def test_scores_equal_a_loop_over_single_experts(experts, expert_chunk):
    bank, batch = tiny_bank.in_memory(experts), windows(3)
    got = router.score_stats(bank, batch, expert_chunk=expert_chunk, chunk=16)
    assert got.nll.shape == got.correct.shape == (experts, 3, TINY.window)
    assert got.nll.dtype == np.float32 and got.correct.dtype == bool
    for e, name in enumerate(bank.names):
        alone = score_alone(bank.expert_params(name), batch.tokens, batch.mask)
        np.testing.assert_allclose(got.nll[e], alone.nll, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got.correct[e], alone.correct)
    assert np.std(got.nll[:, 0, 0]) > 0 or experts == 1  # the experts differ


def test_one_trace_serves_all_batches(monkeypatch):
    traces, real = [], calls.score_experts
    monkeypatch.setattr(
        calls, "score_experts", lambda *a: traces.append(a[2].shape) or real(*a))
    jax.clear_caches()
    bank = tiny_bank.in_memory(2)
    whole = router.score(bank, windows(11), batch=4)
    assert traces == [(4, TINY.window)]
    router.score(bank, windows(4, seed=1), batch=4)
    router.route(bank, TEXT, batch=4)
    assert len(traces) == 1
    np.testing.assert_allclose(whole, router.score(bank, windows(11), batch=11), rtol=1e-5)
    assert len(traces) == 2


def test_an_experts_score_does_not_depend_on_another_experts_parameters():
    params, batch = jax.tree.map(jnp.asarray, fresh(3)), windows(2)

    @jax.jit
    @jax.grad
    def gradient(params, e):
        tokens, mask = jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
        return jnp.sum(scoring.score_experts(TINY, params, tokens, mask, 2).nll[e] * mask)

    for e in range(3):
        sizes = sum(np.abs(x).reshape(3, -1).sum(-1)
                    for x in map(np.asarray, jax.tree.leaves(gradient(params, e))))
        np.testing.assert_array_equal(sizes > 0, np.arange(3) == e)


def test_ids_under_the_padding_mask_change_nothing():
    bank, batch = tiny_bank.in_memory(2), windows(3)
    other = Windows(np.where(batch.mask, batch.tokens, 7), batch.mask, batch.document)
    assert (other.tokens != batch.tokens).any()
    a, b = router.score(bank, batch), router.score(bank, other)
    np.testing.assert_array_equal(a[:, batch.mask], b[:, batch.mask])
    assert router.route(bank, batch) == router.route(bank, other)
    seen = Windows(np.where(batch.mask, 7, batch.tokens), batch.mask, batch.document)
    assert router.route(bank, batch) != router.route(bank, seen)


def test_experts_spread_over_devices_score_the_same():
    if len(jax.devices()) < 2:
        pytest.skip("one device")
    mesh = jax.make_mesh((2,), ("expert",), axis_types=(jax.sharding.AxisType.Auto,),
                         devices=jax.devices()[:2])
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("expert"))
    batch, params = windows(2), fresh(4)
    tokens, mask = jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
    call = jax.jit(lambda p: scoring.score_experts(TINY, p, tokens, mask, 2))
    np.testing.assert_allclose(
        call(jax.device_put(params, split)).nll, call(params).nll, rtol=1e-5, atol=1e-5)


def test_trained_experts_route_their_own_letters_and_refuse_others():
    bank = trained_bank()
    own = [router.route_all(bank, windows(64, 50 + i, low, high))
           for i, (low, high) in enumerate(((97, 107), (113, 123)))]
    for i, routes in enumerate(own):
        assert (routes.expert == i).mean() > 0.95
    digits = router.route_all(bank, windows(64, 60, 48, 58))
    best = digits.p_values[digits.expert, np.arange(64)]
    assert (best < 0.05).mean() > 0.9
    text = "".join(chr(97 + i * i % 10) for i in range(200))
    assert router.route(bank, text).expert == "e0"
    assert router.route(bank, "0123456789" * 20).expert is None
    assert router.route(bank, "0123456789" * 20, alpha=0.0).expert in bank.names
    assert router.route(bank, "0123456789" * 20).nearest in bank.names


def test_p_values_are_uniform_at_home_at_every_length():
    bank = trained_bank()
    fresh_windows = windows(400, 77, 97, 107)
    for length in (8, 11, 16):
        mask = np.broadcast_to(np.arange(16) < length, (400, 16))
        cut = Windows(fresh_windows.tokens, mask, fresh_windows.document)
        p = router.route_all(bank, cut).p_values[0]
        if length == 11:
            assert not np.isnan(p).any()  # compared at length 8: close to uniform, not exact
            continue
        for alpha in (0.05, 0.2, 0.5, 0.8):
            assert abs((p <= alpha).mean() - alpha) < 0.09, (length, alpha)


def test_cloned_experts_tie_and_route_at_chance():
    bank = ExpertBank(TINY, BYTES)
    for i in range(4):
        bank = bank.mount(f"clone{i}", one(fresh(1), 0), FLAT)
    document = router.route(bank, TEXT)
    assert document.margin == 0 and len(set(document.residuals.values())) == 1
    batch = windows(40)
    routes = router.route_all(bank, batch)
    assert (routes.residuals == routes.residuals[:1]).all()
    labels = np.arange(40) % 4
    assert (routes.expert == labels).mean() == 0.25


def test_a_document_is_the_sum_of_its_windows():
    bank, ids = trained_bank(), BYTES.encode(TEXT)
    whole = router.route(bank, TEXT, batch=64)
    cut = windows_of(ids, TINY.window, BYTES.pad_id)
    each = router.route_all(bank, cut)
    lengths = cut.mask.sum(-1)
    assert whole.tokens == len(ids) and whole.windows == len(cut.tokens)
    for e, name in enumerate(bank.names):
        mean = np.sum(each.residuals[e] * lengths) / len(ids)
        assert whole.residuals[name] == pytest.approx(mean, rel=1e-6)
        assert whole.p_values[name] == pytest.approx(
            document_p(*p_sums(each.p_values[e], lengths)))
        hits = router.score_stats(bank, cut).correct[e][cut.mask]
        assert whole.tra[name] == pytest.approx(hits.mean())
    ranked = sorted(whole.residuals.values())
    assert whole.margin == pytest.approx(ranked[1] - ranked[0])
    assert whole.nearest == min(whole.residuals, key=whole.residuals.get)


@pytest.mark.parametrize("rule", [
    Scoring(predicted=True), Scoring(parts=4, hidden=2, passes=1)], ids=str)
def test_the_winners_tra_alone_is_that_of_the_full_computation(monkeypatch, rule):
    model = dataclasses.replace(TINY, predictive=rule.predicted)
    params = {"params": fresh(2, model)["params"] | trained()["params"]}  # a fresh predictor
    bank = dataclasses.replace(trained_bank(), scoring=rule, model=model, params=params)
    rebuilt, real = [], calls.rebuilt_only
    monkeypatch.setattr(calls, "rebuilt_only", lambda model, params, tokens, *more: (
        rebuilt.append((jax.tree.leaves(params)[0].shape[0], len(tokens))),
        real(model, params, tokens, *more))[1])
    jax.clear_caches()
    winners = set()
    for text in (TEXT, windows(7, 1, 97, 107), windows(9, 2, 113, 123)):
        for batch in (64, 4) if text is TEXT else (4,):
            short = router.route(bank, text, batch=batch)
            full = router.route(bank, text, batch=batch, tra_of_all=True)
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
    assert {experts for experts, _ in rebuilt} == {1} and len(rebuilt) == len(set(rebuilt))


def test_the_papers_rule_counts_all_experts_in_the_same_pass(monkeypatch):
    bank = tiny_bank.in_memory(3)
    for name in ("rebuilt_only", "residuals_only"):
        monkeypatch.setattr(calls, name, lambda *a: pytest.fail("a second pass"))
    monkeypatch.setattr(router, "Spool", lambda *a: pytest.fail("nothing is read again"))
    found = router.route(bank, TEXT)
    assert list(found.tra) == list(bank.names)
    assert found == router.route(bank, TEXT, tra_of_all=True)


def test_a_route_does_not_depend_on_how_the_text_arrives(monkeypatch):
    bank = tiny_bank.in_memory(2)
    whole = router.route(bank, TEXT, batch=4)
    for size in (1, 7, 1000):
        parts = (TEXT[i:i + size] for i in range(0, len(TEXT), size))
        assert router.route(bank, parts, batch=4) == whole
    assert router.route(bank, windows_of(BYTES.encode(TEXT), 16, BYTES.pad_id), batch=4) == whole


def test_pieces_are_a_function_of_the_text(monkeypatch):
    monkeypatch.setattr(text_windows, "PIECE", 10)
    random = np.random.default_rng(0)
    for _ in range(50):
        text = "".join(random.choice(list("ab\n"), random.integers(60), p=[0.45, 0.45, 0.1]))
        whole = list(text_windows.pieces(text))
        assert "".join(whole) == text and all(0 < len(p) <= 10 for p in whole)
        cuts = np.sort(random.integers(0, len(text) + 1, 5))
        assert list(text_windows.pieces(
            text[a:b] for a, b in zip([0, *cuts], [*cuts, None]))) == whole


def test_memory_is_bounded_by_the_block_not_by_the_text():
    """A text of 20 MB: blocks come out while it is read."""
    read = []

    def parts():
        for i in range(20):
            read.append(i)
            yield "line of text\n" * 80_000

    blocks = text_windows.windows_of_text(BYTES, parts(), 16, 64)
    first = next(blocks)
    assert first.tokens.shape == (64, 16) and read == [0]
    assert 64 + sum(len(b.tokens) for b in blocks) == -(-20 * 80_000 * 13 // 16)


def test_windows_shorter_than_any_calibration_say_nothing():
    bank = tiny_bank.in_memory(2)
    short = router.route(bank, "abc")
    assert (short.tokens, short.windows) == (3, 1)
    # Neither known nor unknown, whatever alpha is.
    assert np.isnan(list(short.p_values.values())).all()
    for alpha in (0, 0.05, 1):
        found = router.route(bank, "abc", alpha=alpha)
        assert found.known is None and found.expert == found.nearest
    said = json.loads(json.dumps(short.to_json(), allow_nan=False))
    assert said["known"] is None and set(said["p_values"].values()) == {None}
    judged = router.route(bank, "a" * 8)
    assert judged.known is True and judged.to_json()["known"] is True
    refused = router.route(bank, "a" * 8, alpha=1)
    assert refused.known is False and refused.expert is None
    # A short end of a long document leaves the document's p-value alone.
    assert router.route(bank, "a" * 19).p_values == router.route(bank, "a" * 16).p_values


def test_a_window_without_scored_tokens_has_no_expert():
    rule = Scoring(parts=8, passes=1)  # scores 2 of 16 positions
    bank, batch = tiny_bank.in_memory(3, rule=rule), windows(6)
    first = int(np.flatnonzero(scoring.scored(rule, TINY.window))[0])
    batch.mask[2, first:] = False
    batch.mask[4] = False
    routes = router.route_all(bank, batch)
    assert (routes.expert == -1).tolist() == [False, False, True, False, True, False]
    assert (np.isnan(routes.residuals).all(0) == (routes.expert == -1)).all()
    # As `route` says of the same windows, one at a time.
    for i in (2, 4):
        with pytest.raises(UserError, match=r"too short|empty"):
            router.route(bank, batch.take(slice(i, i + 1)))
    for i in (0, 1, 3):
        alone = router.route(bank, batch.take(slice(i, i + 1)), alpha=0)
        assert bank.names[routes.expert[i]] == alone.expert


def test_route_is_json_and_frozen():
    found = router.route(tiny_bank.in_memory(1), TEXT)
    assert found.margin == np.inf and found.to_json()["margin"] is None
    assert json.loads(json.dumps(found.to_json()))["residuals"] == found.residuals
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.expert = "other"


def test_score_takes_what_route_takes_and_means_are_the_route_s():
    for rule in (SEEN, Scoring(parts=4, passes=1)):
        bank = tiny_bank.in_memory(2, rule=rule)
        got, found = router.score(bank, TEXT[:50], batch=2), router.route(bank, TEXT[:50])
        assert got.shape == (2, 4, TINY.window)
        mean = np.nanmean(got.astype(float), axis=(1, 2))
        np.testing.assert_allclose(mean, list(found.residuals.values()), rtol=1e-6)
        cut = windows_of(BYTES.encode(TEXT[:50]), TINY.window, BYTES.pad_id)
        np.testing.assert_array_equal(got, router.score(bank, cut, batch=2))
        assert (np.isfinite(got) == scoring.counted(cut.mask, rule)[None]).all()


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
            yield text[i:i + 1000]

    for head in (1, 3, 4, 7):
        seen = []
        found = router.route(bank, text, head=head, batch=4, on_block=seen.append)
        assert found == router.route(bank, text[:head * TINY.window], batch=4)
        assert sum(len(block) for block in seen) == found.windows == head
    assert router.route(bank, parts(), head=4, batch=4).windows == 4
    assert len(read) < 150  # of 600
    short = router.route(bank, TEXT, head=99)
    assert short == router.route(bank, TEXT, head=0)
    batch = windows(9)
    assert router.route(bank, batch, head=5) == router.route(bank, batch.take(slice(5)))


@pytest.mark.parametrize("text", [b"abc", bytearray(b"abc"), 123, None, [b"abc"], ["a", 3]])
def test_what_is_no_text_is_one_line(text):
    # Not `route` itself: under test its annotation refuses them first.
    with pytest.raises(UserError, match="str"):
        list(text_windows.windows_of_text(BYTES, text, TINY.window, 4))


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", ["batch", "expert_chunk", "chunk"])
def test_calls_of_no_size_are_one_line(name, size):
    bank, batch = tiny_bank.in_memory(1), windows(2)
    for call in (router.route, router.score, router.score_stats, router.route_all):
        with pytest.raises(UserError, match=f"{name} must be a whole number of at least 1"):
            call(bank, batch, **{name: size})


def test_bad_input_is_one_line():
    bank = tiny_bank.in_memory(1)
    narrow = Windows(np.zeros((2, 8), np.int32), np.ones((2, 8), bool), np.zeros(2, np.int64))
    high = windows(2)
    high.tokens[0, 0] = TINY.vocab_size
    empty = windows(2)
    empty.mask[:] = False
    cases = {
        "empty": [lambda: router.route(bank, ""), lambda: router.route(bank, iter(["", ""])),
                  lambda: router.route(bank, empty)],
        "no experts": [lambda: router.route(ExpertBank(TINY, BYTES), "x")],
        "surrogate": [lambda: router.route(bank, "\udc80")],
        "alpha": [lambda: router.route(bank, "x", alpha=2.0), lambda: router.route(
            bank, "x", alpha=float("nan"))],
        "head=-1": [lambda: router.route(bank, TEXT, head=-1)],
        "to score": [lambda: router.score(bank, "")],
        "16 tokens": [lambda: router.score(bank, narrow)],
        "token ids": [lambda: router.score(bank, high)],
        "8 tokens": [lambda: router.calibrate(TINY, one(fresh(1), 0), empty)],
    }
    for word, tried in cases.items():
        for call in tried:
            with pytest.raises(UserError) as caught:
                call()
            assert word in str(caught.value) and "\n" not in str(caught.value)


def test_calibration_uses_the_windows_it_is_given():
    params, own = one(fresh(1), 0), windows(30)
    made = router.calibrate(TINY, params, own)
    assert set(made.residuals) == {8, 16}
    assert {k: v.size for k, v in made.residuals.items()} == {8: 30, 16: 29}
    bank = ExpertBank(TINY, BYTES).mount("e", params, made)
    residuals = router.route_all(bank, own).residuals[0, :-1]
    np.testing.assert_allclose(made.residuals[16], np.sort(residuals), rtol=1e-6)
    assert {k: v.size for k, v in router.calibrate(TINY, params, own, most=10).residuals.items()} \
        == {8: 10, 16: 10}


@pytest.mark.parametrize(("rule", "passes"), [
    (SEEN, (1, 1)), (Scoring(parts=4, hidden=1), (1, 1)), (Scoring(predicted=True), (0, 1))],
    ids=["seen", "hidden", "predicted"])
def test_residuals_alone_cost_the_passes_of_their_rule_and_no_other(monkeypatch, rule, passes):
    model = dataclasses.replace(TINY, predictive=rule.predicted)
    bank, batch, traced = tiny_bank.in_memory(2, model, rule=rule), windows(20), []
    for name in ("decode", "_states"):
        real = getattr(models.Autoencoder, name)
        monkeypatch.setattr(models.Autoencoder, name, lambda *a, real=real, name=name, **k: (
            traced.append(name), real(*a, **k))[1])

    def counted(call):
        """(what it gives, decoders and encoders in the program that it compiles)."""
        traced.clear()
        jax.clear_caches()
        return call(), (traced.count("decode"), traced.count("_states"))

    routes, of_routes = counted(lambda: router.route_all(bank, batch, batch=32))
    made, of_made = counted(lambda: router.calibrate(
        model, one(bank.params, 0), batch, scoring=rule, batch=32))
    assert of_routes == of_made == passes
    # TRA needs a pass over seen tokens, which is the paper's rule itself.
    scores, of_scores = counted(lambda: router.score_stats(bank, batch, batch=32))
    assert of_scores == ((1, 1) if rule == SEEN else (passes[0] + 1, passes[1] + 1))
    beside = scoring.residual_means(*scoring.residual_sums(scores.residual, batch.mask, rule))
    np.testing.assert_allclose(routes.residuals, beside, rtol=1e-6)
    np.testing.assert_allclose(made.residuals[16], np.sort(beside[0, :-1]), rtol=1e-6)


def test_conformal_p_values_by_hand():
    known = Calibration({8: np.array([1.0, 2.0, 2.0, 3.0]), 32: np.array([10.0])})
    p = lambda r, n: known.p_value(np.array([r]), np.array([n]))[0]
    assert p(0.5, 8) == 1.0
    assert p(2.0, 8) == 4 / 5  # ties count as reached
    assert p(2.5, 31) == 2 / 5
    assert p(9.0, 8) == 1 / 5
    assert p(9.0, 32) == p(9.0, 500) == 1.0
    assert np.isnan(p(9.0, 7))
    again = Calibration.from_json(json.loads(json.dumps(known.to_json())))
    assert again.to_json() == known.to_json()


def test_p_values_of_synthetic_residuals():
    random = np.random.default_rng(0)
    known = Calibration({16: np.sort(random.normal(1, 0.2, 1000))})
    at = np.full(4000, 16)
    home = known.p_value(random.normal(1, 0.2, 4000), at)
    assert np.abs(np.sort(home) - np.linspace(0, 1, 4000)).max() < 0.05
    away = known.p_value(random.normal(3, 0.2, 4000), at)
    assert away.max() < 0.01
    # Documents of 1 to 6 windows, all alike (the worst dependence): still at most alpha.
    for count in (1, 2, 6):
        merged = np.array([document_p(*p_sums(np.full(count, p), np.full(count, 16)))
                           for p in home])
        assert (merged <= 0.1).mean() <= 0.1 + 0.02


def test_too_few_residuals_to_ever_refuse_are_named():
    of = lambda n: Calibration({8: np.linspace(1, 9, 900), 16: np.linspace(1, 9, n)})
    for alpha, least in ((0.05, 20), (0.3, 3), (0.5, 2), (1.0, 1), (0.001, 1000)):
        for n in (least - 1, least, least + 1):
            if not 0 < n <= 1000:
                continue
            p = of(n).p_value(np.array([99.0]), np.array([16]))[0]
            said = too_few({"a": of(n), "b": of(1000)}, alpha)
            assert (said is not None) == (p >= alpha) == (n < least)
            if said:
                assert f": a {n}; give {least} or more" in said and "\n" not in said
    assert too_few({"a": of(1)}, 0) is None and too_few({}, 0.05) is None


def test_merging_p_values_by_hand():
    merge = lambda p, n: document_p(*p_sums(np.array(p), np.array(n)))
    assert merge([0.3], [16]) == pytest.approx(0.3)
    assert merge([0.1, 0.3], [16, 16]) == pytest.approx(0.4)
    assert merge([0.9, 0.9], [16, 16]) == 1.0
    assert merge([0.1, np.nan], [16, 3]) == pytest.approx(0.1)
    assert np.isnan(merge([np.nan], [3])) and np.isnan(merge([np.nan, np.nan], [3, 4]))
    assert merge([0.02, 1.0], [90, 10]) == pytest.approx((0.02 * 90 + 10) / 100 / 0.9)


@pytest.mark.parametrize("raw", [
    None, [], {}, {"format": 2, "residuals": {"8": [1.0]}}, {"format": 1, "residuals": {}},
    {"format": 1, "residuals": {"8": []}}, {"format": 1, "residuals": {"8": [2.0, 1.0]}},
    {"format": 1, "residuals": {"0": [1.0]}}, {"format": 1, "residuals": {"8": ["x"]}},
    {"format": 1, "residuals": {"8": [float("inf")]}},
    {"format": 1, "residuals": {"8": [1.0] * 1001}},
    {"format": 1, "residuals": {"8": [[1.0]]}}, {"format": 1, "residuals": [8]},
    {"format": 1, "residuals": {"eight": [1.0]}}])
def test_damaged_calibrations(raw):
    with pytest.raises(UserError, match="calibrat"):
        Calibration.from_json(raw)
