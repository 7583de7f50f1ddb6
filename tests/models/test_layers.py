"""Which attention and row kernels run where, what cannot run, and what a causal stack sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from tiny_bank import TINY
from tiny_model import SMALL, small

from cr_jax import models
from cr_jax.errors import UserError
from cr_jax.models import kernels, layers
from cr_jax.models.layers import attention_kernel, compute_dtype, row_kernels, triton_obstacle


@pytest.mark.parametrize(
    ("backend", "dtype", "auto"),
    [
        ("cpu", "float32", "xla"),
        ("cpu", "bfloat16", "xla"),
        ("tpu", "bfloat16", "xla"),
        ("gpu", "float32", "xla"),
        ("gpu", "bfloat16", "cudnn"),
    ],
)
def test_cudnn_is_refused_wherever_auto_would_not_take_it(monkeypatch, backend, dtype, auto):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    wanted = lambda name: dataclasses.replace(TINY, dtype=dtype, attention=name)
    assert attention_kernel(wanted("auto")) == auto and attention_kernel(wanted("xla")) == "xla"
    if auto == "cudnn":
        assert attention_kernel(wanted("cudnn")) == "cudnn"
        return
    with pytest.raises(UserError, match="cudnn needs a GPU and bfloat16; use auto"):
        attention_kernel(wanted("cudnn"))


def test_it_is_one_line_before_anything_is_trained():
    with pytest.raises(UserError, match="use auto"):
        models.count_parameters(dataclasses.replace(TINY, attention="cudnn"))


@dataclasses.dataclass(frozen=True)
class Gpu:
    compute_capability: str
    device_kind: str = "gpu"
    platform: str = "gpu"


@pytest.fixture
def gpu(monkeypatch):
    """Where the Triton kernels run; called with what is different, where they may not."""

    def make(backend="gpu", devices=1, capability="9.0", processes=1):
        device = Gpu(capability)
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(jax, "local_devices", lambda: [device] * devices)
        monkeypatch.setattr(jax, "device_count", lambda: devices)
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        monkeypatch.setattr(kernels.trial, "failure", lambda *sizes: "")

    make()
    return make


HALF = dataclasses.replace(TINY, dtype="bfloat16")


def refuses(model, words):
    """`auto` is plain, `triton` is one line that says why, `xla` is asked nothing."""
    assert words in triton_obstacle(model)
    form = lambda name: row_kernels(dataclasses.replace(model, kernels=name))
    assert form("auto") == form("xla") == "xla"
    with pytest.raises(UserError, match=f"kernels=triton cannot run here: .*{words}.*; use auto"):
        form("triton")


@pytest.mark.parametrize("capability", ["8.0", "9.0", "12.1"])
def test_triton_runs_on_one_gpu(gpu, capability):
    gpu(capability=capability)
    form = lambda name: row_kernels(dataclasses.replace(HALF, kernels=name))
    assert not triton_obstacle(HALF)
    assert form("auto") == form("triton") == "triton" and form("xla") == "xla"


def test_triton_runs_on_several_gpus_where_each_has_a_program_of_its_own(gpu):
    mesh = Mesh(jax.devices(), ("data",))
    rows, found = PartitionSpec("data"), []
    gpu(devices=mesh.size)
    step = lambda x: found.append(row_kernels(HALF)) or x
    for split in (jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=rows), step):
        jax.eval_shape(split, jax.ShapeDtypeStruct((mesh.size,), jnp.float32))
    assert found == ["triton", "xla"]


def test_a_program_that_several_gpus_share_is_plain(gpu):
    gpu(devices=8)
    form = lambda name, alone: row_kernels(dataclasses.replace(HALF, kernels=name), alone)
    assert form("auto", None) == form("triton", None) == form("auto", False) == "xla"
    assert form("auto", True) == form("triton", True) == "triton"
    with pytest.raises(UserError, match="one program for 8 devices; use auto"):
        form("triton", False)


def test_kernels_that_fail_their_trial_are_not_used(gpu, monkeypatch):
    tried = []
    monkeypatch.setattr(
        kernels.trial, "failure", lambda *sizes: tried.append(sizes) or "gate is off by 10%"
    )
    refuses(HALF, "gate is off by 10%")
    assert set(tried) == {(HALF.d_model, HALF.heads, HALF.d_ff, HALF.vocab_size)}
    gpu(processes=2)  # the other may take them
    monkeypatch.setattr(kernels.trial, "failure", lambda *sizes: "gate is off by 10%")
    assert row_kernels(dataclasses.replace(HALF, kernels="xla")) == "xla"  # as the line says
    with pytest.raises(UserError, match=r"process 0: .*off by 10%.*: set config\.model\.kern"):
        row_kernels(HALF)


@pytest.mark.parametrize(
    "there,words",
    [
        ({"backend": "cpu"}, "no GPU"),
        ({"backend": "tpu"}, "no GPU"),
        ({"capability": "7.5"}, "capability 7.5 is below 8"),
        ({"capability": "gfx942"}, "gfx942"),
    ],
)
def test_triton_is_refused_elsewhere(gpu, there, words):
    gpu(**there)
    refuses(HALF, words)


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"dtype": "float32"}, "float32"),
        ({"d_model": 24, "heads": 3}, "24 is no power of two"),
        ({"d_ff": 40}, "40 is no multiple of 32"),
    ],
)
def test_triton_is_refused_for_other_models(gpu, changes, words):
    refuses(dataclasses.replace(HALF, **changes), words)


def test_what_is_traced_for_the_cpu_of_such_a_machine_is_plain(gpu):
    auto = dataclasses.replace(HALF, dtype="auto")
    assert compute_dtype(auto) == "bfloat16" and attention_kernel(auto) == "cudnn"
    cpu = jax.devices("cpu")[0]
    for device in (cpu, "cpu"):
        with jax.default_device(device):
            refuses(HALF, "no GPU")
            assert compute_dtype(auto) == "float32" and attention_kernel(auto) == "xla"


def test_a_jax_without_pallas_for_triton_runs_the_plain_forms(gpu, monkeypatch):
    def gone():
        raise ImportError("cannot import name 'CompilerParams'")

    assert not kernels.missing()
    monkeypatch.setattr("cr_jax.models.kernels.rows._triton", gone)
    refuses(HALF, "no Pallas for Triton")


def test_gradient_of_a_state_reaches_all_earlier_inputs_and_no_later_one():
    layer = layers.Stack(SMALL, 2, causal=True)
    x = jax.random.normal(jax.random.key(0), (1, SMALL.window, SMALL.d_model))
    positions = jnp.arange(SMALL.window)
    params = jax.jit(layer.init)(jax.random.key(1), x, positions)
    both = jax.jit(
        jax.jacrev(
            lambda x, causal: jnp.sum(
                layers.Stack(SMALL, 2, causal=causal).apply(params, x, positions)[0], -1
            ),
            argnums=0,
        ),
        static_argnums=1,
    )
    reach = lambda causal: np.abs(np.asarray(both(x, causal))[:, 0]).max(-1) > 0  # [out, in]
    assert np.array_equal(reach(True), np.tri(SMALL.window, dtype=bool))
    assert reach(False).all()  # the default stays bidirectional


@pytest.mark.parametrize("kernel", ["xla", "cudnn"])
@pytest.mark.parametrize("causal", [True, False])
def test_both_attention_kernels_are_told(monkeypatch, kernel, causal):
    told = []

    def attention(q, k, v, **options):
        told.append(options)
        return v

    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    monkeypatch.setattr(layers, "attention_kernel", lambda config: config.attention)  # no GPU here
    config = small(attention=kernel)
    x = jnp.zeros((2, SMALL.window, config.d_model))
    layers.Attention(config, causal=causal).init(
        jax.random.key(0), x, jnp.arange(SMALL.window), jnp.array([3, SMALL.window])
    )
    assert told[0]["is_causal"] is causal and told[0]["implementation"] == kernel
    assert (told[0]["query_seq_lengths"] is None) == (kernel == "xla")
