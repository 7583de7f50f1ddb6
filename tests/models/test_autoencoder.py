"""Ways to run the same weights agree; shapes; the real sizes."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import FORMS, fresh, run, small, windows

from cr_jax import config as settings
from cr_jax import models
from cr_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradient(config, params, tokens):
    def loss(p):
        h, _ = models.Autoencoder(config).apply(p, tokens)
        log_p = jax.nn.log_softmax(h @ models.head(config, p))
        return -jnp.mean(jnp.take_along_axis(log_p, tokens[..., None], -1))

    return jax.value_and_grad(loss)(params)


def value_and_gradient(config, params, tokens):
    """A loss and its gradient through the whole model, as one flat vector."""
    value, gradient = _value_and_gradient(config, params, tokens)
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves((value, gradient))])


@pytest.mark.parametrize(
    "change",
    [{"scan": True}, {"scan": True, "remat": True}, {"remat": True}],
    ids=lambda c: "+".join(c),
)
def test_remat_and_scan_change_memory_not_numbers(change):
    plain = small(encoder_blocks=2)
    other = dataclasses.replace(plain, **change)
    params, tokens = fresh(plain), windows(plain)
    want, got = (value_and_gradient(c, params, tokens) for c in (plain, other))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    # Negative control: the comparison sees one changed matrix.
    moved = jax.tree_util.tree_map_with_path(
        lambda path, x: np.asarray(x) * 1.01 if path[-1].key == "down" else x, params
    )
    assert not np.allclose(value_and_gradient(plain, moved, tokens), want, rtol=1e-4, atol=1e-6)


def test_remat_is_in_the_program():
    def text(config):
        loss = lambda p, t: jnp.sum(models.Autoencoder(config).apply(p, t)[0])
        return str(jax.make_jaxpr(jax.grad(loss))(fresh(small()), windows(config)))

    assert "remat" in text(small(remat=True)) and "remat" not in text(small())


@pytest.mark.parametrize("form", FORMS)
def test_vmap_over_experts_equals_a_loop(form):
    config = small(form)
    each = [fresh(config, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *each)
    tokens = windows(config)
    net = models.Autoencoder(config)
    together, _ = jax.device_get(jax.jit(jax.vmap(lambda p: net.apply(p, tokens)))(stacked))
    for one, got in zip(each, together):
        np.testing.assert_allclose(got, run(config, one, tokens)[0], rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize("window,latents", [(10, 3), (12, 3), (7, 7), (9, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_any_window_and_number_of_latents(form, window, latents):
    config = small(form, window=window, latents=latents)
    shapes = jax.eval_shape(
        lambda k: models.Autoencoder(config).apply(
            models.init(config, k), jnp.zeros((2, window), jnp.int32)
        ),
        jax.random.key(0),
    )
    assert shapes[0].shape == (2, window, config.d_model)
    assert shapes[1].shape == (2, latents, config.d_latent)


@pytest.mark.parametrize("form", FORMS)
def test_no_blocks_at_all(form):
    config = small(form, encoder_blocks=0, decoder_blocks=0)
    shapes = jax.eval_shape(
        lambda k: models.Autoencoder(config).apply(
            models.init(config, k), jnp.zeros((2, 10), jnp.int32)
        ),
        jax.random.key(0),
    )
    assert shapes[0].shape == (2, 10, config.d_model)
    params = jax.eval_shape(lambda k: models.init(config, k), jax.random.key(0))["params"]
    assert not params.keys() & {"encoder", "decoder"}


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_near(form):
    config = small(form)
    params, tokens = fresh(config), windows(config)
    half = dataclasses.replace(config, dtype="bfloat16")
    h, z = run(half, params, tokens)
    assert h.dtype == z.dtype == jnp.bfloat16
    want, _ = run(config, params, tokens)
    off = np.asarray(h, np.float32) - np.asarray(want)
    # bfloat16 keeps 8 bits; a few dozen roundings in a row.
    assert 0 < np.sqrt(np.mean(off**2)) < 0.05 * np.sqrt(np.mean(np.square(want)))
    stored = jax.eval_shape(lambda k: models.init(half, k), jax.random.key(0))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(stored))


def test_the_head_starts_as_the_scaled_embedding():
    config, tied = small(), small(tie_embeddings=True)
    params = fresh(config)
    want = params["params"]["embedding"].T * config.d_model**-0.5
    np.testing.assert_allclose(models.head(config, params), want, rtol=1e-6)
    np.testing.assert_allclose(models.head(tied, params), want, rtol=1e-6)
    moved = {"params": {**params["params"], "head": params["params"]["head"] + 1}}
    assert np.array_equal(models.head(config, moved), moved["params"]["head"])
    assert np.array_equal(models.head(tied, moved), models.head(tied, params))
    assert models.count_parameters(config) - models.count_parameters(tied) == 16 * 29


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda p: p.stem)
def test_every_config_builds_a_model(path):
    own = {f.name for f in dataclasses.fields(settings.Experiment)}
    raw = load(path).to_dict()  # a study may have settings of its own beside the experiment's
    experiment = settings.build({k: v for k, v in raw.items() if k in own})
    model = dataclasses.replace(experiment.model, vocab_size=experiment.model.vocab_size or 2048)
    assert models.count_parameters(model) > 10_000
    assert settings.model_config(settings.to_dict(model)) == model


def test_the_papers_size():
    config = load(CONFIGS / "cr_87m.py")
    model = settings.build(config).model
    assert (model.window, model.latents, model.d_model) == (512, 8, 512)
    assert 86e6 <= models.count_parameters(model) <= 91e6


def test_impossible_sizes_are_refused_before_anything_is_allocated():
    with pytest.raises(UserError, match="heads"):
        models.init(small(heads=5), jax.random.key(0))
