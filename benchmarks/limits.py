"""The least time that a step of the published networks takes: by arithmetic, and by memory.

  python benchmarks/limits.py --batch 8

Operations and bytes are counted from the traced programs (`adm_jax.devices.flops`), in bfloat16, of
convolutions and products alone; all else would have to be fused into them for these limits to be
reached. Nothing is computed, so that any machine will do.
"""

import argparse
import json

import jax

from adm_jax.devices import flops
from adm_jax.devices.chips import CHIPS
from adm_jax.sampling.guidance import classifier_gradient
from adm_jax.weights import catalog, openai

# Bytes a second of a device's memory, as its maker states them.
_CHIPS = {kind: CHIPS[kind] for kind in ('NVIDIA H100 80GB HBM3', 'NVIDIA H200',
                                       'NVIDIA A100-SXM4-80GB', 'TPU v5 lite')}


def network(name):
  """A published network that computes in bfloat16, and the shapes of its weights, in bfloat16."""
  model = catalog.find(name)
  module = openai.create(model.kind, model.flags)[0].clone(dtype='bfloat16')
  params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, 'bfloat16'),
                        openai.abstract_params(module))
  return module, params


def steps(name, batch_size):
  """{what: (function, arguments)} of a published model and its classifier."""
  (unet, params), (classifier, guide) = network(name), network(f'{name}-classifier')
  size = unet.image_size
  x = jax.ShapeDtypeStruct((batch_size, size, size, 3), 'bfloat16')
  t, y = (jax.ShapeDtypeStruct((batch_size,), kind) for kind in ('float32', 'int32'))

  def forward(params, x, t, y):
    return unet.apply({'params': params}, x, t, y)

  def guided(params, guide, x, t, y):
    gradient = classifier_gradient(lambda x, t: classifier.apply({'params': guide}, x, t), y, 1.0)
    return forward(params, x, t, y), gradient(x, t)

  def training(params, x, t, y):
    return jax.grad(lambda params: (forward(params, x, t, y) ** 2).mean())(params)
  return {'forward': (forward, (params, x, t, y)),
          'guided step': (guided, (params, guide, x, t, y)),
          'training step': (training, (params, x, t, y))}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', nargs='+', default=['imagenet64', 'imagenet256'])
  parser.add_argument('--batch', type=int, default=8)
  arguments = parser.parse_args()
  print(f'batch {arguments.batch}; milliseconds per step: the larger of arithmetic and memory\n')
  print(''.join(f'{head:>24}' for head in ('model', 'step', 'TFLOP', 'GB', *_CHIPS)))
  rows = []
  for name in arguments.models:
    for what, (function, args) in steps(name, arguments.batch).items():
      work, moved = flops.count(function, *args), flops.traffic(function, *args)
      limits = {kind: (work / chip.peak, moved / chip.bandwidth)
                for kind, chip in _CHIPS.items()}
      rows.append({'model': name, 'step': what, 'flops': work, 'bytes': moved,
                   'seconds': {kind: max(pair) for kind, pair in limits.items()}})
      cells = [name, what, f'{work / 1e12:.2f}', f'{moved / 1e9:.2f}'] + [
          f'{1e3 * max(pair):.2f} ({"arithmetic" if pair[0] >= pair[1] else "memory"})'
          for pair in limits.values()]
      print(''.join(f'{cell:>24}' for cell in cells), flush=True)
  print(json.dumps({'batch': arguments.batch, 'rows': rows}))


if __name__ == '__main__':
  main()
