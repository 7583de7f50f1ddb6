"""Documents of many experts cost what each costs alone under its own."""

import numpy as np
import tiny_lms

from cr_jax.modular.grouped_score import spoken_nats
from cr_jax.modular.score import token_nats
from cr_jax.modular.speakers import stacked

PARAMS = tiny_lms.stacked(4)
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(0, 29, (11, 9)).astype(np.int32)
EXPERTS = np.array([2, 0, 2, 2, 3, 2, 0, 2, 2, 3, 2])


def test_each_document_costs_what_its_expert_says():
    asked, whole = [], stacked(tiny_lms.TINY, PARAMS)

    def stack(experts):
        asked.append(experts.tolist())
        return whole.stack(experts)

    every = token_nats(tiny_lms.TINY, PARAMS, TOKENS)
    found = spoken_nats(whole._replace(stack=stack), EXPERTS, TOKENS, rows=4)
    np.testing.assert_allclose(found, every[EXPERTS, np.arange(11)], atol=1e-5)
    assert np.abs(found - every[(EXPERTS + 1) % 4, np.arange(11)]).max() > 0.1
    assert asked == [[0], [2], [3]]  # each once, and nobody who speaks nothing
