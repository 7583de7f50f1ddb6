"""Real runs of main.py as children: started, watched, killed and compared."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.torture.tiny import write_text

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "benchmarks" / "torture" / "tiny.py"
PATIENCE = 180.0  # seconds after which a child counts as hung
_COMPLAINT = re.compile(r"error: |Traceback|  File |[WEF]\d{4} |WARNING|\w*Error\b|\*\*\*")


class Place:
    """A temporary folder with the text; every workdir below it shares one compile cache."""

    def __init__(self, folder: Path, compiled: Path | None = None):
        self.folder, self.text = folder, folder / "text"
        self.compiled = compiled or folder / "compiled"
        write_text(self.text)

    def workdir(self, name: str) -> Path:
        """A new workdir's path."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A `Place` that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        yield Place(Path(folder).resolve())


class Run:
    """One child.  `output` is a file beside its workdir with both of its streams."""

    def __init__(
        self,
        where: Place,
        workdir: Path,
        settings: Mapping[str, object],
        program: Sequence[str] = ("main.py",),
        devices: int = 1,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        **options,
    ):
        self.workdir = workdir
        self.output = where.folder / f"{workdir.name}.{time.monotonic_ns()}.log"
        command = [
            sys.executable,
            *program,
            f"--config={CONFIG}",
            f"--workdir={workdir}",
            f"--config.data.root={where.text}",
            *(f"--config.{k}={v}" for k, v in settings.items()),
            *arguments,
        ]
        # Through a pipe: a limit on the size of the child's files must not cut what it says.
        self.child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **environment(devices),
                "JAX_COMPILATION_CACHE_DIR": str(where.compiled),
                **(variables or {}),
            },
            start_new_session=True,
            **options,
        )
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def _copy(self) -> None:
        with self.output.open("wb") as file, self.child.stdout as pipe:
            shutil.copyfileobj(pipe, file)

    def wait(self) -> int:
        """The exit status; -signal after a signal.  TimeoutError when it hangs."""
        try:
            status = self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"a run hung: {self.last_lines(3)}") from None
        self._reader.join()
        return status

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self._reader.join()

    def until(self, step: int) -> bool:
        """Waits until a step of at least `step` is sealed; False when the run ended before."""
        end = time.monotonic() + PATIENCE
        while newest(self.workdir) < step:
            if self.child.poll() is not None:
                return newest(self.workdir) >= step
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"step {step} was not saved: {self.last_lines(3)}")
            time.sleep(0.005)
        return True

    def last_lines(self, count: int) -> list[str]:
        return self.lines()[-count:]

    def lines(self) -> list[str]:
        """What the child said, without progress bars."""
        text = self.output.read_text("utf-8", "replace").replace("\r", "\n")
        return [
            x for x in text.splitlines() if x.strip() and not re.match(r"(train|evaluate)[ :]", x)
        ]

    def complaints(self) -> list[str]:
        """Lines that warn or complain, or are of a traceback."""
        return [x for x in self.lines() if _COMPLAINT.match(x)]


def environment(devices: int = 1) -> dict[str, str]:
    """Of a child: CPU, so many fake devices, no more compiling than it needs."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return {
        **kept,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        # XLA's own caches put the workdir's path into every key of the shared compile cache.
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }


def newest(workdir: Path) -> int:
    """The newest sealed step, 0 when there is none."""
    return max(sealed(workdir), default=0)


def sealed(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(p.stem) for p in folder.glob("*.json") if p.stem.isdecimal())


def unfinished(workdir: Path) -> list[str]:
    """What a kill left in the middle: names in checkpoints/ that are neither seal nor sealed."""
    steps = {str(s) for s in sealed(workdir)}
    return [
        p.name
        for p in (workdir / "checkpoints").glob("*")
        if p.name.removesuffix(".json") not in steps
    ]


def weights(workdir: Path) -> dict[str, bytes]:
    """The final parameters: every expert's params.safetensors, byte for byte."""
    found = {
        p.parent.name: p.read_bytes()
        for p in (workdir / "bank" / "experts").glob("*/params.safetensors")
    }
    if not found:
        raise RuntimeError("a run left no bank")
    return found


def logged(workdir: Path) -> int:
    """The last step that metrics.jsonl tells of, 0 when there is none."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [x for x in lines if x.endswith("\n")]  # a kill cuts the last line short
    return json.loads(whole[-1])["step"] if whole else 0


def curve(workdir: Path) -> list[tuple]:
    """(step, expert, nll, gradient norm) of every line of metrics.jsonl, in its order."""
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(x["step"], x["expert"], x["nll"], x["gradient_norm"]) for x in lines]


def same(workdir: Path, other: Path) -> bool:
    """Whether two runs ended with the same parameters and logged the same figures, bit for bit."""
    return weights(workdir) == weights(other) and curve(workdir) == curve(other)


def joined(count: int) -> list[list[str]]:
    """The flags that make `count` processes one run; for one process none."""
    if count == 1:
        return [[]]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return [
        [f"--coordinator=localhost:{port}", f"--processes={count}", f"--process={i}"]
        for i in range(count)
    ]


def limit_file_size(child: subprocess.Popen, size: int) -> None:
    """From now on no file of the child grows past `size` bytes; a negative size lifts it."""
    size = resource.RLIM_INFINITY if size < 0 else size
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
