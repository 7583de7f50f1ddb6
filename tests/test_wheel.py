"""The wheel that `make test-wheel` built routes and trains without a checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WHEEL = os.environ.get("CR_JAX_WHEEL", "")
# Nothing of the checkout is found by its path, and one device will do.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
pytestmark = pytest.mark.skipif(not WHEEL, reason="CR_JAX_WHEEL names no wheel: make test-wheel")
TINY = """
from cr_jax.config import default, domain


def get_config():
    config = default()
    config.data.domains = {"math": domain(["samples/math"], ["samples/math"], ["samples/math"])}
    config.data.count_overlap = False
    config.tokenizer.kind = "bytes"
    config.model.update(window=16, latents=4, d_model=16, d_latent=16, heads=2, d_ff=24)
    config.model.update(encoder_blocks=0, decoder_blocks=0)
    config.train.update(steps=2, batch=4)
    config.eval.update(windows=16, calibration_windows=40, calibration_documents=0)
    return config
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A virtual environment with the wheel; the packages that it needs are those of the tests."""
    place = tmp_path_factory.mktemp("wheel")
    venv = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", Path(WHEEL).resolve()],
        cwd=place,
        env=ENVIRONMENT,
        check=True,
    )
    site = next((venv / "lib").glob("python*/site-packages"))
    # A folder that is named in a .pth file brings its packages, but not its own .pth files, and so
    # not the checkout that is installed there in editable form.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def run(place, *words):
    done = subprocess.run(
        [place / "venv" / "bin" / "cr-jax", *map(str, words)],
        text=True,
        capture_output=True,
        cwd=place,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_not_the_checkout(place):
    code = "import cr_jax; print(cr_jax.__file__)"
    done = subprocess.run(
        [place / "venv" / "bin" / "python", "-P", "-c", code],
        text=True,
        capture_output=True,
        cwd=place,
        env=ENVIRONMENT,
    )
    assert done.stdout.startswith(str(place / "venv")), done.stdout + done.stderr


def test_it_holds_what_the_checkout_holds():
    names = set(zipfile.ZipFile(WHEEL).namelist())
    for folder in ("configs", "colabs"):
        own = {f"cr_jax/{folder}/{path.name}" for path in (ROOT / folder).glob("*.[ip]*y*")}
        assert own and own <= names
    tracked = subprocess.run(
        ["git", "ls-files", "cr_jax"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert set(tracked.stdout.split()) <= names


def test_it_routes_first_thing(place):
    assert run(place, "route", ROOT / "cr_jax" / "router.py").split()[1] == "python"
    assert "10 experts" in run(place, "bank", "list")


def test_it_trains(place):
    """The files of `configs/` are found, and a run of a file of one's own makes a bank."""
    check = ("train", "--config=configs/modular.py:twenty", "--workdir=none", "--check")
    assert "flags and settings are in order" in run(place, *check)
    assert not (place / "none").exists()
    (place / "tiny.py").write_text(TINY)
    run(place, "train", "--config=tiny.py", "--workdir=run")
    assert (place / "run" / "report.html").is_file()
    assert "1 experts" in run(place, "bank", "list", "--bank", "run/bank")
    assert "cr-jax train --config=tiny.py" in (place / "run" / "report.json").read_text()
