"""The papers' training runs: what all of them share. `configs/` has one file a run."""

from typing import Any

from adm_jax.config import ConfigDict, call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw
from adm_jax.weights import catalog, flags

# ADM's network for CIFAR-10, as published with DDPM-IP.
CIFAR10 = ('--image_size 32 --num_channels 128 --num_head_channels 32 --num_res_blocks 3 '
           '--attention_resolutions 16,8 --resblock_updown True --use_new_attention_order True '
           '--learn_sigma True --dropout 0.3 --noise_schedule cosine '
           '--rescale_learned_sigmas True ')


def published(name: str, **changes: Any) -> ConfigDict:
  """The training task of a published model, with some of the reference's flags changed."""
  model = catalog.find(name)
  return network(model.kind, {**flags.words(model.flags), **changes})


def network(kind: str, words: Any) -> ConfigDict:
  """The training task that the reference's flags mean, in bfloat16 and with remat 'blocks'.

  The reference computes in float16, with loss scaling, which bfloat16 makes needless. 'blocks'
  stores 8 to 12 times less than 'none' and computes no convolution twice.
  """
  network = flags.describe(kind, words)
  module = network.module.unet if kind == 'superres' else network.module
  module.update(dtype='bfloat16', remat='blocks')
  if kind == 'classifier':
    return call(tasks.classifier, network=network)
  return call(tasks.diffusion, network=network, objective=flags.objective(kind, words))


def diffusion(task: ConfigDict, data: ConfigDict, *, batch_size: int, total_steps: int,
              learning_rate: float = 1e-4, timestep_sampler=uniform, flip: bool = True,
              num_threads: int = 16, **kwargs: Any) -> ConfigDict:
  """A diffusion model or upsampler: Adam at a constant rate, EMA 0.9999 (tables 11 and 13).

  Args:
    task: of `published` or `network`.
    data: of `images_of`.
    batch_size: of the whole step, over all devices.
    timestep_sampler: a function of `timestep_samplers`.
    flip: the reference of ADM flips in all its training, that of IDDPM does not.
    num_threads: that decode; 16 for photographs, 1 for images as small as CIFAR-10's.
    kwargs: more arguments of `Run`.
  """
  return _run(task, data, batch_size, total_steps, timestep_sampler, flip, num_threads,
              optimizer=call(adamw, learning_rate=learning_rate), ema_rates=(0.9999,), **kwargs)


def classifier(task: ConfigDict, data: ConfigDict, *, batch_size: int, total_steps: int,
               learning_rate: float, weight_decay: float, num_threads: int = 16,
               **kwargs: Any) -> ConfigDict:
  """A noisy classifier: AdamW whose rate falls linearly to 0, no EMA (table 12)."""
  optimizer = call(adamw, learning_rate=learning_rate, weight_decay=weight_decay,
                   linear_decay_steps=total_steps)
  return _run(task, data, batch_size, total_steps, uniform, True, num_threads,
              optimizer=optimizer, **kwargs)


def images_of(path: str, image_size: int, **kwargs: Any) -> ConfigDict:
  """`open_source` to call later; `--config.data.path=FOLDER` replaces them."""
  return call(open_source, path=path, image_size=image_size, **kwargs)


def _run(task, data, batch_size, total_steps, timestep_sampler, flip, num_threads,
         **kwargs) -> ConfigDict:
  num_steps = task.network.diffusion.schedule.schedule.num_steps
  return call(Run, **{
      'data': data, 'task': task, 'timestep_sampler': call(timestep_sampler, num_steps=num_steps),
      'batch_size': batch_size, 'total_steps': total_steps, 'save_every': 10_000, 'keep': 3,
      'loader': call(Loader, flip=flip, num_threads=num_threads), **kwargs})
