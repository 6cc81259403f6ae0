"""What the papers' training runs share; `configs/` has a file per run, with network and process.

All of them compute in bfloat16: the reference computes in float16, with loss scaling, which
bfloat16 makes needless. They store for the backward pass what remat='blocks' says, 8 to 12 times
less than 'none', and no convolution is computed twice. Their schedules stand in
`schedules.respace`, which keeps all steps for spec='', as those of published weights do: so their
betas are the same to the last bit.
"""

from typing import Any

from adm_jax.config import ConfigDict, call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def diffusion(task: ConfigDict, data: ConfigDict, *, batch_size: int, total_steps: int,
              learning_rate: float = 1e-4, timestep_sampler=uniform, flip: bool = True,
              num_threads: int = 16, **kwargs: Any) -> ConfigDict:
  """Trains a model or upsampler by Adam at a constant rate, with EMA 0.9999 (tables 11 and 13).

  Args:
    task: a call of `tasks.diffusion`.
    data: of `images_of`.
    batch_size: of the whole step, over all devices.
    total_steps: when to stop.
    learning_rate: constant.
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
  """Trains a noisy classifier by AdamW, whose rate falls linearly to 0, without EMA (table 12).

  Args:
    task: a call of `tasks.classifier`.
    learning_rate: at the first step.
    weight_decay: decoupled.
    others: as of `diffusion`.
  """
  optimizer = call(adamw, learning_rate=learning_rate, weight_decay=weight_decay,
                   linear_decay_steps=total_steps)
  return _run(task, data, batch_size, total_steps, uniform, True, num_threads,
              optimizer=optimizer, **kwargs)


def images_of(path: str, image_size: int, **kwargs: Any) -> ConfigDict:
  """Returns a call of `open_source`; `--config.data.path=FOLDER` replaces them."""
  return call(open_source, path=path, image_size=image_size, **kwargs)


def _run(task, data, batch_size, total_steps, timestep_sampler, flip, num_threads,
         **kwargs) -> ConfigDict:
  num_steps = task.network.diffusion.schedule.schedule.num_steps
  return call(Run, **{
      'data': data, 'task': task, 'timestep_sampler': call(timestep_sampler, num_steps=num_steps),
      'batch_size': batch_size, 'total_steps': total_steps, 'save_every': 10_000, 'keep': 3,
      'loader': call(Loader, flip=flip, num_threads=num_threads), **kwargs})
