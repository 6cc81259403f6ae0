"""One step of the network: ours against Diffusers' UNet2DModel with the same weights, in one run.

Outputs are compared first; then both sides take turns, after a warm-up, and medians are printed.

  python benchmarks/step.py                         # small networks, for CPUs
  python benchmarks/step.py --networks adm64 adm256 --batch 1 8 32 64 --dtype bfloat16   # a GPU

Without torch and diffusers ours is timed alone. What a side has no memory for is left out.
"""

import argparse
import contextlib
import functools
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers

from adm_jax.models import UNet
from adm_jax.weights import catalog, flags, openai

try:
  import diffusers  # noqa: F401 (for peers)
  import torch
except ImportError as error:
  print(f'without PyTorch\'s side: {error}', file=sys.stderr)
  torch = None

_SIDES = ('ours', 'diffusers', 'channels last', 'compiled')
_SMALL = dict(out_channels=6, channels=64, depth=2, head_channels=64, qkv_first=True)


def networks():
  """{name: U-Net}; the full ones in the attention order that Diffusers knows, of equal cost."""
  def published(name):
    model = catalog.find(name)
    words = {**flags.words(model.flags), 'use_new_attention_order': True, 'dropout': 0.0}
    return openai.create(model.kind, words)[0]
  return {
      'tiny': lambda: UNet(8, channel_mult=(1, 2), attention_resolutions=(4,),
                           **{**_SMALL, 'depth': 1}),
      's32': lambda: UNet(32, channel_mult=(1, 2, 2), attention_resolutions=(16, 8), **_SMALL),
      's64': lambda: UNet(64, channel_mult=(1, 2, 3, 4), attention_resolutions=(16, 8), **_SMALL),
      'adm64': lambda: published('imagenet64'), 'adm256': lambda: published('imagenet256')}


def random_params(module):
  """Small random weights, none zero: speed does not depend on them, comparing outputs does."""
  rng = np.random.default_rng(0)
  def draw(leaf):
    fan_in = max(1, int(np.prod(leaf.shape[:-1])))
    return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in))
  return jax.tree.map(draw, openai.abstract_params(module))


def ours(module, params, x, t, y, remat):
  """{what: a function without arguments that runs it and waits}."""
  trained = module.clone(remat=remat)
  optimizer = optax.adamw(1e-4)

  @jax.jit
  def forward(params, x):
    return module.apply({'params': params}, x, t, y)

  @functools.partial(jax.jit, donate_argnums=0)
  def train(state, x):
    params, opt_state, ema = state
    def loss(params):
      return jnp.square(trained.apply({'params': params}, x, t, y)).mean()
    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
    params = optax.apply_updates(params, updates)
    return params, opt_state, optax.incremental_update(params, ema, 1e-4)

  state = [jax.tree.map(jnp.array, (params, optimizer.init(params), params))]
  def step():
    state[0] = jax.block_until_ready(train(state[0], x))
  return {'forward': lambda: jax.block_until_ready(forward(params, x)), 'train': step}


def theirs(peer, x, t, y, compiled):
  """The same of a torch module."""
  module = torch.compile(peer, dynamic=False) if compiled else peer
  optimizer = torch.optim.AdamW(peer.parameters(), 1e-4, fused=x.is_cuda)
  ema = [p.detach().clone() for p in peer.parameters()]
  wait = torch.cuda.synchronize if x.is_cuda else lambda: None
  autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda)

  def forward():
    with torch.no_grad(), autocast:
      module(x, t, y)
    wait()

  def train():
    with autocast:
      loss = module(x, t, y).sample.square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    torch._foreach_lerp_(ema, list(peer.parameters()), 1e-4)
    wait()
  return {'forward': forward, 'train': train}


def measure(sides, rounds):
  """{side: {what: median seconds}}, the sides taking turns; without what fails, as for memory.

  Each timed run follows one of the same side that is not: after a run of PyTorch its idle OpenMP
  threads spin for a while, which would be charged to whoever comes next.
  """
  times = {side: {} for side in sides}
  for what in ('forward', 'train'):
    runs = {side: run for side, found in sides.items()
            if (run := _warm(found[what], f'{side}, {what}'))}
    took = {side: [] for side in runs}
    for _ in range(rounds):
      for side, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        took[side].append(time.perf_counter() - start)
    for side, values in took.items():
      times[side][what] = float(np.median(values))
  return times


def _warm(run, name):
  """`run`, once it has compiled and is known to work; None if it does not."""
  try:
    for _ in range(2):
      run()
  except RuntimeError as error:  # PyTorch's and JAX's, where memory ends
    print(f'{name}: {" ".join(str(error).split())[:200]}', file=sys.stderr)
    return None
  return run


@contextlib.contextmanager
def _exact():
  """Float32 is float32, not TF32, on GPUs too."""
  before = torch.backends.cudnn.allow_tf32
  torch.backends.cudnn.allow_tf32 = False
  try:
    with jax.default_matmul_precision('highest'):
      yield
  finally:
    torch.backends.cudnn.allow_tf32 = before


def peer_sides(module, params, x, t, y, compiled):
  """(the sides of PyTorch, how far its outputs are from ours, of their rms)."""
  device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
  given_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(device)
  given = [None if value is None else torch.from_numpy(value).to(device) for value in (t, y)]
  def peer():
    return peers.diffusers_unet(module, params).to(device)
  # In float32 on both sides, whatever is timed afterwards.
  with torch.no_grad(), _exact():
    wanted = peer()(given_x, *given).sample.cpu().numpy().transpose(0, 2, 3, 1)
    found = module.apply({'params': params}, x, t, y)
  error = float(np.abs(found - wanted).max() / wanted.std())
  assert error < 2e-3, f'outputs differ by {error} of their rms'
  last = dict(memory_format=torch.channels_last)
  sides = {'diffusers': theirs(peer(), given_x, *given, compiled=False),
           'channels last': theirs(peer().to(**last), given_x.to(**last), *given, compiled=False)}
  if compiled:
    sides['compiled'] = theirs(peer().to(**last), given_x.to(**last), *given, compiled=True)
  return sides, error


def main():
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--networks', nargs='+', choices=networks(), default=['s32', 's64'])
  parser.add_argument('--batch', nargs='+', type=int, default=[4])
  parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32')
  parser.add_argument('--remat', default='blocks', help='of our training step (default blocks)')
  parser.add_argument('--rounds', type=int, default=9)
  parser.add_argument('--no-compile', action='store_true', help='leave torch.compile out')
  arguments = parser.parse_args()
  results = []
  columns = ('network', 'batch', 'what', 'ours, ms', *_SIDES[1:], 'ours / best')
  print(f'| {" | ".join(columns)} |\n{"| --- " * len(columns)}|', flush=True)
  for name in arguments.networks:
    module = networks()[name]()
    params = random_params(module)
    for batch in arguments.batch:
      rng = np.random.default_rng(1)
      x = rng.standard_normal((batch, module.image_size, module.image_size, 3), np.float32)
      t = rng.integers(0, 1000, batch)
      y = None if module.num_classes is None else rng.integers(0, module.num_classes, batch)
      run = functools.partial(module.clone, dtype=arguments.dtype)()
      sides, error = {'ours': ours(run, params, jnp.asarray(x), t, y, arguments.remat)}, None
      if torch is not None:
        others, error = peer_sides(module, params, x, t, y, not arguments.no_compile)
        sides |= others
      times = measure(sides, arguments.rounds)
      for what in ('forward', 'train'):
        best = min((values[what] for side, values in times.items()
                    if side != 'ours' and what in values), default=None)
        cells = [f'{1e3 * times[side][what]:.1f}' if what in times.get(side, {}) else '-'
                 for side in _SIDES]
        ratio = '-' if best is None or what not in times['ours'] else (
            f'{times["ours"][what] / best:.2f}')
        print(f'| {name} | {batch} | {what} | {" | ".join(cells)} | {ratio} |', flush=True)
      results.append({'network': name, 'batch': batch, 'dtype': arguments.dtype, 'error': error,
                      'seconds': times})
  print(json.dumps({'device': str(jax.devices()[0].device_kind), 'jax': jax.__version__,
                    'torch': torch and torch.__version__, 'results': results}))


if __name__ == '__main__':
  main()
