"""The grid's axes: what they span, what is left out, what is refused."""

import dataclasses

import pytest

from cr_jax.config import DataConfig, DomainConfig, Experiment, ModelConfig, TrainConfig
from cr_jax.errors import UserError
from cr_jax.studies.capacity.grid import Grid, groups, make_grid

BASE = Experiment(
    model=ModelConfig(window=32, latents=2, d_model=16, d_latent=8, heads=2),
    train=TrainConfig(batch=8, tokens=5120),
    data=DataConfig(domains={n: DomainConfig(("x",), ("x",), ("x",)) for n in ("a", "b")}),
)


def _all(grid, held_out=False):
    return [c for g in groups(BASE, grid, held_out) for c in g.values()]


def test_a_group_holds_every_domain_and_seed_of_one_shape():
    found = groups(BASE, Grid(windows=(16, 32), latents=(1, 2, 4), seeds=(0, 5)), False)
    assert len(found) == 6
    for group in found:
        assert list(group) == ["a-0", "a-5", "b-0", "b-5"]
        assert len({(c.model, c.train, c.size, c.budget) for c in group.values()}) == 1
    assert len({next(iter(g.values())).model for g in found}) == 6


def test_every_window_sees_the_same_tokens_per_step():
    cells = _all(Grid(windows=(8, 16, 64, 256)))
    assert {c.train.batch * c.model.window for c in cells} == {8 * 32}
    with pytest.raises(UserError, match="48 does not divide the 256 tokens"):
        _all(Grid(windows=(48,)))


def test_axes_of_size_and_budget_replace_the_experiments_own():
    cells = _all(
        Grid(
            sizes={"small": {"d_model": 8}, "deep": {"encoder_blocks": 2}},
            train_tokens=(512, 1024),
            seeds=(0,),
        )
    )
    assert {(c.size, c.model.d_model, c.model.encoder_blocks) for c in cells} == {
        ("small", 8, 5),
        ("deep", 16, 2),
    }
    assert {(c.budget, c.train.tokens) for c in cells} == {(512, 512), (1024, 1024)}
    steps = dataclasses.replace(BASE, train=TrainConfig(batch=8, steps=3))
    (one,) = groups(steps, Grid(seeds=(0,)), False)
    assert one["a-0"].budget == 3 * 256


def test_held_out_settings_are_never_among_those_the_law_is_fitted_to():
    grid = Grid(windows=(16, 32), latents=(1, 2, 4), d_latent=(8, 16), holdout=((2, 16), (8, 8)))
    pairs = lambda cells: {(c.model.latents, c.model.d_latent) for c in cells}
    assert pairs(_all(grid, True)) == {(2, 16), (8, 8)}
    assert pairs(_all(grid)) == {(1, 8), (1, 16), (2, 8), (4, 8), (4, 16)}


def test_the_band_of_numbers_per_token_and_impossible_shapes():
    cells = _all(Grid(windows=(4, 8, 16, 32), latents=(2, 8), numbers_per_token=(2, 4)))
    assert {(c.model.latents, c.model.window) for c in cells} == {(2, 4), (2, 8), (8, 16), (8, 32)}
    assert {c.model.window for c in _all(Grid(windows=(4, 8), latents=(8,)))} == {8}
    with pytest.raises(UserError, match="leaves nothing to measure"):
        _all(Grid(windows=(4,), latents=(8,)))


@pytest.mark.parametrize(
    "raw, message",
    [
        ({"window": (8,)}, "no field 'window'"),
        ({"windows": (0,)}, "windows must hold whole numbers"),
        ({"latents": ("2",)}, "latents must hold whole numbers"),
        ({"seeds": ()}, "at least one seed"),
        ({"thresholds": (99.0,)}, "thresholds must hold shares"),
        ({"numbers_per_token": (4,)}, "none or two numbers_per_token"),
        ({"holdout": ((1, 2, 3),)}, "pairs"),
        ({"together": 0}, "together must be at least 1"),
        ({"sizes": {"big": {"d_modle": 8}}}, "sizes.big has no field 'd_modle'"),
    ],
)
def test_bad_axes_are_named(raw, message):
    with pytest.raises(UserError, match=message):
        make_grid(raw)


def test_plain_data_becomes_a_grid():
    raw = {"windows": [8, 16], "latents": 4, "holdout": [[2, 8]], "sizes": {"s": {"d_model": 8}}}
    grid = make_grid(raw)
    assert grid.windows == (8, 16) and grid.latents == (4,) and grid.holdout == ((2, 8),)
    assert grid.seeds == (0, 1) and grid.thresholds == (0.99,)
    assert grid.sizes["s"]["d_model"] == 8
