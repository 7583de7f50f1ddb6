"""The FLOP formula against the products that the traced programs really hold; sizes and search."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_xla

from benchmarks import hlo, workload
from benchmarks.search import BatchSearch
from benchmarks.workload import Batch
from cr_jax import models
from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.training import speed

TINY = dataclasses.replace(workload.SIZES["tiny"], dtype="float32", attention="xla")


def traced_flops(jaxpr, times=1):
    """2 m k n of every dot_general in a jaxpr; loop bodies as often as they run."""
    total = 0
    for e in jaxpr.eqns:
        if e.primitive.name == "dot_general":
            (left, _), _ = e.params["dimension_numbers"]
            shape = e.invars[0].aval.shape
            total += (
                2 * times * math.prod(e.outvars[0].aval.shape) * math.prod(shape[i] for i in left)
            )
        inner = times * (e.params["length"] if e.primitive.name == "scan" else 1)
        for value in e.params.values():
            inside = getattr(value, "jaxpr", value)
            if hasattr(inside, "eqns"):
                total += traced_flops(inside, inner)
    return total


@pytest.mark.parametrize(
    "bottleneck,rotary",
    [("fold", True), ("query", True), ("query", False), ("fourier_query", True)],
)
@pytest.mark.parametrize("latents", [8, 5])
def test_formula_counts_the_products_of_the_traced_step(bottleneck, rotary, latents):
    c = dataclasses.replace(TINY, bottleneck=bottleneck, rotary_values=rotary, latents=latents)
    shapes = jax.eval_shape(lambda k: models.init(c, k), jax.random.key(0))
    tokens = jnp.zeros((3, c.window), jnp.int32)
    states = lambda p: models.Autoencoder(c).apply(p, tokens)[0]

    def loss(p):
        weights = jnp.ones(tokens.shape)
        return objective.linear_cross_entropy(states(p), models.head(c, p), tokens, weights, 64)[0]

    parts = speed.forward_flops(c)
    forward = sum(parts.values()) - parts["vocabulary"]
    assert traced_flops(jax.make_jaxpr(states)(shapes).jaxpr) == 3 * forward
    step = traced_flops(jax.make_jaxpr(jax.grad(loss))(shapes).jaxpr)
    expected = speed.flops_per_token(c) * 3 * c.window
    assert step == pytest.approx(expected, rel=1e-12)


def test_sizes_have_the_parameters_that_their_names_say():
    counts = {
        name: models.count_parameters(workload.SIZES[name]) for name in ("10m", "87m", "350m", "1b")
    }
    assert 9.5e6 < counts["10m"] < 11e6
    assert 86e6 < counts["87m"] < 91e6
    assert 345e6 < counts["350m"] < 355e6
    assert 1.0e9 < counts["1b"] < 1.1e9


def test_drawn_ids_are_skewed_like_text_and_cover_the_vocabulary():
    drawn = workload.draw_tokens(TINY, 64, 2)
    share = np.bincount(drawn.ravel(), minlength=TINY.vocab_size) / drawn.size
    assert drawn.shape == (2, 64, TINY.window) and drawn.dtype == np.int32
    assert drawn.min() >= 0 and drawn.max() < TINY.vocab_size
    assert 0.30 < share.max() < 0.37 and (share > 0).mean() > 0.95
    assert not np.array_equal(drawn[0], drawn[1])


def test_data_sheet_rates_go_by_the_longest_whole_name():
    assert speed.peak_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert speed.peak_flops("NVIDIA H100 NVL") == 835e12
    assert speed.peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert speed.peak_flops("TPU v5 lite") == 197e12
    assert speed.peak_flops("NVIDIA GH200 480GB") == 989.4e12
    for unknown in ("cpu", "NVIDIA L40", "NVIDIA GB200"):
        assert speed.peak_flops(unknown) is None
    assert speed.peak_flops() is None  # the CPU that tests run on


def test_settings_are_changed_and_bad_ones_named():
    changed = workload.size("87m", ("remat=True", "d_ff=2048", "attention=xla"))
    assert (changed.remat, changed.d_ff, changed.attention) == (True, 2048, "xla")
    for bad in ("remat=1", "d_ff=x", "width=3", "d_ff"):
        with pytest.raises(UserError, match="--set"):
            workload.size("87m", (bad,))
    with pytest.raises(UserError, match="unknown size"):
        workload.size("88m")
    assert workload.parse_batch("64r") == Batch(64, True)
    with pytest.raises(UserError, match="--batches"):
        workload.parse_batch("0")


def test_search_skips_only_batches_that_cannot_win():
    search = BatchSearch()
    search.add(Batch(128), 100.0)
    assert search.worth(Batch(256)) and search.worth(Batch(64))
    search.add(Batch(256), 120.0)
    assert not search.worth(Batch(64)) and search.worth(Batch(512)) and search.worth(Batch(192))
    search.add(Batch(512), 0.0)
    assert not search.worth(Batch(1024)) and search.worth(Batch(1024, remat=True))
    assert search.best() == Batch(256)
    falling = BatchSearch()
    falling.add(Batch(128), 120.0)
    falling.add(Batch(256), 100.0)
    assert falling.worth(Batch(64)) and not falling.worth(Batch(512))


def test_hlo_counts_loop_bodies_as_often_as_they_run():
    def repeated(x, w):
        return jax.lax.scan(lambda y, _: (jnp.sin(y @ w), None), x, length=7)[0]

    def scattered(table, ids):
        return table.at[ids].add(1.0)

    text = lambda f, *shapes: (
        jax.jit(f).lower(*shapes).compile(compiler_options=quick_xla.USUAL).as_text()
    )
    array = jax.ShapeDtypeStruct
    one = hlo.summary(
        text(
            lambda x, w: jnp.sin(x @ w), array((64, 64), jnp.float32), array((64, 64), jnp.float32)
        )
    )
    seven = hlo.summary(text(repeated, array((64, 64), jnp.float32), array((64, 64), jnp.float32)))
    work = lambda found: sum(r["gib_written"] for r in found["counts"].values())
    assert 6 * work(one) < work(seven) < 9 * work(one)
    add = hlo.summary(text(scattered, array((4096, 64), jnp.float32), array((999,), jnp.int32)))
    assert any("scatter" in m["label"] for m in add["moves"])
    assert not any("scatter" in label for label in seven["counts"])
