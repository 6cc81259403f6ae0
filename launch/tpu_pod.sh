#!/usr/bin/env bash
# Runs an `adm` command on a Cloud TPU slice: makes or reuses it, installs this checkout on all its
# hosts, ends a run that is still alive there, starts the command on each host, follows the first
# one's log, starts again after preemptions, and copies the results. Needs gcloud, logged in, with a
# project and the TPU API enabled.
#
#   launch/tpu_pod.sh [--dry-run] NAME ACTION [COMMAND AND ARGUMENTS OF adm]
#
#   launch/tpu_pod.sh adm1 run train --config configs/imagenet64.py --workdir gs://BUCKET/imagenet64
#   launch/tpu_pod.sh adm1 run sample --model imagenet64 --num 50000 --out gs://BUCKET/samples
#   launch/tpu_pod.sh adm1 run reproduce --rows 5/64,14 --out gs://BUCKET/paper
#   launch/tpu_pod.sh adm1 logs        # follows a run that goes on
#   launch/tpu_pod.sh adm1 stop        # saves and ends it
#   launch/tpu_pod.sh adm1 copy gs://BUCKET/imagenet64 runs/imagenet64
#   launch/tpu_pod.sh adm1 delete
#
# --dry-run prints the commands. What the command writes must be in a bucket, which all hosts share,
# and which outlives the slice. Without the name of a command it is train. What is installed is the
# last commit. A run ends for good with 0 or with a mistake on any host; 75, a signal or a lost
# slice start all hosts again.
#
#   ADM_ZONE      default us-west4-a         ADM_TPU_TYPE    default v5litepod-64
#   ADM_RUNTIME   default v2-alpha-tpuv5-lite; other generations need another, and another zone
#   ADM_SPOT      1: a spot slice, cheaper, taken away at times (default 0)
#   ADM_TRIES     how often to start again (default 100)
#   ADM_WAIT      seconds between tries (default 60)
#   ADM_COPY      a folder here, to which the results are copied when the run has ended with 0
set -euo pipefail

zone=${ADM_ZONE:-us-west4-a}  # a zone that has v5e
type=${ADM_TPU_TYPE:-v5litepod-64}
runtime=${ADM_RUNTIME:-v2-alpha-tpuv5-lite}
tries=${ADM_TRIES:-100}
pause=${ADM_WAIT:-60}
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

create() {  # a slice that is ready
  local options=(--accelerator-type "$type" --version "$runtime")
  if [ "$(state)" != READY ]; then
    if [ -n "$(state)" ]; then
      tpu delete --quiet || return
    fi
    [ "${ADM_SPOT:-0}" = 0 ] || options+=(--spot)
    tpu create "${options[@]}" || return
  fi
}

thrice() {  # a command until it succeeds: new hosts take a while to know the ssh key
  "$@" || { sleep "$pause" && "$@"; } || { sleep "$pause" && "$@"; }
}

install() {  # this checkout, on all hosts; $step is what it was at when it failed
  local archive=${TMPDIR:-/tmp}/adm_jax.tar.gz
  step='packing this checkout'
  do_it git -C "$root" archive --format tar.gz --output "$archive" HEAD || return
  step='copying this checkout to the hosts'
  thrice do_it gcloud compute tpus tpu-vm scp "$archive" "$name:adm_jax.tar.gz" --zone "$zone" \
    --worker all || return
  step='installing on the hosts'
  # The environment is beside the checkout, of which nothing old may stay.
  # shellcheck disable=SC2016  # for the hosts' shells, as below
  thrice on all 'rm -rf adm_jax && mkdir adm_jax && tar xzf adm_jax.tar.gz -C adm_jax &&
    cd adm_jax && . launch/environment.sh && ADM_VENV=$HOME/adm_venv &&
    adm_environment "$PWD" "[tfds]" && pip install --quiet "jax[tpu]" gcsfs'
}

start() {  # starts on all hosts, follows the first, and returns the run's exit code
  local words
  words=$(printf '%q ' "$@")
  # A broken connection must not end the run: it is detached, and the log followed.
  # The words stand outside of the quotes, whatever quotes are in them.
  on all "cd adm_jax && rm -f ../code ../train.log && (setsid nohup bash -c '
    ~/adm_venv/bin/adm \"\$@\" > ../train.log 2>&1
    echo \$? > ../code' adm $words > /dev/null 2>&1 &)" || return 75
  follow
}

temporary() {  # whether an exit code is worth another start: 75 and signals are, mistakes are not
  (($1 == 75 || $1 >= 128))
}

follow() {  # the first host's log to its end; returns a host's mistake, else a code to start again
  local codes one host code=''
  # shellcheck disable=SC2016
  on 0 'touch train.log; tail -n +1 -F train.log & while [ ! -s code ]; do sleep 5; done
    sleep 1; kill $!' || return 75  # the last lines too
  # The others end within two minutes. The codes are printed because gcloud ends with that of one
  # host only, or with its own.
  # shellcheck disable=SC2016
  codes=$(on all 'for i in $(seq 36); do [ ! -s code ] || break; sleep 5; done
    echo "ended with $(cat code || echo 75) $(hostname)"') || code=75
  if [ -n "$dry_run" ]; then
    echo "$codes"
    return
  fi
  while read -r one host; do
    if ((one == 0)); then
      code=${code:-0}
    elif temporary "$one"; then
      code=$one
    else
      echo "$name: $host ended with $one, a mistake: see train.log there" >&2
      return "$one"
    fi
  done < <(sed -n 's/^ended with //p' <<< "$codes")
  return "${code:-75}"
}

written() {  # prints where the command writes: its --workdir or --out, of which the last counts
  local word previous='' found=''
  for word in "$@"; do
    case $previous in
      --workdir | --out) found=$word ;;
    esac
    case $word in
      --workdir=* | --out=*) found=${word#*=} ;;
    esac
    previous=$word
  done
  echo "$found"
}

results() {  # copies what the command has written to $ADM_COPY, if that is asked for
  [ -z "${ADM_COPY:-}" ] || copy "$(written "$@")" "$ADM_COPY"
}

copy() {  # copy gs://BUCKET/FOLDER FOLDER
  do_it mkdir -p "$2"
  do_it gcloud storage rsync --recursive "$1" "$2"
}

run() {
  local code try step
  if [ -n "$(git -C "$root" status --porcelain)" ]; then
    echo "$name: uncommitted changes in $root are not copied to the hosts, only the last commit" >&2
  fi
  for ((try = 1; try <= tries; try++)); do
    if ! create; then
      echo "$name: no slice of type $type in $zone, for gcloud's reason above: trying again" \
        "in $pause s" >&2
      sleep "$pause"
      continue
    fi
    # What is still alive there holds the chips, and would write beside the new run.
    stop
    if ! install; then
      if [ "$(state)" = READY ]; then
        echo "$name: $step failed, for the reason above; the slice stays until" \
          "$0 $name delete" >&2
        return 1
      fi
      echo "$name: $step failed, as the slice is gone: trying again" >&2
      continue
    fi
    code=0
    start "$@" || code=$?
    if ! temporary "$code"; then
      ((code != 0)) || results "$@"
      return "$code"
    fi
    echo "$name ended with $code: starting again ($try of $tries)" >&2
  done
  echo "$name: given up after $tries starts; the same command goes on" >&2
  return 75
}

stop() {
  # Two and a half minutes to save. Python alone: the shell around it writes its exit code.
  # shellcheck disable=SC2016
  on all 'adm="^[^ ]*python[^ ]* [^ ]*bin/adm [a-z]"
    pkill -TERM -f "$adm"
    for i in $(seq 75); do pgrep -f "$adm" > /dev/null || exit 0; sleep 2; done
    pkill -KILL -f "$adm"' || true
}

if [ -z "$dry_run" ] && ! command -v gcloud > /dev/null; then
  echo "$0: gcloud is not installed: see https://cloud.google.com/sdk" >&2
  exit 2
fi
case $action in
  run)
    if [ "${1:-}" = adm ]; then  # as local_cluster.sh takes it
      shift
    fi
    case ${1:-} in
      [a-z]*) ;;
      *) set -- train "$@" ;;
    esac
    case $(written "$@") in
      gs://*) ;;
      *)
        echo "$0: no --workdir gs://BUCKET/... or --out gs://BUCKET/...: the hosts need a folder" \
          "that all share" >&2
        exit 2
        ;;
    esac
    run "$@"
    ;;
  logs) follow ;;
  stop) stop ;;
  copy)
    if [ $# -ne 2 ]; then
      echo "usage: $0 NAME copy gs://BUCKET/FOLDER FOLDER" >&2
      exit 2
    fi
    copy "$1" "$2"
    ;;
  delete) tpu delete --quiet ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
