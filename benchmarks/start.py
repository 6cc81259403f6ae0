"""From command to first image: `adm sample`, with nothing compiled yet, and again.

  adm demo --out runs/demo
  python benchmarks/start.py --model runs/demo/unet --classifier runs/demo/classifier

Each run is a process of its own. Cold is one run with an empty compilation cache; warm are the
medians of runs after it. Python's own start is in the total alone.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

STAGES = ('imports', 'weights', 'tracing', 'compiling', 'sampling')


def start(options: list[str], folder: pathlib.Path, cache: pathlib.Path) -> dict[str, float]:
  """Seconds of each stage of one run, and of the whole command."""
  begin = time.perf_counter()
  done = subprocess.run(
      [sys.executable, '-m', 'adm_jax.cli.main', 'sample', *options, '--out', str(folder)],
      env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(cache)}, text=True, capture_output=True)
  total = time.perf_counter() - begin
  if done.returncode:
    raise SystemExit(done.stderr)
  line = next(line for line in done.stdout.splitlines() if line.startswith('first images'))
  return {**{stage: float(re.search(rf'{stage} ([\d.]+)', line)[1]) for stage in STAGES},
          'first images': float(re.search(r'after ([\d.]+) s', line)[1]), 'command': total}


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--num', default='10', help='images; default: 10')
  parser.add_argument('--rounds', type=int, default=5, help='of warm runs; default: 5')
  parser.add_argument('--model', required=True)
  arguments, rest = parser.parse_known_args()
  options = ['--model', arguments.model, '--num', arguments.num, *rest]
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    runs = [start(options, folder / f'run{i}', folder / 'cache')
            for i in range(arguments.rounds + 1)]
  rows = {'cold': runs[0], 'warm': {stage: statistics.median(run[stage] for run in runs[1:])
                                    for stage in runs[0]}}
  print(f'| seconds | {" | ".join(runs[0])} |\n{"| --- " * (len(runs[0]) + 1)}|')
  for name, row in rows.items():
    print(f'| {name} | {" | ".join(f"{value:.1f}" for value in row.values())} |')
  print(json.dumps({'options': options, **rows}))


if __name__ == '__main__':
  main()
