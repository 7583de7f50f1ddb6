"""The arithmetic of routing, by hand."""

import numpy as np
import pytest
import tiny_bank

from benchmarks.router_cost import FULL, QUICK, RULE, made_up
from benchmarks.routing_plan import GIB, cascade_memory, exact_memory, scoring_flops
from cr_jax import models
from cr_jax.config import SEEN, Scoring
from cr_jax.scoring import bigram
from cr_jax.scoring.batching import BatchSizes

SIZES = BatchSizes(experts=1, windows=4, tokens=64)


def test_the_arithmetic_of_the_docstring():
    seen = scoring_flops(FULL, SEEN)
    vocabulary = 2 * 256 * 32768
    blocks = 6 * 2 * (4 * 256**2 + 3 * 256 * 768 + 2 * 512 * 256) + 2 * 4 * 256 * 64
    assert seen == pytest.approx(blocks + vocabulary, rel=1e-3)
    assert scoring_flops(FULL, Scoring(parts=2)) == pytest.approx(2 * blocks + vocabulary, rel=1e-3)
    encoder, predictor = 3 * 2 * (4 * 256**2 + 3 * 256 * 768 + 2 * 512 * 256), 2 * 256**2
    assert scoring_flops(FULL, RULE) == pytest.approx(encoder + predictor + vocabulary, rel=1e-3)


@pytest.mark.parametrize("model", [QUICK, FULL])
def test_a_table_has_the_bytes_of_the_docstring(model):
    """A bigram model without real text has as many pairs as one of real text, less 1 in 100."""
    made = made_up(model.vocab_size, model.window)
    assert 0.98 * bigram.MAX_BIGRAMS < made.keys.size <= bigram.MAX_BIGRAMS
    table = bigram.table([made, made])
    assert table.keys.shape[1:] == (16_384, 8)
    size = sum(x.nbytes for x in table)
    assert size == 2 * (16_384 * 8 * (4 + 2) + model.vocab_size * (2 + 2))


def test_a_cascade_needs_its_bank_its_tables_and_a_call():
    bank = tiny_bank.in_memory(3)
    rng = np.random.default_rng(0)
    wide = bigram.count(rng.integers(0, 258, (2000, 16)), np.ones((2000, 16), bool), 258)
    small, large = (bigram.table(of) for of in ([bank.bigrams[n] for n in bank.names], [wide] * 3))
    parameters = 4 * models.count_parameters(bank.model) / GIB
    least = 3 * parameters + sum(x.nbytes for x in small) / GIB
    found = cascade_memory(bank, small, SIZES)
    assert found > least
    grown = sum(x.nbytes for x in large) - sum(x.nbytes for x in small)
    assert cascade_memory(bank, large, SIZES) - found >= 0.99 * grown / GIB > 0
    two = cascade_memory(tiny_bank.in_memory(2), small, SIZES)
    assert found - two == pytest.approx(parameters)
    # exact scoring holds the same experts, no tables
    assert exact_memory(bank, SIZES) - exact_memory(bank.select("e0"), SIZES) > 1.9 * parameters
