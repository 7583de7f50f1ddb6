"""Several processes as one run: how they find each other, take turns and leave.

`start` joins them, from flags (`main.py --coordinator=HOST:PORT --processes=N --process=I`) or
from SLURM's or a TPU pod's own variables.  Process 0 owns the workdir; the others read.  Not in
the paper.
"""

import contextlib
import ctypes
import dataclasses
import glob
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from cr_jax.errors import UserError, lost_peer

LOST = 75  # exit status when another process is gone; "try again" of sysexits.h
T = TypeVar("T")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
_started = threading.Event()  # this process is, or tried to become, one of several
_told = threading.Lock()  # taken by the thread that tells of a lost process


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Who takes part.  All at their defaults: found in the environment, else one process."""

    coordinator: str = ""  # HOST:PORT of process 0, reachable from all
    processes: int = 0
    process: int = -1  # this one, from 0
    connect_seconds: float = 300.0  # how long to wait for the others

    @property
    def named(self) -> bool:
        return bool(self.coordinator) or self.processes > 0 or self.process >= 0


def start(cluster: Cluster | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Joins the processes of this run; call it before JAX touches a device.

    Does nothing for a single process.  Raises `UserError` for flags that do not fit together, a
    coordinator that cannot be reached and processes that do not come in time.  From then on a
    process that is lost ends the others with one line and status `LOST`: at once when its
    connections close, else within JAX's heartbeat of 100 s.
    """
    cluster = cluster or Cluster()
    if cluster.named:
        host, port = _check(cluster)
        if cluster.processes == 1:
            return
        began = time.monotonic()
        if cluster.process == 0:
            _need_free(port)  # JAX's own service crashes on a port in use
        else:
            _reach(host, port, cluster.connect_seconds)
        left = cluster.connect_seconds - (time.monotonic() - began)
        # "deactivate": flags are the whole truth, also inside a SLURM job.
        _join(
            cluster,
            max(1.0, left),
            coordinator_address=cluster.coordinator,
            coordinator_bind_address=bind_address(host, port) if cluster.process == 0 else None,
            num_processes=cluster.processes,
            process_id=cluster.process,
            cluster_detection_method="deactivate",
        )
    elif _in_slurm(environ) or _on_tpu(environ):
        _join(cluster, cluster.connect_seconds)
    else:
        return
    sys.excepthook = _crash


def is_first() -> bool:
    """Whether this process writes what only one may write."""
    return jax.process_index() == 0


def in_turn(make: Callable[[], T]) -> T:
    """Process 0 calls `make` while the others wait; then they call it too.  -> each its own value.

    A failure of process 0 ends the others with a `UserError` that points to it.
    """
    if jax.process_count() == 1:
        return make()
    if is_first():
        try:
            made = make()
        except BaseException:
            _all_agree(False)
            raise
        _all_agree(True)
        return made
    if not _all_agree(True):
        raise UserError("process 0 could not prepare the run; see its message")
    return make()


def from_first(make: Callable[[], T]) -> T:
    """What process 0's `make` returns, JSON types, on every process; the others do not call it.

    A failure of process 0 ends the others with a `UserError` that points to it.
    """
    if jax.process_count() == 1:
        return make()
    if not is_first():
        data = _sent(b"")
        if not data:
            raise UserError("process 0 could not prepare the run; see its message")
        return json.loads(data)
    try:
        data = json.dumps(make()).encode()
    except BaseException:
        _sent(b"")
        raise
    return json.loads(_sent(data))


def all_true(good: bool) -> bool:
    """Whether it is so on every process; also a meeting point."""
    if jax.process_count() == 1:
        return good
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.int32(good))))


def gathered(tree: Any) -> Any:
    """numpy arrays [P, ...] of all P processes; every one calls it with arrays of these shapes."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree)


def wait(name: str) -> None:
    """Until every process is here.  `name` says where, and is the same on all."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def leave(status: int) -> None:
    """Ends a failed process of several at once with `status`; returns when there is nothing to do.

    Exit handlers would wait minutes for peers that wait in a collective for this process.
    """
    if status and _started.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _check(cluster: Cluster) -> tuple[str, int]:
    host, _, port = cluster.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f"--coordinator={cluster.coordinator} must be HOST:PORT of process 0, with "
            "--processes=N and --process=I"
        )
    if cluster.processes < 1:
        raise UserError(f"--processes={cluster.processes} must be the number of all processes")
    if not 0 <= cluster.process < cluster.processes:
        raise UserError(
            f"--process={cluster.process} must be one of 0 to {cluster.processes - 1}, "
            "another for each process"
        )
    return host.strip("[]"), int(port)


def bind_address(host: str, port: int) -> str | None:
    """Where process 0's service listens: at the address that --coordinator names, and no other.

    Whoever reaches that port can end the run.  None, all addresses, where the name's address is
    that of a translator in between and so none of this machine's.
    """
    with contextlib.suppress(OSError):
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, _, _, _, place in sorted(addresses, key=lambda x: x[0] != socket.AF_INET):
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                return f"[{place[0]}]:{port}" if family == socket.AF_INET6 else f"{place[0]}:{port}"
    return None


def _need_free(port: int) -> None:
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            probe = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # a host without this family
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno != 99:  # EADDRNOTAVAIL: the family is switched off
                    raise UserError(
                        f"port {port} of --coordinator cannot be used here "
                        f"({error.strerror}); choose another port"
                    ) from None


def _reach(host: str, port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=max(0.1, min(5.0, seconds))).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"no process 0 at --coordinator={host}:{port} within {seconds:g} s "
                    f"({error.strerror or error}); start it, and check the address and firewall"
                ) from None
        time.sleep(min(0.2, seconds))


def _join(cluster: Cluster, seconds: float, **arguments) -> None:
    """`jax.distributed.initialize`, given up after `seconds`.

    JAX aborts the process with a C++ trace when its own time is up, so it gets more than we wait.
    """
    failed: list[BaseException] = []

    def call():
        try:
            jax.distributed.initialize(**arguments, initialization_timeout=int(seconds) + 3600)
        except BaseException as error:
            failed.append(error)

    _started.set()
    _hear_abort()
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise UserError(
            f"not all {cluster.processes or ''} processes joined within "
            f"{cluster.connect_seconds:g} s; start every one with the same "
            "--coordinator and --processes".replace("  ", " ")
        )
    if failed:
        if not cluster.named and isinstance(failed[0], ValueError):
            _started.clear()
            return  # no pod after all: one machine with a TPU
        text = (str(failed[0]).splitlines() or [type(failed[0]).__name__])[0][:200]
        raise UserError(f"cannot join the other processes: {text}")
    if threading.current_thread() is threading.main_thread():
        # JAX's preemption service has taken the signal, and would swallow it until training begins.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_slurm(environ: Mapping[str, str]) -> bool:
    """Inside `srun` with more than one task; the batch script itself is no task."""
    return all(name in environ for name in _SLURM) and environ.get("SLURM_NTASKS", "1") not in (
        "",
        "1",
    )


def _on_tpu(environ: Mapping[str, str]) -> bool:
    """Where JAX can ask a TPU VM for its pod.  The answer may still be: one process."""
    if environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    if "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _all_agree(good: bool) -> bool:
    """Process 0's answer, on every process; also a meeting point."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.int32(good)))


def _sent(data: bytes) -> bytes:
    """Process 0's bytes, on every process."""
    from jax.experimental import multihost_utils

    send = multihost_utils.broadcast_one_to_all
    size = int(send(np.int32(len(data))))
    raw = np.zeros(size, np.uint8)
    if is_first():
        raw[:] = np.frombuffer(data, np.uint8)
    return np.asarray(send(raw), np.uint8).tobytes() if size else b""


def _crash(kind, value, trace) -> None:
    reason = lost_peer(value)
    if reason:
        _end_without_peer(f"another process of this run is gone ({reason})")
    sys.__excepthook__(kind, value, trace)
    leave(1)


def _end_without_peer(what: str) -> NoReturn:
    """One line, status `LOST`; of two threads that notice only the first one speaks."""
    if _told.acquire(blocking=False):
        line = (
            f"error: {what}; start all processes again with the same command: the run goes on "
            "from its newest checkpoint\n"
        )
        with contextlib.suppress(OSError):  # stderr may be gone as well
            # Past Python's buffers, whose locks another thread may hold.
            os.write(2, line.encode("utf-8", "backslashreplace"))
        os._exit(LOST)
    while True:
        time.sleep(1)


def _hear_abort() -> None:
    """JAX's heartbeat thread ends a process without its peers by abort(), behind a C++ stack.

    Python's own signal handlers run too late for that: abort() ends the process when the C handler
    returns.
    """

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def heard(number):
        _end_without_peer(
            "this process was aborted, most likely because another one of this run "
            "is gone (see the lines above)"
        )

    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(heard, ctypes.c_void_p))
    _hear_abort.kept = heard  # C does not count references
