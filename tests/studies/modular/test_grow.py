"""Adding an expert changes nobody's nats, only who is chosen, and how often that happens."""

import math

import numpy as np
import pytest

from cr_jax.studies.modular.arms import Plan
from cr_jax.studies.modular.grow import grow, without
from cr_jax.studies.modular.nats import DomainNats

E, N, L = 3, 40, 24
PLAN = Plan(8)


def domain(own, takes=None, share=0.0):
    """Text of a domain whose expert is ahead; `share` of the windows begin as another's text."""
    rng = np.random.default_rng(own)
    nats = 3 + rng.normal(0, 0.01, (E, N, L)) - np.eye(E)[own][:, None, None]
    taken = np.zeros(N, bool)
    if takes is not None:
        taken[: int(share * N)] = True
        nats[takes, taken, :8] -= 2  # only as far as it is decided by
    nats = nats.astype(np.float32)
    mask = np.ones((N, L), bool)
    return DomainNats(
        mask=mask,
        bytes=np.ones((N, L), np.int32),
        experts=nats,
        seed=np.full((N, L), 3.5, np.float32),
        bigrams=nats + 1,
    )


@pytest.fixture(scope="module")
def domains():
    return {"a": domain(0, takes=2, share=0.25), "b": domain(1), "c": domain(2)}


def test_shares_are_those_of_the_windows_that_the_new_expert_takes(domains):
    found = grow(domains, PLAN)
    each = found["per_domain"]
    assert list(each) == ["a", "b", "c"]
    assert each["c"]["changed_share"] == pytest.approx(0.25 / 2)  # a quarter of a's, none of b's
    assert each["a"]["changed_share"] == each["b"]["changed_share"] == 0
    assert found["changed_share"] == pytest.approx(0.25 / 2 / 3)
    # By hand: a quarter of a's windows are spoken by c, which needs a nat more on their rest.
    assert each["c"]["others_ppl"] == pytest.approx(math.exp(0.25 / 2), rel=0.01)
    assert each["a"]["others_ppl"] == each["b"]["others_ppl"] == 1
    assert all(row["own_ppl"] == pytest.approx(math.exp(-1), rel=0.02) for row in [each["b"]])
    assert found["rules"].keys() == {"top1", "top1_bigrams"}  # no code length was measured
    assert found["rules"]["top1"]["per_domain"] == each


def test_an_expert_that_nobody_needs_changes_nothing(domains):
    worst = np.full((1, N, L), 99, np.float32)
    more = {}
    for name, d in {**domains, "d": domain(1)}.items():
        experts = np.concatenate([d.experts, worst])
        more[name] = DomainNats(d.mask, d.bytes, experts, d.seed, bigrams=experts + 1)
    assert grow(more, PLAN)["per_domain"]["d"] == {
        "changed_share": 0.0,
        "others_ppl": 1.0,
        "own_ppl": 1.0,
    }


def test_who_is_held_out_says_nothing(domains):
    fewer = without(domains["a"], 1)
    np.testing.assert_array_equal(fewer.experts, domains["a"].experts[[0, 2]])
    np.testing.assert_array_equal(fewer.bigrams, domains["a"].bigrams[[0, 2]])
    assert fewer.code_length is None and fewer.label is None
