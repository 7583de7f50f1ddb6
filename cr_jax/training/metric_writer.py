"""Scalars of a run: TensorBoard event files and one JSON object a line."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path


class MetricWriter:
    """Appends to FOLDER/metrics.jsonl and FOLDER/events.*; only process 0 should make one.

    Lines of steps after `resume_step` are dropped first: a resumed run writes them again.
    """

    def __init__(self, folder: Path, resume_step: int = 0):
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        kept = [line for line in read_lines(self._path) if line["step"] <= resume_step]
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

    def close(self) -> None:
        self._file.close()
        self._board.close()


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


def read_lines(path: Path) -> list[dict]:
    """All complete lines of a metrics.jsonl; a line cut off by a kill is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
    return lines
