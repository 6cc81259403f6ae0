"""A template for your own images: copy it, or override it on the command line.

  adm train --config folder --workdir runs/mine --config.data.path=photos --config.size=tiny
  adm train --config folder --workdir runs/mine --config.data.path=photos.zip
    --config.data.labels=labels.csv --config.task.network.module.num_classes=10

Every argument of the calls below can be overridden, also those that are left at their defaults:
`adm config folder` lists and explains them.
"""

from typing import NamedTuple

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.errors import UsageError
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


class _Size(NamedTuple):
  image_size: int
  channels: int
  channel_mult: tuple[int, ...]  # an entry per level: 64, 32, 16 and 8 pixels
  depth: int  # blocks per level
  attention_resolutions: tuple[int, ...]
  head_channels: int
  dtype: str  # 'float32' for CPUs
  remat: str  # 'none' stores 8 to 12 times more for the backward pass than 'blocks'
  batch_size: int
  learning_rate: float
  total_steps: int
  save_every: int


_SIZES = {
    'tiny': _Size(32, 32, (1, 2, 2), 1, (16, 8), 32, 'float32', 'none', 32, 5e-4, 10_000, 500),
    'small': _Size(64, 64, (1, 2, 3, 4), 2, (16, 8), 32, 'bfloat16', 'blocks', 64, 2e-4, 100_000,
                   2000),
    'base': _Size(64, 128, (1, 2, 3, 4), 3, (32, 16, 8), 64, 'bfloat16', 'blocks', 128, 1e-4,
                  200_000, 5000)}


def get_config(size='base'):
  """Builds the config.

  Args:
    size: 'tiny', of 32 x 32 pixels, for an hour or two on a CPU; 'small', of 64 x 64, for one GPU;
      or 'base', ADM's network for 64 x 64 at 2 / 3 of its width, for a GPU or TPU.
  """
  if size not in _SIZES:
    raise UsageError(f'size={size}: give {", ".join(_SIZES)}')
  of = _SIZES[size]
  data = call(
      open_source,
      path='',  # a folder, a .zip or an .npz of images, or tfds:NAME after `adm prepare NAME`
      image_size=of.image_size,  # and the network's; divisible by 2 for each level but the first
      crop='center',  # 'random', or None if all images are of the network's size already
      labels=None,  # 'folders', 'prefix' (cat_0001.png), or the path of a .json or .csv
      channels=3,  # 1: gray levels; then in_channels=1 and out_channels=2 below
  )
  module = call(
      UNet,
      image_size=of.image_size,
      in_channels=3,
      out_channels=6,  # twice the images' channels: the variance is learned
      num_classes=None,  # how many, with labels: --config.task.network.module.num_classes=10
      channels=of.channels,
      channel_mult=of.channel_mult,
      depth=of.depth,
      attention_resolutions=of.attention_resolutions,
      head_channels=of.head_channels,
      # Of 4 channels at least: norms of each channel alone would hide what color an image has.
      num_groups=min(32, of.channels // 4),
      qkv_first=True,
      dropout=0.1,
      dtype=of.dtype,
      remat=of.remat,
  )
  schedule = call(schedules.cosine, num_steps=1000)  # and the timestep sampler's num_steps
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(LearnedRange))
  network = call(
      networks.unet, module=module, diffusion=diffusion,
      with_null_label=False)  # True, with classes and label_dropout: classifier-free guidance
  return call(
      Run,
      data=data,
      task=call(tasks.diffusion, network=network, objective=losses.mse, label_dropout=0.0),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=of.learning_rate),
      batch_size=of.batch_size,  # of the whole step, over all devices
      microbatches=1,  # more need less memory, and give the same step
      total_steps=of.total_steps,
      ema_rates=(0.9999,),  # sampling uses the slowest
      ema_warmup=True,  # a short run's average should not remember the random start
      loader=call(
          Loader,
          flip=True,  # not for text, digits, or anything else with a left and a right
          num_threads=16,
          num_workers=0,  # processes that decode, for thousands of small images per second
      ),
      log_every=100,
      save_every=of.save_every,
      keep=3,
  )
