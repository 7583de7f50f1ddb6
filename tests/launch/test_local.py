"""The launcher of one machine, and joining: what goes wrong is said in one line and leaves nothing
behind.  Processes that train: test_meshes.py.
"""

import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import time

import pytest
from local_launch import CONFIG, ENVIRONMENT, LOCAL, call

from cr_jax.errors import UserError
from cr_jax.experiment import run
from cr_jax.parallel import cluster as clusters
from cr_jax.parallel import ending, processes

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


def test_a_failure_of_all_is_one_clear_line_and_its_status(config, tmp_path):
    done = call(
        LOCAL,
        "--processes=2",
        "--on=cpu",
        f"--config={config}",
        f"--workdir={tmp_path / 'w'}",
        "--config.train.batch=7",
    )
    assert done.returncode == 2
    assert "error: config.train.batch=7 must be a multiple of the 2 devices" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_while_process_0_prepares_ends_the_others(config, tmp_path):
    done = call(
        LOCAL,
        "--processes=2",
        "--on=cpu",
        f"--config={config}",
        f"--workdir={tmp_path / 'w'}",
        "--config.tokenizer.folder=nowhere",
    )
    assert done.returncode == 2
    told = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert len(told) == 1 and "nowhere" in told[0], done.stderr
    assert not (tmp_path / "w" / "checkpoints").exists()


# The launcher, with a program in the place of main.py


@pytest.fixture
def launcher(tmp_path):
    """launcher(body): a copy of the launcher, less patient, beside a main.py that knows its number
    `me`.
    """
    (tmp_path / "launch").mkdir()
    program = pathlib.Path(LOCAL).read_text()
    assert program.count("\nGRACE = 5.0 ") == 1
    # Those that never end by themselves are waited for that long.
    (tmp_path / "launch" / "local.py").write_text(program.replace("GRACE = 5.0", "GRACE = 0.5"))

    def make(body):
        (tmp_path / "main.py").write_text(
            "import os, signal, sys, time\n"
            "if '--check' in sys.argv: sys.exit(0)\n"
            "me = int([a for a in sys.argv if a.startswith('--process=')][0][10:])\n"
            f"open(f'pid{{me}}', 'w').write(str(os.getpid()))\n{body}\n"
        )
        return [
            sys.executable,
            str(tmp_path / "launch" / "local.py"),
            "--processes=3",
            "--on=cpu",
            "--config=c.py",
            "--workdir=w",
        ]

    return make


def alive(tmp_path):
    """Which of the started processes still run."""
    found = []
    for path in tmp_path.glob("pid*"):
        try:
            os.kill(int(path.read_text()), 0)
            found.append(path.name)
        except ProcessLookupError:
            pass
    return found


def test_one_failure_ends_all(launcher, tmp_path):
    # Process 0 swallows SIGTERM, as JAX's preemption service does.
    command = launcher(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if me == 2:\n"
        "    while not {'pid0', 'pid1'} <= {*os.listdir()}: time.sleep(0.01)\n"
        "    print('error: disk full'); sys.exit(5)\ntime.sleep(60)"
    )
    began = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 5 and time.monotonic() - began < 30
    assert "process 2 ended with status 5" in done.stderr and "error: disk full" in done.stderr
    assert len(list(tmp_path.glob("pid*"))) == 3 and alive(tmp_path) == []


def test_the_process_that_failed_is_told_not_those_that_lost_it(launcher, tmp_path):
    assert f"\nLOST = {ending.LOST} " in pathlib.Path(LOCAL).read_text()
    # Process 0 ends while the launcher sleeps: it finds both ended, the lost one first.
    command = launcher(
        "if me == 2: os.kill(os.getpid(), 9)\n"
        "if me == 0:\n"
        "    while not os.path.exists('pid2'): time.sleep(0.01)\n"
        "    sys.exit(75)\ntime.sleep(60)"
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 137 and "process 2 ended with status -9" in done.stderr
    assert alive(tmp_path) == []


def test_ctrl_c_lets_all_save_and_a_second_one_ends_them(launcher, tmp_path):
    body = (
        "signal.signal(signal.SIGTERM, lambda *a: {0})\n"
        "open(f'ready{{me}}', 'w').close()\nwhile True: time.sleep(0.05)"
    )

    def start(answer):
        for path in tmp_path.glob("ready*"):
            path.unlink()
        process = subprocess.Popen(
            launcher(body.format(answer)), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        while len(list(tmp_path.glob("ready*"))) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        return process

    saving = "(open(f'saved{me}', 'w').close(), sys.exit(130))"
    assert start(saving).wait(20) == 130
    assert len(list(tmp_path.glob("saved*"))) == 3 and alive(tmp_path) == []
    stubborn = start("None")
    time.sleep(0.3)
    assert stubborn.poll() is None
    stubborn.send_signal(signal.SIGINT)
    assert stubborn.wait(20) == 130 and alive(tmp_path) == []


def test_dry_run_prints_the_commands_and_writes_nothing(tmp_path):
    done = call(
        LOCAL,
        "--processes=2",
        "--on=cpu",
        "--port=4321",
        "--config=c.py",
        "--workdir=a b",
        "--config.x=$y",
        "--dry-run",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    for i, line in enumerate(done.stdout.splitlines()):
        shown = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
        ).stdout.split("\0")
        for part in (
            "JAX_PLATFORMS=cpu",
            "--workdir=a b",
            "--config.x=$y",
            "--coordinator=localhost:4321",
            "--processes=2",
            f"--process={i}",
        ):
            assert part in shown
    assert i == 1


def test_gpus_are_shared_out_one_each(tmp_path):
    def lines(*flags, visible="3,5"):
        return subprocess.run(
            [sys.executable, LOCAL, "--config=c.py", "--workdir=w", "--dry-run", *flags],
            capture_output=True,
            text=True,
            check=False,
            env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": visible},
        )

    assert [x.split()[0] for x in lines().stdout.splitlines()] == [
        "CUDA_VISIBLE_DEVICES=3",
        "CUDA_VISIBLE_DEVICES=5",
    ]
    too_many = lines("--processes=3")
    assert too_many.returncode == 2 and "2 GPUs" in too_many.stderr
    none = lines("--on=gpu", visible="")
    assert none.returncode == 2 and none.stderr.count("\n") == 1


# Joining


@pytest.mark.parametrize(
    "cluster, word",
    [
        (clusters.Cluster("nohost", 2, 0), "HOST:PORT"),
        (clusters.Cluster("host:0", 2, 0), "HOST:PORT"),
        (clusters.Cluster("", 2, 0), "HOST:PORT"),
        (clusters.Cluster("host:1", 0, 0), "--processes"),
        (clusters.Cluster("host:1", 2, 2), "--process=2"),
        (clusters.Cluster("host:1", 2), "--process=-1"),
    ],
)
def test_flags_that_do_not_fit(cluster, word):
    with pytest.raises(UserError, match=word):
        clusters.start(cluster)


def test_a_single_process_joins_nothing(monkeypatch):
    monkeypatch.setattr(clusters, "_join", lambda *a, **k: pytest.fail("joined"))
    slurm = dict.fromkeys(clusters.SLURM, "1")
    for environ in (
        {},
        {**slurm, "SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "4"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "JAX_PLATFORMS": "cpu"},
    ):
        clusters.start(None, environ)
    clusters.start(clusters.Cluster("localhost:1", 1, 0), {})
    ending.leave(2)  # or this test would end here
    assert processes.in_turn(lambda: 3) == 3 and processes.is_first()


@pytest.mark.parametrize(
    "environ",
    [{**dict.fromkeys(clusters.SLURM, "1"), "SLURM_NTASKS": "4"}, {"TPU_WORKER_HOSTNAMES": "a,b"}],
)
def test_clusters_are_found_in_the_environment(monkeypatch, environ):
    joined = []
    monkeypatch.setattr(clusters, "_join", lambda *a, **k: joined.append(k))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    clusters.start(None, environ)
    assert joined == [{}]  # JAX reads addresses and numbers itself


@pytest.fixture
def first_words(config, tmp_path, monkeypatch, capsys):
    """(status, what stderr says) of a process that has not joined, which wrote and said no more."""
    monkeypatch.setattr(clusters, "_join", lambda *a, **k: pytest.fail("joined"))

    def call(cluster):
        made = runpy.run_path(str(config))["get_config"]()
        status, said = run.main(made, str(tmp_path / "w"), (), cluster), capsys.readouterr()
        assert said.out == "" and not (tmp_path / "w").exists()
        return status, said.err

    return call


def test_no_process_0_is_one_clear_line(first_words):
    with socket.socket() as probe:  # bound, but nobody listens
        probe.bind(("localhost", 0))
        status, said = first_words(
            clusters.Cluster(f"localhost:{probe.getsockname()[1]}", 2, 1, connect_seconds=0.5)
        )
    assert status == 2 and said.count("\n") == 1
    assert said.startswith("error: no process 0 at --coordinator=localhost:")


def test_a_used_port_is_one_clear_line(first_words):
    with socket.socket() as probe:
        probe.bind(("", 0))
        probe.listen()
        port = probe.getsockname()[1]
        status, said = first_words(clusters.Cluster(f"localhost:{port}", 2, 0))
    assert status == 2 and said.count("\n") == 1 and said.startswith(f"error: port {port}")


def test_a_missing_process_is_a_clear_line(config, tmp_path):
    """Of `main.py` itself, and so from its flags."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    alone = call(
        ROOT / "main.py",
        f"--config={config}",
        f"--workdir={tmp_path / 'w'}",
        f"--coordinator=localhost:{port}",
        "--processes=2",
        "--process=0",
        "--connect_seconds=1",
    )
    assert alone.returncode == 2
    assert alone.stderr.startswith("error: not all 2 processes joined within 1 s")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("--nodez=3", "nodez"), ("--config.seed=-1", "seed"), ("word", "unexpected argument")],
)
def test_what_main_would_refuse_starts_no_process(config, tmp_path, wrong, words):
    done = call(
        LOCAL,
        "--processes=2",
        "--on=cpu",
        f"--config={config}",
        f"--workdir={tmp_path / 'w'}",
        wrong,
    )
    assert done.returncode == 2 and not (tmp_path / "w").exists()
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost", "127.0.0.1:4321"),
        ("127.0.0.1", "127.0.0.1:4321"),
        ("::1", "[::1]:4321"),
        ("192.0.2.1", None),
        ("no-such-host.invalid", None),
    ],
)
def test_the_coordinator_listens_where_its_name_says_and_nowhere_else(monkeypatch, host, address):
    """192.0.2.1 is nobody's: all addresses are left then, as for a translated one."""
    known = {"localhost": "127.0.0.1", "::1": "::1"}
    real = socket.getaddrinfo

    def look_up(name, *rest, **more):
        if name.endswith(".invalid"):
            raise socket.gaierror("not known")
        return real(known.get(name, name), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    if host == "::1" and not _has_ipv6():
        pytest.skip("no IPv6 here")
    assert clusters.bind_address(host, 4321) == address


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
