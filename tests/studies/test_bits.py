"""Rates of known codes; the study against the model it measures."""

import lzma
import math

import jax
import numpy as np
import pytest
from tiny_model import decode, fresh, run, small, windows

from cr_jax import models
from cr_jax.errors import UserError
from cr_jax.models import quantizer
from cr_jax.studies import bits


def test_entropy_of_known_codes():
    even = np.tile(np.arange(8), 100)
    skewed = np.repeat([0, 1, 5], [400, 200, 200])  # 1.5 bits
    assert bits.entropy_bits(np.stack([even, skewed, 0 * even], 1)) == pytest.approx(3 + 1.5)


def test_tables_of_another_text_cost_more_and_the_own_ones_nearly_nothing_more():
    rng = np.random.default_rng(0)
    a, b = rng.binomial(7, 0.3, (4000, 5)), rng.binomial(7, 0.6, (4000, 5))
    best = bits.entropy_bits(a)
    own, other = bits.coded_bits(a, a, 8), bits.coded_bits(a, b, 8)
    assert best < own < best + 0.05 and other > best + 2
    # A code that the other text never had has a price, not an infinite one.
    assert 8 < bits.coded_bits(np.full((1, 1), 3), np.zeros((200, 1), int), 4) < 9


def ids(config, count, seed):
    return np.asarray(windows(config, count, seed))


def scored(config, params, tokens, z):
    """TRA and nll without the study's batches and chunks."""
    h = decode(config, params, z)
    log_p = np.asarray(jax.nn.log_softmax(h @ models.head(config, params)), np.float64)
    nll = -np.mean(np.take_along_axis(log_p, tokens[..., None], -1))
    right = log_p.argmax(-1) == tokens
    return np.mean(right), nll, np.mean(right.all(-1))


def test_rows_are_what_the_decoder_makes_of_the_rounded_latents():
    config = small()
    params, test, fit = fresh(config), ids(config, 70, 1), ids(config, 40, 2)
    found = bits.run(config, params, test, fit, batch=32, bits=(8, 4, 2))
    rows = {r["scheme"]: r for r in found["rows"]}
    assert list(rows) == [
        "float32",
        "bfloat16",
        "int8",
        "int8, range up to the largest",
        "int4",
        "int4, range up to the largest",
        "int2",
    ]
    z = run(config, params, test)[1]
    flat = run(config, params, fit)[1].reshape(-1, config.d_latent)
    q = quantizer.fit_symmetric(flat, 2)
    for name, held in (
        ("float32", z),
        ("int2", np.asarray(q.values(q.codes(z.reshape(-1, config.d_latent)))).reshape(z.shape)),
    ):
        tra, nll, exact = scored(config, params, test, held)
        assert rows[name]["tra"] == pytest.approx(tra, abs=1e-9)
        assert rows[name]["nll"] == pytest.approx(nll, rel=1e-5)
        assert rows[name]["window_exact"] == pytest.approx(exact)
    # float32 and int2 are different figures, and what is nearly z is nearly its figure.
    assert abs(rows["float32"]["nll"] - rows["int2"]["nll"]) > 1e-3
    assert rows["bfloat16"]["nll"] == pytest.approx(rows["float32"]["nll"], rel=1e-2)
    numbers = config.latents * config.d_latent / config.window
    for name, b in (("float32", 32), ("bfloat16", 16), ("int4", 4), ("int2", 2)):
        assert rows[name]["bits_per_token"] == pytest.approx(b * numbers)
    for r in found["rows"][1:]:
        assert 0 < r["entropy_bits_per_token"] < r["bits_per_token"]
        assert r["coded_bits_per_token"] is None or (
            r["entropy_bits_per_token"] < r["coded_bits_per_token"]
        )
    raw = bits.raw_bits(test, 27, b"x" * test.size)
    assert raw["raw_id_bits_per_token"] == math.log2(27) and not raw.keys() & found.keys()
    share = np.unique(test, return_counts=True)[1] / test.size
    assert raw["unigram_bits_per_token"] == pytest.approx(np.sum(share * np.log2(1 / share)))
    assert found["numbers_per_token"] == numbers and found["tokens"] == test.size
    assert "ratio of lengths" in found["says"]
    assert raw["utf8_bits_per_token"] == 8 > raw["xz_bits_per_token"]


def test_the_finite_scalars_are_the_models_own():
    """The study rounds the latents outside the model; the model itself gives the same figures."""
    config = small(levels=4)
    params, test = fresh(config), ids(config, 33, 1)
    (row,) = bits.run(config, params, test, ids(config, 20, 2), batch=16)["rows"]
    tra, nll, _ = scored(config, params, test, run(config, params, test)[1])
    assert row["scheme"] == "fsq4" and row["bits_per_number"] == 2
    assert row["tra"] == pytest.approx(tra, abs=1e-9) and row["nll"] == pytest.approx(nll, rel=1e-5)
    assert row["entropy_bits_per_token"] < row["bits_per_token"]
    # Negative control: without rounding the figure is another.
    off = dict(params["params"])
    off.pop("quantizer")
    other = bits.run(small(), {"params": off}, test, test, batch=16, bits=())["rows"][0]
    assert abs(other["nll"] - row["nll"]) > 1e-3


def test_streams_see_repetition():
    words = np.random.default_rng(0).integers(97, 123, 5000, np.uint8).tobytes()
    once, twice = bits.text_bits(words, 1000), bits.text_bits(words * 2, 2000)
    assert once["utf8_bits_per_token"] == 40
    for stream in ("zstd_bits_per_token", "xz_bits_per_token"):
        # Letters drawn evenly from 26 take 4.7 bits; the second copy is free.
        assert 5 * 4.7 < once[stream] < 5 * 4.7 + 2
        assert twice[stream] < 0.55 * once[stream]
    assert once["xz_bits_per_token"] == 8 * len(lzma.compress(words, preset=9)) / 1000


def test_no_windows_are_refused():
    config = small()
    with pytest.raises(UserError, match="window"):
        bits.run(config, fresh(config), ids(config, 0, 0), ids(config, 3, 0))
