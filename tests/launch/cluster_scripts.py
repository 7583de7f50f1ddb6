"""What the cluster scripts are given, and what main.py would receive from them."""

import subprocess

NASTY = "--config.name=it's \"a\" $HOME $(id) ${ARGS} \\ *"
TPU = ("--name=pod", "--zone=z", "--type=v5litepod-16")
KUBERNETES = ("--name=exp", "--image=there/img:1", "--claim=disk")
GIVEN = {
    "tpu_pod.sh": (*TPU, "--config=c.py", "--workdir=/shared/x y"),
    "slurm.sh": ("--nodes=2", "--config=c.py", "--workdir=runs/x y"),
    "kubernetes.sh": (*KUBERNETES, "--config=c.py"),
}


def main_arguments(command, tmp_path):
    """What main.py would receive from a shell command that ends in `PYTHON ... main.py ARGS`."""
    at = command.rindex("main.py ") + len("main.py ")
    out = subprocess.run(["bash", "-c", f"printf '%s\\0' {command[at:]}"], cwd=tmp_path,
                         capture_output=True, text=True, check=True).stdout
    return out.split("\0")[:-1]
