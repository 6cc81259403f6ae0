#!/usr/bin/env bash
# Trains on a Cloud TPU slice: makes or reuses it, installs this checkout on all its hosts, starts
# `adm train` on each, follows the first one's log, starts again after preemptions, and copies the
# results. Needs gcloud, logged in, with a project and the TPU API enabled.
#
#   launch/tpu_pod.sh [--dry-run] NAME ACTION [ARGUMENTS OF adm train]
#
#   launch/tpu_pod.sh adm1 run --config configs/imagenet64.py --workdir gs://BUCKET/imagenet64
#   launch/tpu_pod.sh adm1 logs        # follows a run that goes on
#   launch/tpu_pod.sh adm1 stop        # saves and ends it
#   launch/tpu_pod.sh adm1 copy gs://BUCKET/imagenet64 runs/imagenet64
#   launch/tpu_pod.sh adm1 delete
#
# --dry-run prints the commands. The work directory must be in a bucket, which all hosts share, and
# which outlives the slice.
#
#   ADM_ZONE      default us-central2-b      ADM_TPU_TYPE    default v5litepod-64
#   ADM_RUNTIME   default v2-alpha-tpuv5-lite; another for other generations
#   ADM_SPOT      1: a spot slice, cheaper, taken away at times (default 0)
#   ADM_TRIES     how often to start again (default 100)
set -euo pipefail

zone=${ADM_ZONE:-us-central2-b}
type=${ADM_TPU_TYPE:-v5litepod-64}
runtime=${ADM_RUNTIME:-v2-alpha-tpuv5-lite}
tries=${ADM_TRIES:-100}
root=$(cd "$(dirname "$0")/.." && pwd)
usage="usage: $0 [--dry-run] NAME run|logs|stop|copy|delete [ARGUMENTS]"

dry_run=''
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
if [ $# -lt 2 ]; then
  echo "$usage" >&2
  exit 2
fi
name=$1 action=$2
shift 2

do_it() {  # runs a command, or prints it
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() {  # tpu VERB ...: gcloud's commands for this slice
  local verb=$1
  shift
  do_it gcloud compute tpus tpu-vm "$verb" "$name" --zone "$zone" "$@"
}

on() {  # on HOSTS COMMAND: by ssh, HOSTS an index or 'all'
  tpu ssh --worker "$1" --command "$2"
}

state() {  # READY, PREEMPTED, ... or nothing where there is no such slice
  if [ -n "$dry_run" ]; then
    return
  fi
  gcloud compute tpus tpu-vm describe "$name" --zone "$zone" --format 'value(state)' 2>/dev/null \
    || true
}

create() {  # a slice that is ready, with this checkout installed on all its hosts
  local spot=()
  if [ "$(state)" != READY ]; then
    if [ -n "$(state)" ]; then
      tpu delete --quiet || return
    fi
    [ "${ADM_SPOT:-0}" = 0 ] || spot=(--spot)
    tpu create --accelerator-type "$type" --version "$runtime" "${spot[@]}" || return
  fi
  local archive=${TMPDIR:-/tmp}/adm_jax.tar.gz
  do_it git -C "$root" archive --format tar.gz --output "$archive" HEAD || return
  do_it gcloud compute tpus tpu-vm scp "$archive" "$name:adm_jax.tar.gz" --zone "$zone" \
    --worker all || return
  # shellcheck disable=SC2016  # for the hosts' shells, as below
  on all 'mkdir -p adm_jax && tar xzf adm_jax.tar.gz -C adm_jax && cd adm_jax &&
    . launch/environment.sh && adm_environment "$PWD" "[tfds]" &&
    pip install --quiet "jax[tpu]" gcsfs'
}

train() {  # starts on all hosts, follows the first, and returns the command's exit code
  local words
  words=$(printf '%q ' "$@")
  # A broken connection must not end the run: it is detached, and the log followed.
  on all "cd adm_jax && rm -f ../code && (setsid nohup sh -c '.venv/bin/adm train $words \
    > ../train.log 2>&1; echo \$? > ../code' > /dev/null 2>&1 &)" || return 75
  follow
}

follow() {
  # shellcheck disable=SC2016
  on 0 'touch train.log; tail -n +1 -F train.log & while [ ! -e code ]; do sleep 5; done
    kill $!; exit $(cat code)'
}

run() {
  local code try
  for ((try = 1; try <= tries; try++)); do
    if ! create; then
      echo "$name: no slice of type $type now: trying again in a minute" >&2
      sleep 60
      continue
    fi
    code=0
    train "$@" || code=$?
    # 0: finished; 1: training cannot go on; 2: a mistake in the arguments.
    if ((code <= 2)); then
      return "$code"
    fi
    echo "$name ended with $code: starting again ($try of $tries)" >&2
    stop
  done
  echo "$name: given up after $tries starts; the same command goes on" >&2
  return 75
}

stop() {
  # Two and a half minutes to save. The brackets keep the pattern from matching this command itself.
  # shellcheck disable=SC2016
  on all 'pkill -TERM -f "[b]in/adm train"
    for i in $(seq 75); do pgrep -f "[b]in/adm train" > /dev/null || exit 0; sleep 2; done
    pkill -KILL -f "[b]in/adm train"' || true
}

case $action in
  run)
    case " $* " in
      *" gs://"* | *"=gs://"*) ;;
      *)
        echo "$0: no --workdir gs://BUCKET/...: the hosts need a work directory that all share" >&2
        exit 2
        ;;
    esac
    run "$@"
    ;;
  logs) follow ;;
  stop) stop ;;
  copy)
    if [ $# -ne 2 ]; then
      echo "usage: $0 NAME copy gs://BUCKET/WORKDIR FOLDER" >&2
      exit 2
    fi
    do_it mkdir -p "$2"
    do_it gcloud storage rsync --recursive "$1" "$2"
    ;;
  delete) tpu delete --quiet ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
