"""The same run in every way that one process can run it; `python tests/ways.py OUT WORKDIR`.

Writes OUT, an .npz of `WAY/losses`, `WAY/params/NAME`, and what a way with fsdp moves between
devices (`exchanged/WAY`, `gathered/WAY`). WORKDIR is a finished run's of the same config, on any
number of processes: its checkpoint is restored in three ways, compared, and trained on for a step
(`restored/WAY`, 1 where all is equal).
"""

import dataclasses
import os
import pathlib
import sys
import time

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tiny

from adm_jax import config as config_lib
from adm_jax.data import loading
from adm_jax.data.digits import digits
from adm_jax.data.sources import ArraySource
from adm_jax.devices import sharding
from adm_jax.models.blocks import ResBlock, conv, timestep_embedding
from adm_jax.process.timestep_samplers import loss_second_moment
from adm_jax.sampling import solvers
from adm_jax.sampling.sampler import (
  GuidedNetwork,
  Sampler,
  image_keys,
  initial_noise,
  remembering_x0,
)
from adm_jax.sampling.steps import descend
from adm_jax.training import checkpoints
from adm_jax.weights import folders

STEPS = 20
WAYS = {'1 device': dict(num_devices=1), 'pmap': dict(parallel='pmap'),
        'jit 8 x 1': dict(), 'jit 4 x 2': dict(fsdp=2), 'jit 1 x 8': dict(fsdp=8)}
if __name__ in ('__main__', '<run_path>'):  # as a script or a config; but not where tests import it
  sharding.LEAST_TO_SPLIT = 256  # so that a tiny network is split, too


class Small(nn.Module):
  """One block with dropout: what a U-Net is made of, compiled in a tenth of its time."""
  image_size: int = 8
  in_channels: int = 1
  out_channels: int = 2
  num_classes: int | None = None

  @nn.compact
  def __call__(self, x, t, y=None, *, dropout_keys=None):
    dtypes = dict(dtype=jnp.float32, param_dtype=jnp.float32)
    h = conv(32, 3, 1, **dtypes, name='conv_in')(x)
    h = ResBlock(32, dropout=0.3, name='block')(h, timestep_embedding(t, 64), dropout_keys)
    return conv(self.out_channels, 3, 32, **dtypes, name='conv_out')(h)


@dataclasses.dataclass(frozen=True, repr=False)
class Slow(ArraySource):
  """Images that take a while, so that there is time to end the run that reads them."""

  def __getitem__(self, index):
    time.sleep(float(os.environ.get('WAYS_SECONDS_AN_IMAGE', 0)))
    return super().__getitem__(index)


def slow_digits() -> Slow:
  return Slow(**vars(digits()))


def get_config(**kwargs) -> config_lib.ConfigDict:
  """A run with dropout, whose timesteps follow the losses; also for `adm train --config`."""
  config = tiny.get_config(**{
      'timestep_sampler': config_lib.call(loss_second_moment, num_steps=tiny.STEPS, history=1),
      'batch_size': 16, 'total_steps': STEPS, 'log_every': 1, 'save_every': 5, 'keep': 9,
      'optimizer': config_lib.call(tiny.adamw, learning_rate=1e-4), **kwargs})
  config.task.network.module = config_lib.call(Small)
  config.data = config_lib.call(slow_digits)
  return config


def train(run, trainer) -> tuple[list[float], dict[str, np.ndarray]]:
  key = run.step_key()
  batches = loading.batches(run.data, batch_size=run.batch_size, seed=run.seed)
  state, losses = trainer.init(), []
  for _ in range(STEPS):
    state, metrics = trainer.step(state, trainer.place(next(batches)), key, trainer.frozen)
    losses.append(float(metrics['loss'].value))
  return losses, flat(state.params)


def exchanged(run, trainer) -> int:
  """How often a step moves parts of activations between devices, rather than weights."""
  batch = next(loading.batches(run.data, batch_size=run.batch_size, seed=run.seed))
  lowered = trainer.step.lower(trainer.shapes, trainer.place(batch), run.step_key(),
                               trainer.frozen)
  return lowered.compile().as_text().count(' all-to-all(')


def gathered(run, trainer) -> tuple[int, int]:
  """How often a sampler gathers weights: once for all of its steps, and in each of them."""
  process = run.task.network.diffusion
  sampler = Sampler(GuidedNetwork(run.task.network, process), solvers.ancestral(),
                    descend(process.schedule), run.task.network.image_shape, trainer.mesh)
  keys = image_keys(jax.random.key(0), jnp.arange(trainer.mesh.size))
  x = initial_noise(keys, sampler.shape)
  carry, keys = sharding.place_batch(
      ((x, remembering_x0(sampler.solver).init(x)), keys), trainer.mesh)
  lowered = jax.jit(sampler.advance).lower(
      {'model': trainer.shapes.params}, carry, sampler.steps, keys, None)
  inside, outside = lowered.compile().as_text().split('\nENTRY ')
  return outside.count(' all-gather('), inside.count(' all-gather(')


def flat(params) -> dict[str, np.ndarray]:
  return jax.tree.map(np.asarray, flax.traverse_util.flatten_dict(params, sep='/'))


def restored(run, trainer, workdir) -> bool:
  """Whether the state of a checkpoint arrives whole, and training goes on from it."""
  text = (pathlib.Path(workdir) / 'config.json').read_text()
  with checkpoints.Checkpoints(workdir, text, keep=9) as saved:
    state, _ = saved.restore(STEPS, trainer.shapes)
  plain = folders.load(workdir, weights='params', config=get_config()).params
  equal = all(np.array_equal(a, b) for a, b in
              zip(jax.tree.leaves(plain), jax.tree.leaves(state.params), strict=True))
  placed = all(a.sharding.is_equivalent_to(b.sharding, a.ndim) for a, b in
               zip(jax.tree.leaves(state), jax.tree.leaves(trainer.shapes), strict=True))
  batch = next(loading.batches(run.data, batch_size=run.batch_size, seed=run.seed))
  later, _ = trainer.step(state, trainer.place(batch), jax.random.key(1), trainer.frozen)
  return equal and placed and int(later.step) == STEPS + 1


if __name__ == '__main__':
  out, workdir = sys.argv[1:]
  found = {}
  for way, kwargs in WAYS.items():
    run = config_lib.build(get_config(**kwargs))
    trainer = run.trainer()
    losses, params = train(run, trainer)
    found[f'{way}/losses'] = losses
    found |= {f'{way}/params/{name}': value for name, value in params.items()}
    if run.fsdp == 8:
      found[f'exchanged/{way}'] = exchanged(run, trainer)
      found[f'gathered/{way}'] = gathered(run, trainer)
    if workdir != '-' and way in ('1 device', 'jit 8 x 1', 'jit 1 x 8'):
      found[f'restored/{way}'] = restored(run, trainer, workdir)
  np.savez(out, **found)
