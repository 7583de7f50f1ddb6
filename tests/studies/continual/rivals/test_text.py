"""Whose text a rival reads at a stage."""

import dataclasses
import itertools

import numpy as np
import pytest

from cr_jax.data import ByteTokenizer
from cr_jax.errors import UserError
from cr_jax.studies.baselines.interface import TrainingText
from cr_jax.studies.continual.rivals.text import Batches, Everything, Replay, Reservoir, new_only

E, B, L = 4, 6, 5


def drawn():
    """Tokens whose value is their domain."""
    return np.broadcast_to(np.arange(E)[:, None, None], (E, B, L)).astype(np.int32)


def test_a_reservoir_keeps_each_of_a_stream_equally_often():
    kept = np.zeros(40)
    for seed in range(400):
        store = Reservoir(10, 1, seed)
        store.add(np.arange(40, dtype=np.int32)[:, None], np.arange(40, dtype=np.int32))
        assert len(store) == 10
        np.testing.assert_array_equal(store.tokens[:, 0], store.domain)
        kept[store.domain] += 1
    assert kept.sum() == 4000 and abs(kept - 100).max() < 45  # 100 +- 8.7 each


def test_a_reservoir_that_is_not_full_gives_what_it_has():
    store = Reservoir(10, L, 0)
    store.add(*new_only(drawn(), 2))
    assert len(store) == B and (store.sample(50)[1] == 2).all()


def test_each_way_reads_what_it_may():
    replay, everything, ahead = Replay(0.5, 16, L, 0), Everything(0), Everything(0, ahead=True)
    seen = {name: set() for name in ("new", "replay", "all", "ahead")}
    for stage in range(3):
        for _ in range(20):
            for name, draw in zip(seen, (new_only, replay, everything, ahead), strict=True):
                tokens, domain = draw(drawn(), stage)
                assert tokens.shape == (B, L) and (tokens == domain[:, None]).all()
                seen[name] |= {(stage, int(d)) for d in domain}
                if name == "replay":
                    assert (domain == stage).sum() >= B // 2
    assert seen["new"] == {(s, s) for s in range(3)}
    up_to_now = {(s, d) for s in range(3) for d in range(s + 1)}
    assert seen["replay"] == seen["all"] == up_to_now
    assert seen["ahead"] == set(itertools.product(range(3), range(E)))


def test_models_side_by_side_get_rows_of_their_own():
    class Text(TrainingText):
        def batches(self, batch):
            return itertools.repeat({"tokens": drawn()})

    text = Text(("a",), (), ByteTokenizer(), L)
    batches = Batches(text, B, [new_only, Everything(0, ahead=True)])
    batch = next(batches.stage(1, labels=True))
    assert batch["tokens"].shape == batch["mask"].shape == (2, B, L)
    assert (batch["label"][0] == 1).all() and len(set(batch["label"][1])) > 1
    assert next(batches.stage(2)).keys() == {"tokens"}
    with pytest.raises(UserError, match="packed"):
        Batches(dataclasses.replace(text, mode="padded"), B, [new_only])
