"""A TPU slice: what is run on its workers, and what a pre-emption or a failure leads to.

No cluster is reached: `gcloud` is a stand-in that answers as told.
"""

import re
import subprocess
from shutil import which

import pytest
from cluster_scripts import GIVEN, NASTY, TPU, main_arguments


def last_argument(line, prefix):
    """The argument of a printed command that begins with `prefix`, as the shell reads it."""
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return next(w.removeprefix(prefix) for w in words if w.startswith(prefix))


def test_tpu_dry_run_creates_installs_and_starts_on_all_workers(run, tmp_path):
    lines = run(
        "tpu_pod.sh",
        *GIVEN["tpu_pod.sh"],
        "--spot",
        "--project=p",
        "--setup=mount it",
        NASTY,
        "--dry-run",
    ).stdout.splitlines()
    commands = [x for x in lines if not x.startswith("#")]
    gcloud = [x for x in commands if x.startswith("gcloud compute tpus tpu-vm ")]
    assert [x.split()[4] for x in gcloud] == ["create", "scp", "ssh", "ssh", "ssh", "delete"]
    create, copy, install, setup, start, _ = gcloud
    for part in ("--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite", "--spot"):
        assert part in create.split()
    assert all("--zone=z" in x.split() and "--project=p" in x.split() for x in gcloud)
    assert all("--worker=all" in x.split() for x in (copy, install, setup, start))
    assert '".[tpu]"' in last_argument(install, "--command=")
    assert last_argument(setup, "--command=") == "mount it"
    remote = last_argument(start, "--command=")
    assert main_arguments(remote, tmp_path) == ["--config=c.py", "--workdir=/shared/x y", NASTY]


@pytest.mark.parametrize("shell", [s for s in ("bash", "dash", "busybox", "zsh") if which(s)])
def test_the_workers_shell_may_be_any(run, tmp_path, shell):
    """bash's own quoting of a line feed or a letter outside ASCII is no other shell's."""
    nasty = [
        NASTY,
        "--config.a=x\ny\tz\n",
        "--config.b=é 中 \x01",
        "--config.c=''\\'",
        "--config.d=",
    ]
    done = run("tpu_pod.sh", *GIVEN["tpu_pod.sh"], *nasty, "--dry-run")
    (start,) = re.findall(r"^gcloud .*exec.*", done.stdout, re.MULTILINE)
    remote = last_argument(start, "--command=")
    assert main_arguments(remote, tmp_path, shell)[2:] == nasty


def test_tpu_workdir_must_outlive_the_slice(run):
    done = run("tpu_pod.sh", *TPU, "--config=c.py", "--workdir=runs/x", "--dry-run")
    assert done.returncode == 2 and "--workdir" in done.stderr


def fake_gcloud(tools, tmp_path, statuses):
    """A slice that is READY once created; run number n ends with statuses[n], 77: pre-empted."""
    state, runs = tmp_path / "state", tmp_path / "runs"
    tools("sleep", "")
    tools("git", "exit 0")
    tools(
        "gcloud",
        f"""
case "$4" in
  list) [ ! -s {state} ] || printf 'projects/p/nodes/pod\\t%s\\n' "$(cat {state})" ;;
  create) echo READY > {state} ;;
  delete) rm -f {state} ;;
  ssh)
    case "$*" in *main.py\\ --config*)
      echo x >> {runs}
      statuses=({" ".join(map(str, statuses))})
      status=${{statuses[$(wc -l < {runs}) - 1]}}
      if [ "$status" = 77 ]; then echo PREEMPTED > {state}; exit 1; fi
      exit "$status" ;;
    esac ;;
esac""",
    )


def verbs(tools):
    return [c[4] for c in tools.calls() if c[0] == "gcloud" and c[4] != "list"]


def test_tpu_goes_on_after_a_preemption(run, tools, tmp_path):
    fake_gcloud(tools, tmp_path, [77, 255, 0])
    done = run("tpu_pod.sh", *GIVEN["tpu_pod.sh"], path=tools.path)
    assert done.returncode == 0, done.stderr
    stretch = ["scp", "ssh", "ssh"]
    # Pre-empted: made anew.  Connection lost, slice alive: used again.
    assert verbs(tools) == ["create", *stretch, "delete", "create", *stretch, *stretch]
    assert "--delete" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("status", [1, 2])
def test_tpu_does_not_repeat_a_failure_of_the_program(run, tools, tmp_path, status):
    fake_gcloud(tools, tmp_path, [status, 0])
    done = run("tpu_pod.sh", *GIVEN["tpu_pod.sh"], path=tools.path)
    assert done.returncode == status
    assert verbs(tools) == ["create", "scp", "ssh", "ssh"]


def test_tpu_gives_up_after_the_attempts(run, tools, tmp_path):
    fake_gcloud(tools, tmp_path, [77, 77, 77])
    done = run("tpu_pod.sh", *GIVEN["tpu_pod.sh"], "--attempts=2", path=tools.path)
    assert done.returncode == 2 and "2 attempts" in done.stderr
    assert verbs(tools).count("create") == 2


def test_tpu_delete_deletes_and_nothing_else(run, tools, tmp_path):
    fake_gcloud(tools, tmp_path, [])
    assert run("tpu_pod.sh", "--name=pod", "--zone=z", "--delete", path=tools.path).returncode == 0
    assert verbs(tools) == ["delete"]
