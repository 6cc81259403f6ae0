#!/usr/bin/env bash
# Makes the table and the pictures of docs/trade_off.md anew, for the weights that come with the
# package: about two hours and a half of one CPU core. Stopped, it goes on. Arguments are passed to adm sweep:
# --num 10000
#
#   bash benchmarks/trade_off.sh runs/trade_off
set -euo pipefail
out=${1:?say where samples and measures go, as runs/trade_off}
shift
root=$(cd "$(dirname "$0")/.." && pwd)
adm sweep --model fashion --classifier fashion-classifier \
  --cfg-scales 1,1.5,2,3,5,8 --scales 0,1,2,5,10 --unconditional-scales 0,1,2,5,10 \
  --solver dpm++2m --steps 20 --spacing karras --num 2000 \
  --judge fashion-judge --reference fashion --config.data.split=test \
  --training fashion --out "$out" "$@"
cp "$out/sweep.json" "$root/docs/trade_off.json"
cp "$out/curve.png" "$root/docs/trade_off.png"
cp "$out/neighbors.png" "$root/docs/trade_off_neighbors.png"
