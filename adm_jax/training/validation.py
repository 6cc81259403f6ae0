"""A task's loss and accuracy on images that it is not trained on, while a run goes on."""

import concurrent.futures
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.data.loading import Reader
from adm_jax.data.sources import Source
from adm_jax.devices import sharding
from adm_jax.sampling.sampler import image_keys
from adm_jax.training.state import TrainState
from adm_jax.training.steps import by_quartile
from adm_jax.training.tasks import Task

# A stream of the run's seed, beside those of the loop and of the grid.
_VALIDATION = 3


def validator(task: Task, source: Source, mesh: jax.sharding.Mesh, *, batch_size: int, seed: int,
              num_threads: int = 1) -> Callable[[TrainState, Any, int], dict[str, float]]:
  """Makes (state, frozen, step) -> {name: mean}, compiled at its first call.

  Every image is seen once, without dropout, at a timestep drawn uniformly, whatever the run's
  sampler of timesteps: timestep and noise are functions of (seed, step, the image's place in the
  source) alone, so that neither devices nor batches change them. An image that cannot be read is
  left out. Where there are averages, `ema_NAME` is of the slowest one.

  All processes call it alike, and each reads its own part of every batch.

  Args:
    task: network and loss.
    source: the images.
    mesh: of the run's devices.
    batch_size: images at once, over all devices; a multiple of their number.
    seed: of the run.
    num_threads: that read images.
  """
  num_timesteps = task.network.diffusion.schedule.num_steps
  reader = Reader(source, max_unreadable=1.0)
  run_key = jax.random.fold_in(jax.random.key(seed), _VALIDATION)
  rows = batch_size // jax.process_count()
  first = jax.process_index() * rows
  nothing = {'image': np.zeros(source.image_shape, np.uint8), 'label': np.int32(0)}

  def example(index: int) -> dict:
    found = reader.at(index, None) if index < len(source) else None
    return {**(found or nothing), 'weight': np.float32(found is not None),
            'index': np.int32(index)}

  def measured(params, frozen, batch, key, step):
    keys = jax.vmap(jax.random.split)(image_keys(key, batch['index']))  # [B 2]
    t = jax.vmap(lambda key: jax.random.randint(key, (), 0, num_timesteps))(keys[:, 0])
    examples = {'image': batch['image'], 'label': batch['label'], 't': t, 'key': keys[:, 1],
                'step': jnp.full(t.shape, step)}
    terms = task.terms(params, frozen, examples, None)
    return by_quartile(terms, t, num_timesteps, batch['weight'])
  measured = jax.jit(sharding.tracing_for(mesh)(measured),
                     out_shardings=sharding.replicated(mesh))

  def validate(state: TrainState, frozen: Any, step: int) -> dict[str, float]:
    key = jax.random.fold_in(run_key, step)
    networks = {'': state.params}
    if state.ema:
      networks['ema_'] = state.ema[max(state.ema, key=float)]
    found = []
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
      for begin in range(0, len(source), batch_size):
        read = list(pool.map(example, range(begin + first, begin + first + rows)))
        batch = sharding.place_rows({name: np.stack([one[name] for one in read])
                                     for name in read[0]}, mesh)
        found.append(jax.device_get({prefix: measured(params, frozen, batch, key, step)
                                     for prefix, params in networks.items()}))
    totals = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64), *found)
    return {prefix + name: float(mean.value) for prefix, means in totals.items()
            for name, mean in means.items() if mean.count}
  return validate
