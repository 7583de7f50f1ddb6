"""One-bit flips, truncated and missing files: all noticed, training falls back to the step before.

The flips are made in place on what a real main.py run left, restored by the same class that
training uses, and taken back; a few are also shown to main.py itself.
"""

import contextlib
import io
import logging
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from benchmarks.torture import runs, tiny
from cr_jax import cli
from cr_jax.bank import ExpertBank
from cr_jax.config import build
from cr_jax.errors import UserError
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state

STEPS = 6


def run(
    checkpoint_flips: int, bank_flips: int, megabytes: int, restarts: bool = True, seed: int = 0
) -> dict:
    """-> figures: flips, flips_detected, by kind, and the cost of checking.

    megabytes: size of the checkpoint on which the check is timed; restarts: also damage the
    workdir of main.py and start it again.
    """
    chance = random.Random(seed)
    with runs.place() as where:
        workdir = where.workdir("run")
        if runs.Run(where, workdir, {"train.steps": STEPS}).wait():
            raise RuntimeError("an undisturbed run failed")
        found = {
            "checkpoint": _checkpoint(workdir / "checkpoints", checkpoint_flips, chance),
            "bank": _bank(workdir / "bank", bank_flips, chance),
            "cost": cost(where.folder / "timed", megabytes),
        }
        if restarts:
            found["restarts"] = _restarts(where, workdir)
    parts = [found["checkpoint"], found["bank"]]
    return {
        "flips": sum(p["flips"] for p in parts),
        "flips_detected": sum(p["detected"] for p in parts),
        **found,
    }


def _checkpoint(folder: Path, count: int, chance: random.Random) -> dict:
    """Flips in the newest step's files and its seal; the step before must come back, in one
    line."""
    old, new = (int(p.stem) for p in sorted(folder.glob("*.json"), key=lambda p: int(p.stem)))
    like, files = _like(), _files(folder / str(new)) + [folder / f"{new}.json"]

    def found() -> tuple[int, str, list[str]]:
        checkpointer = Checkpointer(folder)
        try:
            with _warnings() as lines:
                step, state, *_ = checkpointer.restore(like)
            return step, _digest(state), lines
        finally:
            checkpointer.close()

    assert found()[::2] == (new, [])
    shutil.move(folder / f"{new}.json", folder / "aside")
    before = found()
    shutil.move(folder / "aside", folder / f"{new}.json")

    def detected() -> bool:
        step, digest, lines = found()
        return (step, digest) == before[:2] and len(lines) == 1

    figures = _flip_all(files, count, chance, detected)
    figures["cut"] = [
        _changed(path, detected, path.read_bytes()[:-1]) for path in files if path.stat().st_size
    ]
    figures["missing"] = [_changed(path, detected, None) for path in files]
    for kind in ("cut", "missing"):
        # Without its seal a step was never finished: no warning is due, see the test beside.
        results = figures[kind][:-1] if kind == "missing" else figures[kind]
        figures[kind], figures[f"{kind}_detected"] = len(results), sum(results)
    assert found()[0] == new and old == before[0]
    return figures


def _bank(folder: Path, count: int, chance: random.Random) -> dict:
    """Flips in every file of a bank: loading refuses in one line, `cr-jax bank verify` names it."""
    files = _files(folder)

    def detected() -> bool:
        try:
            ExpertBank.load(folder)
        except UserError as error:
            if "\n" in str(error):
                return False
        else:
            return False
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(["bank", "verify", "--bank", str(folder)])
        return status == 2 and "Traceback" not in err.getvalue() and bool(err.getvalue())

    assert not detected()
    figures = _flip_all(files, count, chance, detected)
    for kind, wrong in (("cut", lambda raw: raw[:-1]), ("missing", lambda raw: None)):
        results = [_changed(p, detected, wrong(p.read_bytes())) for p in files]
        figures[kind], figures[f"{kind}_detected"] = len(results), sum(results)
    assert not detected()
    return figures


def _flip_all(files: list[Path], count: int, chance: random.Random, detected) -> dict:
    """Every second bit is drawn from all bits, the others from a file drawn first: small files
    count too."""
    files = [p for p in files if p.stat().st_size]
    sizes = [p.stat().st_size for p in files]
    missed, touched = [], set()
    for number in range(count):
        path = chance.choices(files, sizes)[0] if number % 2 else chance.choice(files)
        raw = bytearray(path.read_bytes())
        place, bit = chance.randrange(len(raw)), chance.randrange(8)
        raw[place] ^= 1 << bit
        if not _changed(path, detected, bytes(raw)):
            missed.append(f"{path.name} byte {place} bit {bit}")
        touched.add(path)
    return {
        "flips": count,
        "detected": count - len(missed),
        "files": len(files),
        "files_touched": len(touched),
        "missed": missed,
    }


def _changed(path: Path, detected, raw: bytes | None) -> bool:
    """What `detected()` says while the file holds `raw` (None: is gone)."""
    good = path.read_bytes()
    try:
        path.unlink() if raw is None else path.write_bytes(raw)
        return detected()
    finally:
        path.write_bytes(good)


def _restarts(where, workdir: Path) -> dict:
    """main.py itself after a flip, a cut and a missing file: one warning line, the same weights."""
    good, found = runs.weights(workdir), {}
    folder = workdir / "checkpoints"
    for kind in ("flipped", "cut", "missing"):
        path = max(_files(folder / str(runs.newest(workdir))), key=lambda p: p.stat().st_size)
        raw = bytearray(path.read_bytes())
        if kind == "missing":
            path.unlink()
        else:
            raw[len(raw) // 2] ^= 1
            path.write_bytes(raw if kind == "flipped" else raw[:-1])
        child = runs.Run(where, workdir, {"train.steps": STEPS})
        ended, lines = child.wait(), child.complaints()
        found[kind] = (
            ended == 0
            and len(lines) == 1
            and "is damaged" in lines[0]
            and runs.weights(workdir) == good
        )
    return found


def cost(folder: Path, megabytes: int) -> dict:
    """Checking a checkpoint of that size against restoring it, from the page cache."""
    state = {
        f"w{i}": np.random.default_rng(i).normal(size=(megabytes, 1 << 15)).astype(np.float32)
        for i in range(8)
    }
    checkpointer = Checkpointer(folder)
    checkpointer.save(1, state, {}, {})
    checkpointer.wait()
    size = sum(p.stat().st_size for p in _files(folder))
    began = time.perf_counter()
    assert not checkpointer._damage(1)
    checked = time.perf_counter() - began
    began = time.perf_counter()
    checkpointer.restore(state)
    restored = time.perf_counter() - began
    checkpointer.close()
    shutil.rmtree(folder)
    return {
        "megabytes": round(size / 1e6),
        "check_mb_per_s": round(size / checked / 1e6),
        "check_seconds": round(checked, 3),
        "check_and_restore_seconds": round(restored, 3),
    }


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _like():
    """The shapes of the run's state, as zeros."""
    e = build(tiny.get_config())
    make = lambda key: init_state(CompressorLoss(e.model, e.train), e.optimizer, key)
    shapes = jax.eval_shape(jax.vmap(make), jax.random.split(jax.random.key(0), len(tiny.LETTERS)))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _digest(state) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings of cr_jax, not those of Orbax."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record):
            if record.levelno >= logging.WARNING and "/cr_jax/" in record.pathname:
                lines.append(record.getMessage())

    keep, logger = Keep(), logging.getLogger("absl")
    logger.addHandler(keep)
    try:
        yield lines
    finally:
        logger.removeHandler(keep)
