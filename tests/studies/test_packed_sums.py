import numpy as np

from cr_jax.studies.packed_sums import LEAST, pack, unpack


def sums(rng):
    """Ten experts' nats on 4,000 windows whose two nearest lie less than a nat apart."""
    values = rng.uniform(2048, 8192, (10, 4000)).astype(np.float32)
    values[3] = values.min(0) - rng.uniform(0.01, 0.9, 4000).astype(np.float32)
    return values


def test_packing_keeps_every_winner_where_plain_half_precision_does_not():
    values = sums(np.random.default_rng(0))
    read = unpack(pack({"test/a:code:residual": values}))["test/a:code:residual"]
    np.testing.assert_array_equal(read.argmin(0), values.argmin(0))
    assert (values.astype(np.float16).argmin(0) != values.argmin(0)).mean() > 0.01


def test_the_winner_is_exact_and_others_are_off_by_a_twentieth_of_a_percent_of_their_distance():
    values = sums(np.random.default_rng(1))
    read = unpack(pack({"k:code:residual": values}))["k:code:residual"]
    np.testing.assert_array_equal(read.min(0), values.min(0))
    error, above = np.abs(read - values), values - values.min(0)
    assert (error <= 5e-4 * above + 1e-3).all() and error.max() > 0.1


def test_counts_are_exact_and_smaller():
    counts = np.arange(513, dtype=np.float32)[None]
    packed = pack({"k:seen:correct": counts})
    assert packed["k:seen:correct"].dtype == np.uint16 and list(packed) == ["k:seen:correct"]
    np.testing.assert_array_equal(unpack(packed)["k:seen:correct"], counts)


def test_what_was_never_packed_comes_back_as_it_is():
    stored = {
        "k:code:residual": np.ones((2, 3), np.float32),
        **pack({"other:code:residual": np.full((2, 3), 7, np.float32)}),
    }
    assert f"other:code:residual{LEAST}" in stored
    read = unpack(stored)
    assert sorted(read) == ["k:code:residual", "other:code:residual"]
    assert read["k:code:residual"] is stored["k:code:residual"]
