#!/usr/bin/env bash
# Trains on Kubernetes with JobSet; see docs/launch.md.
# shellcheck disable=SC2016  # ${FIELD} stands in the manifest, $(INDEX) is Kubernetes's to expand
set -euo pipefail

usage() {
  cat <<'TEXT'
Fills in launch/kubernetes.yaml and starts it: one pod per process.  When a pod is lost, all are
started again and go on from the last checkpoint.

  launch/kubernetes.sh --name=NAME --image=IMAGE --claim=CLAIM [options] --config=...
  launch/kubernetes.sh --name=NAME --delete

  --name=NAME          of the JobSet: small letters, digits and -, at most 40
  --image=IMAGE        a container with cr_jax, its working folder being the checkout:
                       docker build -f launch/Dockerfile -t IMAGE .
  --claim=CLAIM        a ReadWriteMany volume claim; the run is in its folder NAME
  --pods=N             how many pods (default 2)
  --limit=KEY=VALUE    resources of a pod, may be repeated: --limit=nvidia.com/gpu=8
  --selector=KEY=VALUE of the nodes, may be repeated
  --user=UID           that pods run as, also its group (default 1000; 0: root, which some devices
                       ask for)
  --shm=SIZE           of /dev/shm, counts as a pod's memory (default 8Gi)
  --restarts=N         how often all pods may start again (default 20)
  --namespace=NAME     default: kubectl's own
  --delete             deletes the JobSet, keeps the claim
  --dry-run            prints the command and the manifest, touches nothing
  --help

Everything else goes to main.py.
TEXT
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# A JSON string; JSON is YAML, so any text is safe in the manifest.
quoted() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "$text"
}

joined() {
  local IFS=,
  printf '%s' "$*"
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/check.sh
source "$here/check.sh"

name='' image='' claim='' pods=2 restarts=20 user=1000 shm=8Gi delete=false dry=false
limits=() selectors=() rest=() plain=()
kubectl=(kubectl)
for argument in "$@"; do
  [[ ! $argument =~ [[:cntrl:]] ]] || fail 'arguments must not contain control characters'
  joined_by_equals "$argument" name image claim pods limit selector restarts user shm namespace
  value=${argument#*=}
  case "$argument" in
    --name=*) name=$value ;;
    --image=*) image=$value ;;
    --claim=*) claim=$value ;;
    --pods=*) pods=$value ;;
    --limit=?*=?*) limits+=("$(quoted "${value%%=*}"): $(quoted "${value#*=}")") ;;
    --selector=?*=?*) selectors+=("$(quoted "${value%%=*}"): $(quoted "${value#*=}")") ;;
    --limit* | --selector*) fail "$argument must be ${argument%%=*}=KEY=VALUE" ;;
    --restarts=*) restarts=$value ;;
    --user=*) user=$value ;;
    --shm=*) shm=$value ;;
    --namespace=*) kubectl+=("$argument") ;;
    --delete) delete=true ;;
    --dry-run) dry=true ;;
    --help | -h) usage && exit 0 ;;
    # Kubernetes expands $(X) in arguments; a doubled $ stands for itself.
    *)
      plain+=("$argument")
      rest+=("$(quoted "${argument//\$/\$\$}")")
      ;;
  esac
done
# Pod names add about 20 characters and end at 63.
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  fail "--name=$name must be small letters, digits and -, at most 40"

do_it() {
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
  "$dry" || "$@"
}

if "$delete"; then
  do_it "${kubectl[@]}" delete jobset "$name"
  exit 0
fi
[[ -n $image && -n $claim ]] || fail '--image=IMAGE and --claim=CLAIM are needed; see --help'
[[ $pods =~ ^[1-9][0-9]*$ ]] || fail "--pods=$pods must be 1 or more"
[[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts=$restarts must be a number"
[[ $user =~ ^(0|[1-9][0-9]{0,9})$ ]] || fail "--user=$user must be the number of a user"
[[ $shm =~ ^[1-9][0-9]*(Mi|Gi)$ ]] || fail "--shm=$shm must be a size such as 512Mi or 8Gi"
[[ " ${rest[*]-}" == *' "--config'* ]] || fail '--config=FILE is missing; it goes to main.py'
[[ " ${rest[*]-}" != *'"--workdir'* ]] || fail '--workdir is the folder NAME of --claim; leave it out'

# JobSet's own host name of the first pod; the index comes from Kubernetes.
rest+=("$(quoted "--workdir=/runs/$name")" "$(quoted "--coordinator=$name-train-0-0.$name:55527")"
  "$(quoted "--processes=$pods")" '"--process=$(JOB_COMPLETION_INDEX)"')
manifest=''
# Line by line and at most one field a line, so that a value is never searched for fields.
while IFS= read -r line; do
  case "$line" in
    *'${NAME}'*) field=NAME value=$name ;;
    *'${RESTARTS}'*) field=RESTARTS value=$restarts ;;
    *'${PODS}'*) field=PODS value=$pods ;;
    *'${SELECTOR}'*) field=SELECTOR value="{$(joined ${selectors[@]+"${selectors[@]}"})}" ;;
    *'${IMAGE}'*) field=IMAGE value=$(quoted "$image") ;;
    *'${ARGS}'*) field=ARGS value="[$(joined "${rest[@]}")]" ;;
    *'${LIMITS}'*) field=LIMITS value="{$(joined ${limits[@]+"${limits[@]}"})}" ;;
    *'${NON_ROOT}'*) field=NON_ROOT value=$([[ $user == 0 ]] && echo false || echo true) ;;
    *'${USER_ID}'*) field=USER_ID value=$user ;;
    *'${SHM}'*) field=SHM value=$shm ;;
    *'${CLAIM}'*) field=CLAIM value=$(quoted "$claim") ;;
    *) field='' value='' ;;
  esac
  if [[ -n $field ]]; then line=${line%%"\${$field}"*}$value${line#*"\${$field}"}; fi
  manifest+=$line$'\n'
done <"$here/kubernetes.yaml"

if "$dry"; then
  do_it "${kubectl[@]}" create -f -
  printf '%s' "$manifest"
  exit 0
fi
command -v kubectl >/dev/null || fail 'kubectl is not installed'
cd -- "$here/.."
python=$(own_python)
[[ -z $python ]] || check_main "$python" "${plain[@]}" "--workdir=/runs/$name"
printf '%s' "$manifest" | do_it "${kubectl[@]}" create -f -
printf 'follow it: '
dry=true
do_it "${kubectl[@]}" logs --follow -l \
  "jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
