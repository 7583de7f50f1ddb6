#!/usr/bin/env bash
# Trains on several nodes of a SLURM cluster; see docs/launch.md.
set -euo pipefail

usage() {
  cat <<'TEXT'
Submits a multi-node run.  Before its time is up, and when it is pre-empted, the run saves itself
and is queued again; it goes on from its last checkpoint.

  launch/slurm.sh --nodes=N [options] --config=... --workdir=...

  --nodes=N           how many nodes (default 1)
  --gpus-per-node=G   default 0: CPUs only
  --task-per=gpu|node one process per GPU (default), or one per node with all its GPUs
  --cpus-per-task=C   default 8
  --time=T            limit of one stretch, for example 04:00:00
  --partition=P  --account=A  --job-name=J
  --python=FILE       the interpreter on the nodes (default .venv/bin/python)
  --sbatch=OPTION     one more option for sbatch, may be repeated: --sbatch=--exclusive
  --dry-run           prints the command and the batch script, touches nothing
  --help

Everything else goes to main.py.  The checkout and --workdir must be on storage that all nodes
share.
TEXT
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/check.sh
source "$here/check.sh"

nodes=1 gpus=0 per=gpu cpus=8 job=cr_jax python=.venv/bin/python workdir='' dry=false
options=() rest=()
previous=''
for argument in "$@"; do
  joined_by_equals "$argument" nodes gpus-per-node task-per cpus-per-task time partition account \
    job-name python sbatch
  case "$argument" in
    --nodes=*) nodes=${argument#*=} ;;
    --gpus-per-node=*) gpus=${argument#*=} ;;
    --task-per=*) per=${argument#*=} ;;
    --cpus-per-task=*) cpus=${argument#*=} ;;
    --time=* | --partition=* | --account=*) options+=("$argument") ;;
    --job-name=*) job=${argument#*=} ;;
    --python=*) python=${argument#*=} ;;
    --sbatch=*) options+=("${argument#*=}") ;;
    --dry-run) dry=true ;;
    --help | -h) usage && exit 0 ;;
    *)
      rest+=("$argument")
      case "$argument" in --workdir=*) workdir=${argument#*=} ;; esac
      [[ $previous != --workdir ]] || workdir=$argument
      ;;
  esac
  previous=$argument
done
[[ $nodes =~ ^[1-9][0-9]*$ ]] || fail "--nodes=$nodes must be 1 or more"
[[ $gpus =~ ^[0-9]+$ ]] || fail "--gpus-per-node=$gpus must be a number"
[[ $cpus =~ ^[1-9][0-9]*$ ]] || fail "--cpus-per-task=$cpus must be 1 or more"
[[ $per == gpu || $per == node ]] || fail "--task-per=$per must be gpu or node"
[[ " ${rest[*]-}" == *' --config'* ]] || fail '--config=FILE is missing; it goes to main.py'
[[ -n $workdir ]] || fail '--workdir=FOLDER is missing; it goes to main.py'

tasks=1 devices=''
if ((gpus > 0)); then
  options+=("--gpus-per-node=$gpus")
  if [[ $per == gpu ]]; then
    tasks=$gpus
  else
    devices=$(seq -s, 0 $((gpus - 1)))
  fi
fi
# TERM reaches the tasks two minutes before the end, so that they can save themselves.
command=(sbatch "--job-name=$job" "--nodes=$nodes" "--ntasks-per-node=$tasks"
  "--cpus-per-task=$cpus" --requeue --open-mode=append --signal=TERM@120
  "--output=$workdir/slurm-%j.log" ${options[@]+"${options[@]}"})

script() {
  local line
  printf '#!/bin/bash\nset -uo pipefail\n'
  printf 'trap : TERM  # the tasks stop; this script then decides\n'
  if [[ -n $devices ]]; then
    printf '# JAX would give each task one GPU only.\nexport JAX_LOCAL_DEVICE_IDS=%s\n' "$devices"
  fi
  # Every task sees all GPUs of its node and JAX takes the one of its local number.
  printf -v line '%q ' srun --kill-on-bad-exit=1 "--cpus-per-task=$cpus" --gpu-bind=none \
    "$python" -u main.py "${rest[@]}"
  ((gpus > 0)) || line=${line/--gpu-bind=none /}
  printf '%s\n' "${line% }"
  # shellcheck disable=SC2016  # expanded in the job
  printf '%s\n' 'status=$?' 'if [ "$status" -eq 130 ]; then  # saved, and asked to stop' \
    '  scontrol requeue "$SLURM_JOB_ID"' 'fi' 'exit "$status"'
}

if "$dry"; then
  printf -v line '%q ' "${command[@]}"
  printf '%s<<'\''SCRIPT'\''\n' "$line"
  script
  printf 'SCRIPT\n'
  exit 0
fi
command -v sbatch >/dev/null || fail 'sbatch is not here; run this on a login node'
cd -- "$here/.."
command -v "$python" >/dev/null || fail "--python=$python is not here; the nodes need it too"
check_main "$python" "${rest[@]}"
mkdir -p -- "$workdir"
script | "${command[@]}"
