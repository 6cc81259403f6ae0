#!/usr/bin/env bash
# One run of N processes with M simulated CPU devices each, on this machine, to try what a cluster
# does. The processes are told of each other by the flags of `adm train`, which other commands know as
# well, and which are added:
#
#   launch/local_cluster.sh [--dry-run] N M adm train --config configs/digits_unet.py --workdir DIR
#   launch/local_cluster.sh 2 4 adm sample --num 2000 --out DIR
#   launch/local_cluster.sh 2 4 adm evaluate REF SAMPLES --shared DIR
#
# Prints the processes' ids. SIGTERM and SIGINT are passed on. Ends with 1 or 2 (a mistake) if any
# process did, else with 75 (start again) if any did, else with another code that is not 0. Once one
# process has ended, the others have ADM_GRACE seconds (60; without end where processes do without
# each other, as those of adm sample) to do the same; what hangs, or is stopped, is killed then. The others of a process that is stopped end after 30 seconds without a
# sign of it (ADM_HEARTBEAT_SECONDS), so that all is over within 100. ADM_PORT fixes the port of
# process 0.
set -euo pipefail

dry_run=''
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
grace=60
if [[ " $* " =~ (adm|cli\.main)\ (sample|evaluate|reference|nll|reproduce)\  ]]; then
  grace=1000000
fi
grace=${ADM_GRACE:-$grace}
if [ $# -lt 3 ] || ! [[ $1 =~ ^[1-9][0-9]*$ && $2 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 [--dry-run] N M COMMAND...: N processes of M simulated devices; those that have" \
    "not ended $grace s after the first of them (ADM_GRACE) are killed" >&2
  exit 2
fi
count=$1 devices=$2
shift 2
port=${ADM_PORT:-$(python3 -c 'import socket
with socket.socket() as s:
  s.bind(("127.0.0.1", 0))
  print(s.getsockname()[1])')}

export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
pids=()
for ((i = 0; i < count; i++)); do
  flags=()
  if ((count > 1)); then
    flags=(--coordinator "127.0.0.1:$port" --num-processes "$count" --process "$i")
  fi
  if [ -n "$dry_run" ]; then
    echo "JAX_PLATFORMS=cpu XLA_FLAGS='${XLA_FLAGS# }' $* ${flags[*]}"
    continue
  fi
  "$@" "${flags[@]}" &
  pids+=($!)
  echo "process $i has id $!"
done
[ -z "$dry_run" ] || exit 0

trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
since=''
while :; do
  alive=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      alive+=("$pid")
    fi
  done
  ((${#alive[@]} > 0)) || break
  if ((${#alive[@]} < count)); then
    since=${since:-$SECONDS}
    if ((SECONDS - since >= grace)); then
      echo "processes ${alive[*]} had not ended $grace s after the first: killed" >&2
      kill -KILL "${alive[@]}" 2>/dev/null || true
      since=$SECONDS
    fi
  fi
  sleep 0.2 || true  # which Ctrl-C ends, too
done
code=0
for pid in "${pids[@]}"; do
  one=0
  wait "$pid" || one=$?
  case $code,$one in
    [12],*) ;;
    *,[12] | *,75 | 0,*) code=$one ;;
  esac
done
exit "$code"
