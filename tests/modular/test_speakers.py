"""Texts spoken side by side say what each would say alone with its expert."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lms

from cr_jax.errors import UserError
from cr_jax.modular import decode, schedule
from cr_jax.modular.decode import CHUNK
from cr_jax.modular.speakers import Speakers, stacked

CONFIG, EXPERTS = tiny_lms.TINY, 5
DRAW = np.random.default_rng(0)
TEXTS = [DRAW.integers(0, 29, n).astype(np.int32) for n in (7, 3, 11, 1, 5, 0)]
SPEAKERS = np.array([[3], [0], [3], [4], [1], [0]])
PARAMS = tiny_lms.stacked(EXPERTS)
MODELS = stacked(CONFIG, PARAMS)
GREEDY = decode.Rule(greedy=True)


def sampling(texts=6, temperature=1.0, top_p=1.0, end=99, seed=0, banned=()):
    allowed = np.ones(29, bool)
    allowed[list(banned)] = False
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(texts))
    return decode.Sampling(
        jnp.float32(temperature), jnp.float32(top_p), keys, jnp.asarray(allowed), jnp.int32(end)
    )


def speakers(texts=TEXTS, drawn=None, rule=GREEDY, **more):
    return Speakers(MODELS, texts, drawn or sampling(len(texts)), rule, **more)


def alone(b, tokens, **more):
    return tiny_lms.greedy(CONFIG, tiny_lms.one(PARAMS, SPEAKERS[b, 0]), TEXTS[b], tokens, **more)


def test_side_by_side_is_alone_token_by_token():
    many = speakers()
    many.give(SPEAKERS)
    said = [list(a) + list(b) for a, b in zip(many.speak(5), many.speak(9), strict=True)]
    assert said == [alone(b, 14) for b in range(6)]
    assert len({tuple(s) for s in said}) == 6
    assert all((t == [*TEXTS[b], *said[b]]).all() for b, t in enumerate(many.texts))


def test_a_new_expert_reads_the_text_so_far_and_the_others_go_on():
    many = speakers()
    many.give(SPEAKERS)
    many.speak(6)
    other = SPEAKERS.copy()
    other[[1, 4]] = 2
    many.give(other)
    said = many.speak(6)
    for b in range(6):
        before = alone(b, 6)
        params = tiny_lms.one(PARAMS, other[b, 0])
        assert list(said[b]) == tiny_lms.greedy(CONFIG, params, [*TEXTS[b], *before], 6)
        assert (list(said[b]) == alone(b, 12)[6:]) == (b not in (1, 4))


def test_a_text_ends_and_the_others_do_not():
    free = [alone(b, 8) for b in range(6)]
    end = free[2][3]
    many = speakers(drawn=sampling(end=end))
    many.give(SPEAKERS)
    said = [list(s) for s in many.speak(8)]
    assert said == [alone(b, 8, ends=[end]) for b in range(6)]
    assert many.done.tolist() == [end in s for s in free]
    assert not many.speak(2)[2].size


def test_a_full_cache_goes_on_with_its_last_half():
    text = DRAW.integers(0, 29, 200).astype(np.int32)
    one = speakers([text], context=64)
    one.give(np.array([[3]]))
    assert one.length == 64 and one.dropped.tolist() == [200 - 32]
    params = tiny_lms.one(PARAMS, 3)
    assert list(one.speak(8)[0]) == tiny_lms.greedy(CONFIG, params, text[-32:], 8)
    one.speak(23)
    assert one.dropped.tolist() == [200 - 32]  # 1 + 32 + 31 positions: full to the last
    now = one.texts[0]
    said = list(one.speak(1)[0])
    assert one.dropped.tolist() == [len(now) - 32]
    assert said == tiny_lms.greedy(CONFIG, params, now[-32:], 1)


def test_pages_stand_before_what_is_seen_of_a_text():
    text, pages = (DRAW.integers(0, 29, n).astype(np.int32) for n in (200, 20))
    two = speakers([text, text], context=128)
    two.put_before([pages, pages[:0]])
    two.give(np.array([[3], [3]]))
    assert two.dropped.tolist() == [200 - (128 - 20) // 2, 200 - 64]
    params = tiny_lms.one(PARAMS, 3)
    said = [list(s) for s in two.speak(8)]
    seen = [*pages, *text[-54:]]
    assert said[0] == tiny_lms.greedy(CONFIG, params, seen, 8)
    assert said[1] == tiny_lms.greedy(CONFIG, params, text[-64:], 8)
    # other pages: only that text is read again, with what it has said
    two.put_before([pages[:5], pages[:0]])
    now = two.texts[0]
    assert list(two.speak(4)[0]) == tiny_lms.greedy(
        CONFIG, params, [*pages[:5], *now[two.dropped[0] :]], 4
    )
    assert two.dropped[1] == 200 - 64
    with pytest.raises(UserError, match="65 tokens of pages"):
        two.put_before([np.zeros(65, np.int32), pages])


def test_drawn_tokens_are_the_same_in_any_batch_and_any_chunks():
    rule = decode.Rule()
    many = speakers(drawn=sampling(top_p=0.9), rule=rule)
    many.give(SPEAKERS)
    said = many.speak(10)
    drawn = sampling(top_p=0.9)
    few = speakers([TEXTS[2]], drawn=drawn._replace(keys=drawn.keys[2:3]), rule=rule)
    few.give(SPEAKERS[2:3])
    again = np.concatenate([few.speak(n)[0] for n in (1, 6, 3)])
    assert (again == said[2]).all()
    other = speakers(drawn=sampling(top_p=0.9, seed=1), rule=rule)
    other.give(SPEAKERS)
    assert any((a.size != b.size or (a != b).any()) for a, b in zip(said, other.speak(10)))


def test_a_mixture_says_what_the_posterior_of_its_experts_says():
    few, rule = TEXTS[:2], decode.Rule(greedy=True, switch=0.05)
    given = np.array([[3, 0, 1], [2, 4, 0]])
    start = np.log(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], np.float32))
    many = speakers(few, rule=rule)
    many.give(given, start)
    said = many.speak(7)
    for b in range(2):
        weights, text = np.exp(start[b]), list(few[b])
        for token in said[b]:
            each = np.stack(
                [tiny_lms.next_log_probs(CONFIG, tiny_lms.one(PARAMS, e), text) for e in given[b]]
            )
            mixed = np.asarray(schedule.mix_log_probs(weights[None], each[None]))[0]
            assert np.exp(mixed).sum() == pytest.approx(1, abs=1e-5)
            assert mixed.argmax() == token
            posterior = weights * np.exp(each[:, token])
            weights = 0.95 * posterior / posterior.sum() + 0.05 / 3
            text.append(int(token))
        np.testing.assert_allclose(many.weights[b], weights, rtol=1e-3)


def test_a_mixture_of_one_expert_with_itself_is_that_expert():
    twice = speakers()
    twice.give(np.repeat(SPEAKERS, 2, 1))
    assert [list(s) for s in twice.speak(6)] == [alone(b, 6) for b in range(6)]


def test_only_the_models_that_speak_are_loaded():
    asked = []

    def stack(experts):
        asked.append(experts.tolist())
        return MODELS.stack(experts)

    one = Speakers(MODELS._replace(stack=stack), TEXTS[:1], sampling(1), GREEDY)
    one.give(np.array([[3]]))
    one.speak(2)
    one.give(np.array([[3]]))  # nothing changes: nothing is read
    one.speak(2)
    one.give(np.array([[1]]))
    one.speak(2)
    assert asked == [[3], [1]]


def test_what_cannot_be_is_one_line():
    with pytest.raises(UserError, match="context=8"):
        speakers(context=8)
    other = MODELS._replace(config=dataclasses.replace(CONFIG, kind="other"))
    with pytest.raises(UserError, match="kind='decoder'"):
        Speakers(other, TEXTS, sampling(), GREEDY)
    one = speakers(TEXTS[:1])
    one.give(np.array([[0]]))
    for limit in (0, CHUNK + 1):
        with pytest.raises(UserError, match="limit="):
            one.speak(limit)
    with pytest.raises(UserError, match="cannot change"):
        one.give(np.array([[0, 1]]))
