"""ADM on CIFAR-10, unconditional, 57 M parameters: DDPM-IP's baseline, FID 2.99 in 1,000 steps.

Its recipe names no number of steps; this is IDDPM's. `--config.data.path=FOLDER` trains on other
images.
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import loss_second_moment
from adm_jax.training import recipes, tasks


def get_config():
  module = call(
      UNet,
      image_size=32, out_channels=6,
      channels=128, channel_mult=(1, 2, 2, 2), depth=3, attention_resolutions=(16, 8),
      head_channels=32, qkv_first=True, dropout=0.3, dtype='bfloat16', remat='blocks')
  schedule = call(schedules.cosine, num_steps=1000)
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(LearnedRange))
  network = call(networks.unet, module=module, diffusion=diffusion)
  return recipes.diffusion(
      call(tasks.diffusion, network=network, objective=losses.rescaled_mse),
      recipes.images_of('tfds:cifar10', 32, labels=None),
      batch_size=128, total_steps=500_000, timestep_sampler=loss_second_moment, num_threads=1)
