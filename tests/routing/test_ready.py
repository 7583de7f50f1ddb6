"""Experts that are made ready when they are needed."""

import numpy as np
from tiny_bank import in_memory, windows

from cr_jax import router
from cr_jax.routing.ready import experts_of


def test_experts_that_are_wanted_are_read_at_once_and_once():
    bank, asked = in_memory(3), []
    experts = experts_of(bank)
    experts._load = lambda names: asked.append(names) or bank.select(names)
    experts.want(["e2"])
    alone = [experts.one(name) for name in ("e0", "e2", "e1", "e0")]
    assert asked == [("e0", "e2"), ("e1",)]
    assert [one.names for one in alone] == [("e0",), ("e2",), ("e1",), ("e0",)]
    some = windows(3)
    every = router.score_bank(bank, some).residual
    for row, name in zip(every, bank.names, strict=True):
        own = router.score_bank(experts.one(name), some).residual
        np.testing.assert_allclose(own, row[None], rtol=1e-5)
