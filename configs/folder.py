"""A template for your own images: copy it, or override it on the command line.

  adm train --config configs/folder.py --workdir runs/mine --config.data.path=photos
  adm train --config configs/folder.py --workdir runs/mine --config.data.path=photos.zip
    --config.data.labels=labels.csv --config.task.network.module.num_classes=10

Every argument of the calls below can be overridden, also those that are left at their defaults.
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  data = call(
      open_source,
      path='',  # a folder, a .zip or an .npz of images, or tfds:NAME after `adm prepare NAME`
      image_size=64,  # and the network's; divisible by 2 for each level but the first
      crop='center',  # 'random', or None if all images are of the network's size already
      labels=None,  # 'folders', 'prefix' (cat_0001.png), or the path of a .json or .csv
      channels=3,  # 1: gray levels; then in_channels=1 and out_channels=2 below
  )
  # For 64 x 64; trains on one accelerator.
  module = call(
      UNet,
      image_size=64,
      in_channels=3,
      out_channels=6,  # twice the images' channels: the variance is learned
      num_classes=None,  # how many, with labels: --config.task.network.module.num_classes=10
      channels=128,
      channel_mult=(1, 2, 3, 4),  # an entry per level: 64, 32, 16 and 8 pixels
      depth=3,  # blocks per level
      attention_resolutions=(32, 16, 8),
      head_channels=64,
      qkv_first=True,
      dropout=0.1,
      dtype='bfloat16',  # 'float32' for CPUs
      remat='blocks',  # 'none' stores 8 to 12 times more for the backward pass
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
      optimizer=call(adamw, learning_rate=1e-4),
      batch_size=128,  # of the whole step, over all devices
      microbatches=1,  # more need less memory, and give the same step
      total_steps=200_000,
      ema_rates=(0.9999,),  # sampling uses the slowest
      ema_warmup=True,  # a short run's average should not remember the random start
      loader=call(
          Loader,
          flip=True,  # not for text, digits, or anything else with a left and a right
          num_threads=16,
          num_workers=0,  # processes that decode, for thousands of small images per second
      ),
      log_every=100,
      save_every=5000,
      keep=3,
  )
