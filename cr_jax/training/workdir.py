"""A run's folder: one run at a time, writable, and what it was made by."""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cr_jax.config import OptimizerConfig, TrainConfig, completed, to_dict
from cr_jax.errors import UserError
from cr_jax.host.files import expanded
from cr_jax.host.inside import Inside
from cr_jax.host.locks import exclusive
from cr_jax.training.step_files import numbers

LONGEST = 300  # bytes of the longest name of a file below a workdir, of a checkpoint or a cache


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[Path]:
    """Creates the folder and holds its lock; yields the absolute path.

    Raises `UserError` when it cannot be written or another run holds it.
    """
    if not os.fspath(path):  # Path would take it for the folder that we are in
        raise UserError("--workdir is empty: name a folder for the run")
    with contextlib.ExitStack() as stack:
        try:
            folder = expanded(path).resolve()
            _check_name(path, folder)
            folder.mkdir(parents=True, exist_ok=True)
            inside = stack.enter_context(Inside.at(folder))
            lock = exclusive(inside, 0.0, f"another run is using --workdir={path}")
            stack.enter_context(lock)
        except UserError:  # is a ValueError too
            raise
        except (OSError, ValueError, RuntimeError) as error:  # also links that lead in a circle
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"--workdir={path} cannot be made or cannot be written "
                f"({reason}); choose a folder where you may write"
            ) from None
        yield folder


def check_in_place(folder: Inside) -> None:
    """`UserError` when the path of a run's folder no longer leads to it: another run may have begun
    in a folder of the old name."""
    if not folder.still_there():
        raise UserError(
            f"{folder.path} was moved or replaced while the run went on: what it saved is in the "
            "folder that was there; run the same command with that folder's new name"
        )


def _check_name(given: str | os.PathLike, folder: Path) -> None:
    """`UserError` for a name that is no UTF-8, which JAX needs, and where the names of files below
    `folder` would be longer than the system takes.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"--workdir={str(given)!a} is not UTF-8: choose another name") from None
    start = next(p for p in (folder, *folder.parents) if os.path.isdir(p))
    most = os.pathconf(start, "PC_PATH_MAX")
    if len(os.fsencode(folder)) + LONGEST > most:
        raise UserError(
            f"--workdir={str(given)[:40]}... is too long: {len(os.fsencode(folder)):,} "
            f"of {most:,} bytes, of which files below it need {LONGEST}; choose a "
            "shorter one"
        )


def stored_record(folder: Path) -> dict | None:
    """What the newest checkpoint says of its run, before anything large is read.

    None where there is none or its bytes are not as they were sealed: restoring it tells why.
    """
    try:
        steps = numbers(
            name.removesuffix(".json")
            for name in os.listdir(folder / "checkpoints")
            if name.endswith(".json")
        )
        if not steps:
            return None
        place = folder / "checkpoints" / str(steps[-1])
        seal = json.loads(place.with_name(f"{place.name}.json").read_bytes())
        raw = (place / "record" / "metadata").read_bytes()
        whole = seal["record/metadata"] == hashlib.sha256(raw).hexdigest()
        return json.loads(raw) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def same_run(old: dict, new: dict) -> None:
    """A workdir belongs to one configuration; only its length, devices, logging and evaluation
    may change.
    """
    free = {
        "steps",
        "tokens",
        "seconds",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "profile",
        "wandb",
        "watchdog",
    }

    def strip(record):
        record = json.loads(json.dumps(record))  # a stored record has lists for tuples
        experiment = record["experiment"]
        data, tokenizer = experiment["data"], experiment["tokenizer"]
        # A setting that an older version did not have was at its default.
        full = lambda kind, given: {**to_dict(kind()), **given}
        train = full(TrainConfig, _without_gone(experiment["train"]))
        return {
            "model": completed(record["model"]),
            "experts": record["experts"],
            "window": record.get("window", record["model"].get("window")),
            # What a job leaves empty is at its default, as in a record that does not say.
            "job": {k: v for k, v in record.get("job", {}).items() if v},
            "train": {k: v for k, v in train.items() if k not in free},
            "optimizer": full(OptimizerConfig, experiment["optimizer"]),
            "seed": experiment["seed"],
            "data": {
                "mode": data["mode"],
                "max_train_tokens": data["max_train_tokens"],
                **{f"domains.{k}.train": v["train"] for k, v in data["domains"].items()},
            },
            "tokenizer": {k: tokenizer[k] for k in ("kind", "vocab_size")},
        }

    texts = old.get("texts", {})
    changed = [name for name, text in new["texts"].items() if texts.get(name, text) != text]
    old, new = strip(old), strip(new)
    for group in new:
        if old[group] != new[group]:
            fields = (
                [k for k in new[group] if old[group].get(k) != new[group][k]]
                if isinstance(new[group], dict)
                else []
            )
            raise UserError(
                f"the workdir holds a run with other settings ({group}"
                f"{': ' + ', '.join(fields) if fields else ''}); use a new --workdir"
            )
    if changed:
        raise UserError(
            f"the training text of {', '.join(changed)}, or the tokenizer, is not what "
            "the run in the workdir began with; restore it or use a new --workdir"
        )


def _without_gone(train: dict) -> dict:
    """Training settings without those that only older versions had, if they changed nothing."""
    # The share of windows with hidden tokens once moved from `hidden` to `hidden_final`.
    unused = {"ema": 0.0, "hidden_weight": 1.0, "hidden_final": train.get("hidden", 0.0)}
    for name, value in unused.items():
        if train.get(name, value) != value:
            raise UserError(
                f"the run in the workdir was trained with train.{name}={train[name]}, "
                "which this version no longer has; use a new --workdir"
            )
    return {k: v for k, v in train.items() if k not in unused}


def commit_of(checkout: Path) -> str:
    """Git's commit of a folder that is the top of a checkout, "-dirty" behind it where tracked
    files differ; "" for any other.

    A repository that merely encloses the folder, such as one that a virtual environment lies in,
    says nothing of it, and is not asked for more: `git status` runs what its settings name.
    """
    clean = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}
    git = lambda *words: subprocess.run(
        ["git", *words], cwd=checkout, capture_output=True, text=True, check=False, env=clean
    ).stdout.removesuffix("\n")
    try:
        top = git("rev-parse", "--show-toplevel")
        if not top or not os.path.samefile(top, checkout):
            return ""
        return git("rev-parse", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "-uno"))
    except OSError:
        return ""


def provenance() -> dict:
    """Commit, versions, devices and command of this run.

    The commit is that of the checkout which the package lies in, or, in a copy without git, what
    the variable CR_JAX_COMMIT says.
    """
    import importlib.metadata as metadata

    import jax

    commit = commit_of(Path(__file__).resolve().parents[2]) or os.environ.get("CR_JAX_COMMIT", "")
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "numpy")
    return {
        "commit": commit or "unknown",
        "command": " ".join(sys.argv if sys.argv[0] == "cr-jax train" else ["python", *sys.argv]),
        "versions": {
            "python": platform.python_version(),
            **{p: metadata.version(p) for p in packages},
        },
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
        "cpu_cores": os.cpu_count(),
    }
