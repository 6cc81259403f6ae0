#!/usr/bin/env bash
# Makes the table and the pictures of docs/trade_off.md anew, for the weights that come with the
# package. Stopped, it goes on. Arguments are passed to adm sweep: --num 10000
#
#   bash benchmarks/trade_off.sh runs/trade_off
set -euo pipefail
out=${1:?say where samples and measures go, as runs/trade_off}
shift
root=$(cd "$(dirname "$0")/.." && pwd)
adm sweep --model fashion --cfg-scales 1,1.5,2,3,5,8 --num 500 --respacing 50 \
  --judge fashion-judge --reference fashion --config.data.split=test \
  --training fashion --out "$out" "$@"
cp "$out/sweep.json" "$root/docs/trade_off.json"
cp "$out/curve.png" "$root/docs/trade_off.png"
cp "$out/neighbors.png" "$root/docs/trade_off_neighbors.png"
