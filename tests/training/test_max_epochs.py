"""An expert with little text ends its own schedule early and then stays as it is."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_run

from cr_jax.config import TrainConfig
from cr_jax.data import Corpus, Mixture, WindowBatches, Windowing, epoch_positions
from cr_jax.training.clock import Clock


def few_words(folder):
    """Digits get a tenth of the letters' text; -> tokens of digits."""
    tiny_run.write(folder)
    place = folder / "digits-train.txt"
    place.write_text(place.read_text()[:300])
    return 300 + 1  # and the end of the document


def pick(params, expert):
    return jax.tree.map(lambda x: x[expert], params)


def test_an_expert_stopped_beside_others_is_the_expert_of_its_own_short_run(tmp_path):
    have = few_words(tmp_path)
    short = tiny_run.experiment(tmp_path, names=("digits",), tokens=4 * have)
    alone = tiny_run.train(short, tmp_path / "alone")
    assert 10 < alone.step < 16
    long = tiny_run.experiment(tmp_path, steps=30, max_epochs=4.0)
    seen = []
    both = tiny_run.train(
        long,
        tmp_path / "both",
        on_log=lambda _, values: seen.append([values[n]["rate"] for n in tiny_run.NAMES]),
    )
    assert both.step == 30
    np.testing.assert_array_equal(np.array(seen)[:, 0] > 0, np.arange(30) < alone.step)
    assert np.array(seen)[:, 1].all()
    digits, letters = (pick(both.params, e) for e in range(2))
    for a, b in zip(jax.tree.leaves(digits), jax.tree.leaves(pick(alone.params, 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # Negative control: without the limit the same expert ends elsewhere, the other alike.
    free = tiny_run.train(tiny_run.experiment(tmp_path, steps=30), tmp_path / "free")
    assert not tiny_run.same(pick(free.params, 0), digits)
    assert tiny_run.same(pick(free.params, 1), letters)


def test_the_weights_stay_after_the_end_whatever_the_schedule_leaves(tmp_path):
    few_words(tmp_path)
    e = tiny_run.experiment(tmp_path, steps=16, max_epochs=4.0)
    e = dataclasses.replace(
        e, optimizer=dataclasses.replace(e.optimizer, schedule="constant", weight_decay=0.1)
    )
    first = tiny_run.train(e, tmp_path)
    more = tiny_run.train(
        dataclasses.replace(e, train=dataclasses.replace(e.train, steps=24)), tmp_path
    )
    assert more.step == 24
    assert tiny_run.same(pick(first.params, 0), pick(more.params, 0))
    assert not tiny_run.same(pick(first.params, 1), pick(more.params, 1))


@pytest.mark.parametrize("length", [{"steps": 100}, {"tokens": 10_000}])
def test_progress_of_each_expert(length):
    clock = Clock(TrainConfig(batch=10, max_epochs=2.0, **length), 10, (1_000, 0, 5_000, 10**9))
    np.testing.assert_allclose(clock.of_experts(10), [0.5, 0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(clock.of_experts(20), [1, 0.2, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(clock.of_experts(60), [1, 0.6, 0.6, 0.6], rtol=1e-6)
    clock.config = dataclasses.replace(clock.config, max_epochs=0.0)
    np.testing.assert_allclose(clock.of_experts(60), [0.6] * 4, rtol=1e-6)


def test_a_length_of_its_own_is_a_whole_schedule():
    """Beside a limit of epochs the nearer one counts; without lengths all learn to the end."""
    config = TrainConfig(batch=4, tokens=1000)
    own = Clock(config, 10, (0, 0, 0), lengths=(1000, 500, 250))
    np.testing.assert_allclose(own.of_experts(5), [0.2, 0.4, 0.8], rtol=1e-6)
    np.testing.assert_allclose(own.of_experts(10), [0.4, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(Clock(config, 10, (0, 0, 0)).of_experts(5), [0.2] * 3)
    both = dataclasses.replace(config, max_epochs=2.0)
    nearer = Clock(both, 10, (100, 1000, 10**6), lengths=(1000, 500, 250))
    np.testing.assert_allclose(nearer.of_experts(4), [0.8, 0.32, 0.64], rtol=1e-6)


def short_documents(lengths):
    """One document of each length; every document ends with one more token."""
    starts = np.cumsum([0, *(n + 1 for n in lengths)])
    tokens = (np.arange(starts[-1]) % 250).astype(np.uint16)
    return Corpus(tokens, starts.astype(np.int64), len(tokens), "", [])


@pytest.mark.parametrize("mode", ["packed", "padded"])
@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_an_epoch_has_read_every_real_token_once(mode, weights):
    """Counted in the batches themselves: documents of 3 and 5 tokens are mostly padding here."""
    windowing = Windowing(64, 0, mode)
    parts = [short_documents([3] * 900), short_documents([70, 5] * 400)]
    source = Mixture(parts, weights) if weights else parts[0]
    own = parts if weights else parts[:1]
    real = sum(len(c.tokens) - (len(c.starts) - 1) * (mode == "padded") for c in own)
    batch = 50
    clock = Clock(
        TrainConfig(batch=batch, steps=10**6, max_epochs=20.0),
        64,
        [epoch_positions(source, windowing)],
    )
    batches, read, step = WindowBatches({"a": source}, batch, windowing), 0, 0
    while clock.of_experts(step)[0] < 1:
        found = batches[step]
        read += int(found["mask"].sum()) if mode == "padded" else found["tokens"].size
        step += 1
    assert read / real == pytest.approx(20, rel=0.05)
