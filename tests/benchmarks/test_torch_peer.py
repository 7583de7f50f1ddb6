"""The two sides of the throughput benchmark compute the same function of the same weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax import models
from cr_jax.config import ModelConfig
from cr_jax.errors import UserError
from cr_jax.models import objective

torch = pytest.importorskip("torch")

from benchmarks.torch_peer import Peer, Variant, from_jax, make_loss  # noqa: E402

# Small, and no two sizes alike.
CONFIG = ModelConfig(
    vocab_size=61,
    window=20,
    latents=4,
    d_model=32,
    d_latent=12,
    heads=4,
    d_ff=40,
    encoder_blocks=2,
    decoder_blocks=1,
    bottleneck="fold",
    fold_channels=6,
    dtype="float32",
)
MATH = Variant(attention="math")
LEAVES = (
    "embedding",
    "encoder.blocks.0.attention.qkv",
    "encoder.blocks.0.mlp.up",
    "bottleneck.narrow",
    "bottleneck.fold",
    "bottleneck.positions",
    "decoder.blocks.0.attention.out",
    "decoder.blocks.0.mlp.down",
)


def copied(config, params, variant=MATH):
    net = Peer(config, torch.float32, variant)
    weights = from_jax(params["params"])
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
    return net


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied"])
def case(request):
    config = CONFIG
    if request.param:
        config = dataclasses.replace(CONFIG, tie_embeddings=True, encoder_blocks=1)
    params = jax.jit(lambda k: models.init(config, k))(jax.random.key(1))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (3, config.window), np.int32)

    def loss(p):
        ids = jnp.asarray(tokens)
        h, _ = models.Autoencoder(config).apply(p, ids)
        weights = jnp.full(ids.shape, 1.0 / ids.size)
        value, scores = objective.linear_cross_entropy(h, models.head(config, p), ids, weights, 16)
        return value, (scores.nll, h @ models.head(config, p))

    (value, (nll, logits)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return config, params, tokens, float(value), nll, logits, from_jax(gradient["params"])


def close(ours, theirs):
    """Relative distance of two arrays in the Euclidean norm."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.linalg.norm(ours - theirs) / np.linalg.norm(ours) < 1e-4


@pytest.mark.parametrize("projection", ["split", "joined"])
def test_logits_and_nll_agree_with_the_same_weights(case, projection):
    config, params, tokens, _, nll, logits, _ = case
    net = copied(config, params, dataclasses.replace(MATH, projection=projection))
    ids = torch.from_numpy(tokens).long()
    with torch.no_grad():
        theirs = net(ids) @ net.kernel()
        per_token = torch.nn.functional.cross_entropy(
            theirs.flatten(0, 1), ids.flatten(), reduction="none"
        )
    assert close(logits, theirs.numpy())
    assert close(np.asarray(nll).ravel(), per_token.numpy())


@pytest.mark.parametrize("loss", ["plain", "chunked"])
@pytest.mark.parametrize("remat", [False, True])
def test_loss_and_gradients_agree_with_the_same_weights(case, loss, remat):
    config, params, tokens, value, _, _, gradient = case
    variant = dataclasses.replace(MATH, loss=loss)
    net = copied(dataclasses.replace(config, remat=remat), params, variant)
    theirs = make_loss(net, variant, chunk=16)(torch.from_numpy(tokens).long())
    theirs.backward()
    assert theirs.item() == pytest.approx(value, rel=1e-5)
    named = dict(net.named_parameters())
    for leaf in (*LEAVES, *(() if config.tie_embeddings else ("head",))):
        assert close(gradient[leaf], named[leaf].grad.numpy()), leaf


def test_every_parameter_has_its_counterpart(case):
    config, params, *_ = case
    shapes = {k: tuple(p.shape) for k, p in Peer(config, torch.float32).named_parameters()}
    assert shapes == {k: v.shape for k, v in from_jax(params["params"]).items()}


@pytest.mark.parametrize("leaf", LEAVES)
def test_one_changed_matrix_shows(case, leaf):
    """Negative control: the comparison above would see a wrong weight in any part."""
    config, params, tokens, _, _, logits, _ = case
    net = copied(config, params)
    with torch.no_grad():
        dict(net.named_parameters())[leaf].mul_(-1.05)
        theirs = net(torch.from_numpy(tokens).long()) @ net.kernel()
    assert not close(logits, theirs.numpy())


def test_other_bottlenecks_are_refused():
    with pytest.raises(UserError, match="fold bottleneck only"):
        Peer(dataclasses.replace(CONFIG, bottleneck="query"), torch.float32)


def test_variants_are_read_back_as_written():
    assert Variant.parse("chunked/cudnn/joined") == Variant("chunked", "cudnn", "joined")
    with pytest.raises(UserError, match="--variant"):
        Variant.parse("chunked/fast/joined")
