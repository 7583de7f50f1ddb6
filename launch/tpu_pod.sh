#!/usr/bin/env bash
# Trains on a Cloud TPU slice; see docs/launch.md.
set -euo pipefail

usage() {
  cat <<'TEXT'
Creates or reuses a Cloud TPU slice, installs this checkout on all its workers and trains there.
When the slice is pre-empted it is made anew and the run goes on from its last checkpoint.

  launch/tpu_pod.sh --name=NAME --zone=ZONE --type=TYPE [options] --config=... --workdir=...
  launch/tpu_pod.sh --name=NAME --zone=ZONE --delete

  --name=NAME       of the TPU VM
  --zone=ZONE       for example us-west4-a
  --type=TYPE       accelerator type, for example v5litepod-16
  --version=V       software of the VM (default: chosen by --type)
  --project=ID      default: gcloud's own
  --spot            cheaper, may be pre-empted
  --setup=COMMAND   runs on every worker before the start, for example to mount shared storage
  --attempts=N      how often a lost slice is replaced (default 20)
  --delete          deletes the TPU VM and ends
  --dry-run         prints the commands, touches nothing
  --help

Everything else goes to main.py.  --workdir must be an absolute path on storage that all workers
share and that outlives the slice; --setup can mount it.
TEXT
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/check.sh
source "$here/check.sh"

name='' zone='' type='' version='' project='' setup='' attempts=20
spot=false delete=false dry=false
rest=()
for argument in "$@"; do
  joined_by_equals "$argument" name zone type version project setup attempts
  case "$argument" in
    --name=*) name=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --type=*) type=${argument#*=} ;;
    --version=*) version=${argument#*=} ;;
    --project=*) project=${argument#*=} ;;
    --setup=*) setup=${argument#*=} ;;
    --attempts=*) attempts=${argument#*=} ;;
    --spot) spot=true ;;
    --delete) delete=true ;;
    --dry-run) dry=true ;;
    --help | -h) usage && exit 0 ;;
    *) rest+=("$argument") ;;
  esac
done
[[ -n $name && -n $zone ]] || fail '--name=NAME and --zone=ZONE are needed; see --help'
[[ $attempts =~ ^[1-9][0-9]*$ ]] || fail "--attempts=$attempts must be 1 or more"

where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")
tpu=(gcloud compute tpus tpu-vm)

show() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

do_it() {
  show "$@"
  "$dry" || "$@"
}

remove() { do_it "${tpu[@]}" delete "$name" "${where[@]}" --quiet; }

if "$delete"; then
  remove
  exit 0
fi

[[ -n $type ]] || fail '--type=TYPE is needed; see --help'
[[ " ${rest[*]-}" == *' --config'* ]] || fail '--config=FILE is missing; it goes to main.py'
[[ " ${rest[*]-}" == *' --workdir='/* ]] ||
  fail '--workdir=FOLDER must be an absolute path on storage that outlives the slice'
if [[ -z $version ]]; then
  case "$type" in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    *) version='tpu-ubuntu2204-base' ;;
  esac
fi

# The state of the TPU VM, empty when there is none.
state() {
  local listed
  listed=$("${tpu[@]}" list "${where[@]}" --format='value(name,state)') || return 1
  awk -v name="$name" '{ n = $1; sub(/.*\//, "", n); if (n == name) print $2 }' <<<"$listed"
}

create() {
  local options=("--accelerator-type=$type" "--version=$version")
  if "$spot"; then options+=(--spot); fi
  do_it "${tpu[@]}" create "$name" "${where[@]}" "${options[@]}"
}

everywhere() { do_it "${tpu[@]}" ssh "$name" "${where[@]}" --worker=all "--command=$1"; }

root=$(cd -- "$here/.." && pwd)
archive=cr_jax.tar.gz
if ! "$dry"; then
  scratch=$(mktemp -d)
  trap 'rm -rf -- "$scratch"' EXIT
else
  scratch='.'
fi

# The images carry an older Python than cr_jax needs, hence uv.
# shellcheck disable=SC2016  # expanded on the workers
install='set -e; rm -rf cr_jax; mkdir cr_jax; tar -xzf cr_jax.tar.gz -C cr_jax; cd cr_jax;
python3 -m pip install --quiet --user uv;
python3 -m uv venv --quiet --python 3.12 .venv;
python3 -m uv pip install --quiet --python .venv/bin/python --editable ".[tpu]"'

# An argument as any POSIX shell reads it: the workers' need not be bash, whose %q writes $'...'.
posix() {
  local rest=$1 quoted=''
  if [[ $1 =~ ^[A-Za-z0-9_./=:,@%+-]+$ ]]; then
    printf '%s' "$1"
    return
  fi
  while [[ $rest == *\'* ]]; do
    quoted+="${rest%%\'*}'\\''"
    rest=${rest#*\'}
  done
  printf "'%s'" "$quoted$rest"
}

# A run whose connection was lost still holds the chips: it ends before the next one starts.
arguments=''
for argument in "${rest[@]}"; do arguments+=" $(posix "$argument")"; done
# shellcheck disable=SC2016  # expanded on the workers
start='cd cr_jax; old=$(cat ../cr_jax.pid 2>/dev/null || true);
if [ -n "$old" ] && grep -qs main.py "/proc/$old/cmdline"; then kill -9 "$old"; sleep 5; fi;
echo $$ > ../cr_jax.pid; exec .venv/bin/python main.py'$arguments

prepare() {
  do_it git -C "$root" archive --format=tar.gz "--output=$scratch/$archive" HEAD &&
    do_it "${tpu[@]}" scp "$scratch/$archive" "$name:$archive" "${where[@]}" --worker=all &&
    everywhere "$install" || return
  [[ -z $setup ]] || everywhere "$setup"
}

if "$dry"; then
  printf '# when there is no TPU VM of this name:\n'
  create
  printf '# then:\n'
  prepare
  everywhere "$start"
  printf '# after a pre-emption, then again from the top, at most %s times:\n' "$attempts"
  remove
  exit 0
fi

command -v gcloud >/dev/null || fail 'gcloud is not installed; it is part of the Google Cloud CLI'
cd -- "$root"
python=$(own_python)
[[ -z $python ]] || check_main "$python" "${rest[@]}"
[[ -z $(git -C "$root" status --porcelain -uno) ]] ||
  printf 'warning: changes that are not committed stay here\n' >&2
for ((attempt = 1; attempt <= attempts; attempt++)); do
  now=$(state) || fail 'gcloud cannot list TPU VMs; check the login, --project and --zone'
  case "$now" in
    READY) ;;
    '') create || { sleep 60 && continue; } ;;
    CREATING | STARTING | RESTARTING | REPAIRING | DELETING | STOPPING) sleep 30 && continue ;;
    *)  # PREEMPTED, TERMINATED, STOPPED ...
      if ! { remove && create; }; then sleep 60 && continue; fi
      ;;
  esac
  status=0
  prepare || status=$?
  if ((status == 0)); then
    everywhere "$start" || status=$?
    if ((status == 0)); then
      printf 'done; the slice still costs money: launch/tpu_pod.sh --name=%q --zone=%q --delete\n' \
        "$name" "$zone"
      exit 0
    fi
  fi
  # A pre-emption shows up late.  2 is a message of main.py; 255 is a lost connection.
  ((status != 2)) || exit 2
  sleep 60
  now=$(state) || now=unknown
  if [[ $now == READY ]] && ((status != 255)); then
    printf 'error: the run failed with status %s; the slice is still there\n' "$status" >&2
    exit "$status"
  fi
  printf 'the slice was lost (%s); attempt %s of %s\n' "${now:-gone}" "$attempt" "$attempts" >&2
done
fail "gave up after $attempts attempts"
