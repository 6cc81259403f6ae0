#!/usr/bin/env bash
# Everything that one NVIDIA card has to be asked, in one call of less than ten minutes: the tables
# that docs/performance.md takes, in OUT/card.md. Other arguments are those of card.py beside it.
#
#   bash benchmarks/card.sh OUT
#   bash benchmarks/card.sh OUT --parts adm256 peers256   # what the first call had no time for
#   bash benchmarks/card.sh OUT --tiny                    # on any machine: does all of it work?
#   bash benchmarks/card.sh OUT --parts compile switches --before ../at_main   # old code, and new
#
#   PYTHON      which has adm_jax' needs, and torch and diffusers for the comparison (python3)
#   ADM_WHEELS  a folder of wheels to install first, for machines without a network
set -euo pipefail
if [ $# -lt 1 ] || [ "${1:0:1}" = - ]; then
  echo "usage: $0 OUT [--tiny] [--parts NAME...] [--before CHECKOUT...]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
path=$root
if [ -n "${ADM_WHEELS:-}" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" \
    "$ADM_WHEELS"/*.whl
  path=$path:$site
fi
# Before an installed adm_jax, so that it is this checkout that is measured.
PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} "$python" "$root/benchmarks/card.py" "$@"
