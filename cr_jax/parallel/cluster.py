"""How the processes of one run find each other.

`start` joins them, from flags (`main.py --coordinator=HOST:PORT --processes=N --process=I`) or
from SLURM's or a TPU pod's own variables.  Not in the paper.
"""

import contextlib
import dataclasses
import glob
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping

import jax

from cr_jax.errors import UserError
from cr_jax.parallel import ending

SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")


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
    process that is lost ends the others with one line and status `ending.LOST`: at once when its
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
    sys.excepthook = ending.crash


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

    ending.started.set()
    ending.hear_abort()
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
            ending.started.clear()
            return  # no pod after all: one machine with a TPU
        text = (str(failed[0]).splitlines() or [type(failed[0]).__name__])[0][:200]
        raise UserError(f"cannot join the other processes: {text}")
    if threading.current_thread() is threading.main_thread():
        # JAX's preemption service has taken the signal, and would swallow it until training begins.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_slurm(environ: Mapping[str, str]) -> bool:
    """Inside `srun` with more than one task; the batch script itself is no task."""
    return all(name in environ for name in SLURM) and environ.get("SLURM_NTASKS", "1") not in (
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
