"""Runs small enough to train in a test: one level of 32 channels on the digits."""

import functools

from adm_jax import config as config_lib
from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.models import Classifier, UNet
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import loss_second_moment, uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw

STEPS = 40  # of the diffusion process


def _diffusion():
  return call(Diffusion, schedule=call(schedules.linear, num_steps=STEPS), mean=call(Eps),
              variance=call(LearnedRange))


def _run(task, **kwargs):
  return call(Run, **{
      'data': call(digits), 'task': task, 'timestep_sampler': call(uniform, num_steps=STEPS),
      'optimizer': call(adamw, learning_rate=1e-3), 'batch_size': 8, 'total_steps': 12,
      'ema_rates': (0.9, 0.5), 'log_every': 2, 'save_every': 4, 'keep': 2, **kwargs})


def get_config(**kwargs) -> config_lib.ConfigDict:
  """A U-Net; `kwargs` replace arguments of `Run`. Also the file to give to `adm train --config`."""
  module = call(UNet, image_size=8, out_channels=2, in_channels=1, channels=32, channel_mult=(1,),
               depth=1, attention_resolutions=())
  network = call(networks.unet, module=module, diffusion=_diffusion())
  return _run(call(tasks.diffusion, network=network), **kwargs)


def classifier_config(**kwargs) -> config_lib.ConfigDict:
  module = call(Classifier, image_size=8, num_classes=10, in_channels=1, channels=32,
               channel_mult=(1,), depth=1, attention_resolutions=(), head_channels=32)
  network = call(networks.classifier, module=module, diffusion=_diffusion())
  return _run(call(tasks.classifier, network=network), **kwargs)


def second_moment_config(**kwargs) -> config_lib.ConfigDict:
  return get_config(
      timestep_sampler=call(loss_second_moment, num_steps=STEPS, history=2), **kwargs)


@functools.cache
def unet_run() -> Run:
  return config_lib.build(get_config())
