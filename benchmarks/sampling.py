"""Images per second, end to end: from labels to images on the host, for some solvers.

  adm demo --out runs/demo
  python benchmarks/sampling.py --model runs/demo/unet --classifier runs/demo/classifier
  XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/sampling.py ...  # 8 devices
  python benchmarks/sampling.py --model imagenet256 --classifier imagenet256-classifier  # a GPU

Methods take turns after one warm-up each, and medians are printed. `scan` is the time of the whole
run over that of its steps one by one: one step, compiled alone, times their number.
"""

import argparse
import json
import statistics
import time
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.devices import compilation_cache, sharding
from adm_jax.sampling import pipeline
from adm_jax.sampling import sampler as sampling
from adm_jax.sampling.guidance import ByClassifier


class Method(NamedTuple):
  solver: str
  steps: str | int


METHODS = {'ancestral, 250': Method('ancestral', '250'), 'DDIM, 25': Method('ddim', 'ddim25'),
           'DPM-Solver++(2M), 20': Method('dpm++2m', 20),
           'DPM-Solver++(2M), 15': Method('dpm++2m', 15)}


def whole(adm: pipeline.Pipeline, num: int, seed: int) -> float:
  """Seconds from labels to uint8 images on the host."""
  labels = None if adm.num_classes is None else np.arange(num) % adm.num_classes
  begin = time.perf_counter()
  adm(labels, num=num, seed=seed, batch_size=num, chunks=1)
  return time.perf_counter() - begin


def one_step(adm: pipeline.Pipeline, num: int) -> Callable[[], float]:
  """Returns a function that gives the seconds of one step in the middle, compiled alone."""
  sampler = adm.sampler
  labels = None if adm.num_classes is None else np.zeros(num, np.int32)
  keys, labels = sharding.place_batch((sampling.image_keys(jax.random.key(0), np.arange(num)),
                                       None if labels is None else jnp.asarray(labels)),
                                      sampler.mesh)
  x = sampling.initial_noise(keys, sampler.shape)
  carry = x, sampling.remembering_x0(sampler.solver).init(x)
  middle = sampler.num_steps // 2
  steps = jax.tree.map(lambda a: a[middle:middle + 1], sampler.steps)
  advance = jax.jit(sampler.advance)
  jax.block_until_ready(advance(adm.params, carry, steps, keys, labels))

  def run():
    begin = time.perf_counter()
    jax.block_until_ready(advance(adm.params, carry, steps, keys, labels))
    return time.perf_counter() - begin
  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--model', required=True)
  parser.add_argument('--classifier')
  parser.add_argument('--batch', type=int, help='over all devices; default: what adm sample takes')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
  arguments = parser.parse_args()
  compilation_cache.use()
  runs, steps = {}, {}
  guides = [()] if arguments.classifier is None else [(), (ByClassifier(arguments.classifier),)]
  for guide in guides:
    for name in arguments.methods:
      method = METHODS[name]
      key = name, 'guided' if guide else 'unguided'
      adm = runs[key] = pipeline.load(
          arguments.model, guidance=guide, solver=method.solver, steps=method.steps)
      num = arguments.batch or adm.default_batch_size
      whole(adm, num, 0)  # compiles
      steps[key] = one_step(adm, num)
  runs_took, steps_took = ({key: [] for key in runs} for _ in range(2))
  for turn in range(arguments.rounds):
    for key, adm in runs.items():
      runs_took[key].append(whole(adm, num, turn))
      steps_took[key] += [steps[key]() for _ in range(10)]
  print('| method | guidance | batch | evaluations | images/s | ms per evaluation | scan |\n'
        '| --- | --- | --- | --- | --- | --- | --- |')
  results = []
  for (name, guidance), adm in runs.items():
    took, step = (statistics.median(found[name, guidance]) for found in (runs_took, steps_took))
    evaluations = adm.sampler.num_evaluations
    print(f'| {name} | {guidance} | {num} | {evaluations} | {num / took:.3g} | '
          f'{1e3 * took / evaluations:.3g} | {took / (step * adm.sampler.num_steps):.3f} |')
    results.append({'method': name, 'guidance': guidance, 'batch': num, 'seconds': took,
                    'step': step, 'evaluations': evaluations})
  print(json.dumps({'device': jax.devices()[0].device_kind, 'devices': jax.device_count(),
                    'model': arguments.model, 'results': results}))


if __name__ == '__main__':
  main()
