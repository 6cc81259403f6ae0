#!/usr/bin/env bash
# Trains the students of the digits, and makes the section of docs/few_steps.md on them anew: about
# two hours on 2 CPU cores; the pictures take matplotlib. Stopped, it goes on. The demo comes first,
# in the length that docs/few_evaluations.md says.
#
#   bash benchmarks/few_steps.sh runs/longer runs/few_steps
set -euo pipefail
demo=${1:?say where the demo lies, as runs/longer} out=${2:?say where students go, as runs/few_steps}
root=$(cd "$(dirname "$0")/.." && pwd)

student() { # FOLDER STARTS-FROM OVERRIDES...
  local folder=$1 from=$2
  shift 2
  adm train --config digits_student --workdir "$folder" --init-from "$from" "$@"
}

student "$out/guided" "$demo/unet" --config.task.teacher="$demo/unet" \
  --config.task.classifier="$demo/classifier"
for steps in 4 1 2 8; do
  student "$out/consistency_$steps" "$out/guided" --config.stage=few --config.steps="$steps" \
    --config.task.teacher="$out/guided"
done
from=$out/guided
for steps in 8 4 2 1; do
  student "$out/progressive_$steps" "$from" --config.stage=halved --config.steps="$steps" \
    --config.task.teacher="$from"
  from=$out/progressive_$steps
done
python "$root/benchmarks/few_steps.py" digits --teacher "$demo/unet" \
  --classifier "$demo/classifier" --scale 2 --guided "$out/guided" --judge digits --out "$out/digits" \
  --consistency "$out"/consistency_* --progressive "$out"/progressive_*
