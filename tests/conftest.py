# ruff: noqa: E402 (the environment comes before the imports that read it)
"""Strict numerics and types for every test; set before JAX and the package are imported.

- eight devices, so that every way to split a step can be tested without an accelerator
- rank promotion raises: a missing [None] is an error here, not a wrong sum
- dtype promotion is strict: a type that mixes with another is cast where a reader sees it
- every shape in an annotation of `cr_jax` is checked at each call
- a warning is an error (`filterwarnings` in pyproject.toml names the exceptions)
"""

import functools
import gc
import os
import pathlib
import pkgutil
import sys
import tempfile

# Tracing makes many objects that live on: to look through all of them as often as Python does by
# default is a tenth of the suite's time.
gc.set_threshold(200_000, 50, 100)

DEVICES = 8
_here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(_here / "fixtures"))
import lanes
import quick_xla

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={DEVICES}",
        quick_xla.FLAGS,
    ]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Two test processes on two cores: OpenMP threads that spin for each other cost half a minute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# JAX counts its cache's folder among XLA's flags, and takes a program of another folder for another
# one: runs in folders of their own, here and in processes that tests start, would compile it again.
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")

import checked
import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
_attend = jax.nn.dot_product_attention


@functools.wraps(_attend)
def _attention(*args, **options):
    """JAX's own attention, which takes the sums of half precision in float32 without a cast."""
    with jax.numpy_dtype_promotion("standard"):
        return _attend(*args, **options)


jax.nn.dot_product_attention = _attention
# LLVM's passes cost more time on tiny models than they save; they change sums in the last bits,
# so equalities between programs are stated with a tolerance, and between runs of one program not.
jax.config.update("jax_disable_most_optimizations", True)
# Most of the suite's time is compilation, and many tests compile the same program.
CACHE = pathlib.Path(tempfile.gettempdir(), f"cr_jax-tests-{os.getuid()}")
CACHE.mkdir(mode=0o700, exist_ok=True)
assert CACHE.stat().st_uid == os.getuid(), (
    f"{CACHE} is somebody else's; JAX would run what is in it"
)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)  # of processes that tests start, too
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
if not flags.FLAGS.is_parsed():
    flags.FLAGS(["pytest"])  # Grain reads absl's flags

# A process that a test starts would parse the package anew where Python may not write beside it.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = str(CACHE / "python")

# All packages but the report, which takes no arrays and whose many small calls would cost a minute.
checked.lay_over(
    [
        f"cr_jax.{m.name}"
        for m in pkgutil.iter_modules([str(_here.parent / "cr_jax")])
        if m.name != "report"
    ]
)


def pytest_collection_modifyitems(items):
    for item in items:
        place = item.path.relative_to(_here).as_posix()
        if place.startswith(lanes.SLOW) or item.originalname in lanes.SLOW_TESTS.get(place, ()):
            item.add_marker(pytest.mark.slow)
    # The long ones first: a process that is given one last would end alone.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _own_jax_settings():
    """What a test, or the application under test, sets in JAX's configuration ends with it."""
    yield
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """Drops compiled programs before they exhaust the memory maps that Linux allows a process.

    A program takes about five maps and Linux allows 65,530; beyond, XLA crashes while it loads the
    next program.  Programs that are needed again come from the compilation cache.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")  # Linux alone
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def one_device():
    from one_device import one_device  # after JAX has been set up, and for those alone who ask

    with one_device():
        yield


@pytest.fixture(scope="session", autouse=True)
def _devices():
    assert jax.device_count() == DEVICES, "something started JAX before tests/conftest.py"
    jax.jit(lambda x: x + 1)(1)  # JAX opens its cache once: here, and not in a test's folder
