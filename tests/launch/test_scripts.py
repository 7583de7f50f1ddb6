"""The cluster scripts: what they would run, and what they do when a cluster answers.

No cluster is reached.  `gcloud`, `sbatch`, `srun` and `kubectl` are stand-ins that write down
their arguments and answer as told.
"""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest
from cluster_scripts import GIVEN, NASTY, main_arguments

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = tuple(GIVEN)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    found = subprocess.run(
        ["shellcheck", *sorted(map(str, (ROOT / "launch").glob("*.sh")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "" and found.returncode == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_strict_and_runnable(script):
    path = ROOT / "launch" / script
    assert "\nset -euo pipefail\n" in path.read_text()
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(run, script):
    done = run(script, "--help")
    assert done.returncode == 0 and done.stderr == ""
    text = (ROOT / "launch" / script).read_text()
    body = text[text.index("for argument in") :]
    flags = {
        p.strip().split("=")[0]
        for line in body.splitlines()
        if line.strip().startswith("--")
        for p in line.strip().split(")")[0].split("|")
        if p.strip().startswith("--")
    }
    assert {"--dry-run", "--help"} <= flags
    assert [f for f in sorted(flags) if f.rstrip("*") not in done.stdout] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_calls_nothing_and_writes_nothing(run, tools, tmp_path, script):
    for name in ("gcloud", "sbatch", "srun", "kubectl", "git", "mktemp", "mkdir"):
        tools(name, "exit 1")
    before = sorted(tmp_path.rglob("*"))
    done = run(script, *GIVEN[script], "--dry-run", path=tools.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert tools.calls() == [] and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("missing", ["--config", "other"])
def test_what_is_missing_is_said_in_one_line(run, script, missing):
    other = {"tpu_pod.sh": "--zone", "slurm.sh": "--workdir", "kubernetes.sh": "--image"}[script]
    flag = other if missing == "other" else missing
    given = [a for a in GIVEN[script] if not a.startswith(flag)]
    done = run(script, *given, "--dry-run")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert flag in done.stderr


def test_the_image_holds_what_the_pods_start():
    """Its working folder is the checkout, nobody is root, and its extras are those of setup.py."""
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert ["WORKDIR", "/cr_jax"] in steps and ["COPY", ". ."] in steps
    assert [rest for name, rest in steps if name == "USER"] == ["1000"]
    assert "main.py" in (ROOT / "launch" / "kubernetes.yaml").read_text()
    assert "-f launch/Dockerfile" in (ROOT / "launch" / "kubernetes.sh").read_text()
    default = next(rest for name, rest in steps if rest.startswith("EXTRAS="))
    assert f'"{default.removeprefix("EXTRAS=")}": [' in (ROOT / "setup.py").read_text()
    ignored = (ROOT / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", "runs"} <= set(ignored)


QUICK = str(ROOT / "configs" / "quickstart.py")


def queued(run, tools, script, *more, config=QUICK):
    """A real start with the real main.py's check -> (the process, calls that reach the cluster)."""
    for name in ("gcloud", "sbatch", "kubectl", "sleep"):
        tools(name, "exit 1")
    given = [a for a in GIVEN[script] if not a.startswith("--config")]
    python = [f"--python={sys.executable}"] if script == "slurm.sh" else []
    done = run(
        script, *given, *python, f"--config={config}", *more, path=tools.path, python=sys.executable
    )
    return done, [c for c in tools.calls() if c[0] != "sleep"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("--nodez=3", "nodez"),
        ("--config.train.step=3", "step"),
        ("--config.seed=-1", "config.seed"),
        ("--config.model.heads=x", "heads"),
        ("word", "unexpected argument 'word'"),
    ],
)
def test_what_main_would_refuse_is_refused_before_it_is_queued(run, tools, script, wrong, words):
    done, calls = queued(run, tools, script, wrong)
    assert (done.returncode, calls) == (2, []), done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_config_that_is_missing_is_refused_before_it_is_queued(run, tools, script):
    done, calls = queued(run, tools, script, config="nowhere.py")
    assert (done.returncode, calls) == (2, []) and "nowhere.py cannot be read" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_main_takes_is_queued(run, tools, script):
    """Negative control: the stand-ins are reached."""
    done, calls = queued(
        run, tools, script, "--attempts=1" if script == "tpu_pod.sh" else "--config.train.batch=32"
    )
    assert calls and done.returncode


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_option_cut_off_by_a_blank_is_refused(run, script):
    text = run(script, "--help").stdout
    options = [
        line.split()[0].partition("=")[0]
        for line in text.splitlines()
        if line.startswith("  --") and "=" in line.split()[0]
    ]
    assert len(options) >= 7
    for option in options:
        done = run(script, *GIVEN[script], option, "2", "--dry-run")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"write {option}=VALUE" in done.stderr and done.stderr.count("\n") == 1


# SLURM


def batch_script(done):
    return done.stdout.partition("\n")[2].rpartition("SCRIPT\n")[0]


@pytest.mark.parametrize("per, tasks, devices", [("gpu", 4, None), ("node", 1, "0,1,2,3")])
def test_slurm_tasks_and_devices(run, tmp_path, per, tasks, devices):
    done = run(
        "slurm.sh",
        *GIVEN["slurm.sh"],
        "--gpus-per-node=4",
        f"--task-per={per}",
        NASTY,
        "--time=01:00:00",
        "--sbatch=--exclusive",
        "--dry-run",
    )
    command = done.stdout.splitlines()[0].split()
    for part in (
        "--nodes=2",
        f"--ntasks-per-node={tasks}",
        "--gpus-per-node=4",
        "--requeue",
        "--signal=TERM@120",
        "--time=01:00:00",
        "--exclusive",
    ):
        assert part in command
    script = batch_script(done)
    exported = [x for x in script.splitlines() if x.startswith("export JAX_LOCAL_DEVICE_IDS=")]
    assert exported == ([f"export JAX_LOCAL_DEVICE_IDS={devices}"] if devices else [])
    started = next(x for x in script.splitlines() if x.startswith("srun "))
    assert "--kill-on-bad-exit=1" in started and "--gpu-bind=none" in started
    assert main_arguments(started, tmp_path) == ["--config=c.py", "--workdir=runs/x y", NASTY]


def test_slurm_without_gpus_asks_for_none(run):
    assert "gpu" not in run("slurm.sh", *GIVEN["slurm.sh"], "--dry-run").stdout


@pytest.mark.parametrize("status, requeued", [(0, 0), (130, 1), (2, 0), (1, 0)])
def test_slurm_queues_again_only_what_was_asked_to_stop(run, tools, tmp_path, status, requeued):
    tools("srun", f"exit {status}")
    tools("scontrol", "")
    script = batch_script(run("slurm.sh", *GIVEN["slurm.sh"], "--dry-run"))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PATH": tools.path, "SLURM_JOB_ID": "42"},
    )
    assert done.returncode == status
    again = [c for c in tools.calls() if c[0] == "scontrol"]
    assert again == [["scontrol", "requeue", "42"]] * requeued


def test_slurm_submits_what_the_dry_run_shows(run, tools, tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "copy" / "launch")
    sent = tmp_path / "sent"
    tools("sbatch", f"cat > {sent}")
    script = tmp_path / "copy" / "launch" / "slurm.sh"
    given = [*GIVEN["slurm.sh"], "--gpus-per-node=2", "--python=true"]
    shown = run(str(script), *given, "--dry-run")
    done = run(str(script), *given, path=tools.path)
    assert done.returncode == 0, done.stderr
    assert sent.read_text() == batch_script(shown)
    called = next(c for c in tools.calls() if c[0] == "sbatch")
    assert called == shlex.split(shown.stdout.splitlines()[0].split("<<")[0])
    assert (tmp_path / "copy" / "runs" / "x y").is_dir()  # sbatch does not make it for its log


# Kubernetes


def field(manifest, key):
    """The one-line JSON value of `key:`."""
    (line,) = [x.strip() for x in manifest.splitlines() if x.strip().startswith(f"{key}: ")]
    return json.loads(line.removeprefix(f"{key}: "))


def test_kubernetes_manifest(run):
    done = run(
        "kubernetes.sh",
        *GIVEN["kubernetes.sh"],
        "--pods=3",
        "--limit=nvidia.com/gpu=8",
        "--selector=pool=a b",
        NASTY,
        "--dry-run",
    )
    command, _, manifest = done.stdout.partition("\n")
    assert command == "kubectl create -f -"
    assert "${" not in manifest.replace("$${", "")  # no field was left empty
    assert field(manifest, "image") == "there/img:1"
    assert field(manifest, "limits") == {"nvidia.com/gpu": "8"}
    assert field(manifest, "nodeSelector") == {"pool": "a b"}
    for line in (
        "kind: JobSet",
        "parallelism: 3",
        "completions: 3",
        "completionMode: Indexed",
        "maxRestarts: 20",
    ):
        assert line in [x.strip() for x in manifest.splitlines()]
    given, nasty, *ours = field(manifest, "args")
    assert given == "--config=c.py"
    assert nasty.replace("$$", "$") == NASTY and "$" not in nasty.replace("$$", "")
    assert ours == [
        "--workdir=/runs/exp",
        "--coordinator=exp-train-0-0.exp:55527",
        "--processes=3",
        "--process=$(JOB_COMPLETION_INDEX)",
    ]


def test_kubernetes_manifest_is_yaml(run):
    yaml = pytest.importorskip("yaml")
    done = run("kubernetes.sh", *GIVEN["kubernetes.sh"], NASTY, "--dry-run")
    found = yaml.safe_load(done.stdout.partition("\n")[2])
    (job,) = found["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert found["metadata"]["name"] == "exp" and job["name"] == "train"
    (container,) = pod["containers"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert {m["name"] for m in container["volumeMounts"]} == volumes.keys()
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1000
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert volumes["memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    # What a run writes beside its workdir is a folder of its own below a read-only root.
    assert "/tmp" in {m["mountPath"] for m in container["volumeMounts"]}


def test_kubernetes_as_root_and_with_more_shared_memory_when_asked(run):
    done = run("kubernetes.sh", *GIVEN["kubernetes.sh"], "--user=0", "--shm=32Gi", "--dry-run")
    assert "runAsNonRoot: false" in done.stdout and "runAsUser: 0" in done.stdout
    assert "sizeLimit: 32Gi" in done.stdout


def test_kubernetes_sends_what_the_dry_run_shows_and_deletes(run, tools, tmp_path):
    sent = tmp_path / "sent"
    tools("kubectl", f'[ "$1" != create ] || cat > {sent}')
    shown = run("kubernetes.sh", *GIVEN["kubernetes.sh"], "--dry-run").stdout
    assert run("kubernetes.sh", *GIVEN["kubernetes.sh"], path=tools.path).returncode == 0
    assert sent.read_text() == shown.partition("\n")[2]
    assert run("kubernetes.sh", "--name=exp", "--delete", path=tools.path).returncode == 0
    assert tools.calls() == [
        ["kubectl", "create", "-f", "-"],
        ["kubectl", "delete", "jobset", "exp"],
    ]


@pytest.mark.parametrize(
    "bad",
    [
        "--name=Exp",
        "--pods=0",
        "--user=me",
        "--shm=8",
        "--limit=gpu",
        "--workdir=/x",
        "--config.name=a\nb",
    ],
)
def test_kubernetes_refuses(run, bad):
    done = run("kubernetes.sh", *GIVEN["kubernetes.sh"], bad, "--dry-run")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
