"""Scalars of a run: TensorBoard event files, one JSON object a line, and who else is told."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from absl import logging


@runtime_checkable
class Listener(Protocol):
    """Who else is told: `MetricWriter`'s own two methods, which raise nothing."""

    def write(self, step: int, expert: str, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricWriter:
    """Appends to FOLDER/metrics.jsonl and FOLDER/events.*; only process 0 should make one.

    Lines of steps after `resume_step` are dropped first: a resumed run writes them again.
    listener: is told the same, such as `wandb_writer.WandbWriter`.
    """

    def __init__(self, folder: Path, resume_step: int = 0, listener: Listener | None = None):
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._listener = folder / "metrics.jsonl", listener
        kept = [line for line in read_metrics(self._path) if line["step"] <= resume_step]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder), purge_step=resume_step + 1)
        events = self._board.file_writer.event_writer
        events._ev_writer = events._worker._record_writer = _Patient(events._ev_writer)

    def write(self, step: int, expert: str, values: Mapping[str, float]) -> None:
        """`values` of one expert at `step`."""
        self._file.write(json.dumps({"step": step, "expert": expert, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{expert}/{name}", value, step)
        if self._listener is not None:
            self._listener.write(step, expert, values)

    def close(self) -> None:
        self._file.close()
        self._board.close()
        if self._listener is not None:
            self._listener.close()


class _Patient:
    """TensorBoard's file, which may fail: metrics.jsonl is the record, and fails aloud.

    tensorboardX writes in a thread that an error would end; its queue would then fill, and training
    wait for it for ever.
    """

    def __init__(self, writer):
        self._writer = writer

    def write_event(self, event) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_event(event)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl, {"step": int, "expert": str, figure: number, ...}."""
    return read_lines(path, _is_of_metrics)


def read_lines(path: Path, good: Callable[[Any], bool] = lambda line: True) -> list[dict]:
    """The JSON objects in a file of one a line; none where there is no file.

    What else it holds is left out: a line cut off by a kill, and what a disk or a hand made of
    others, or is not `good`, of which a warning tells.
    """
    if not path.exists():
        return []
    found, damaged = [], 0
    for row in path.read_bytes().split(b"\n")[:-1]:
        try:
            line = json.loads(row)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and good(line):
            found.append(line)
        else:
            damaged += 1
    if damaged:
        logging.warning("%d damaged lines of %s are left out", damaged, path)
    return found


def _is_of_metrics(line: dict) -> bool:
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    return (
        isinstance(line.get("expert"), str)
        and type(line.get("step")) is int
        and all(number(value) for key, value in line.items() if key != "expert")
    )
