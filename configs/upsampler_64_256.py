"""ADM's upsampler from 64 to 256 on ImageNet: ADM-G + ADM-U has FID 3.94 (table 6)."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import SuperRes, UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.training import recipes, tasks


def get_config():
  unet = call(
      UNet,
      image_size=256, num_classes=1000,
      in_channels=6,  # x_t, and beside it the small image, enlarged
      out_channels=6,
      channels=192, channel_mult=(1, 1, 2, 2, 4, 4), depth=2, attention_resolutions=(32, 16, 8),
      num_heads=4, dtype='bfloat16', remat='blocks')
  schedule = call(schedules.linear, num_steps=1000)
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(LearnedRange))
  network = call(networks.superres, module=call(SuperRes, unet=unet), diffusion=diffusion,
                 low_res_size=64)
  return recipes.diffusion(
      call(tasks.diffusion, network=network, objective=losses.mse),
      recipes.images_of('tfds:imagenet2012', 256),
      batch_size=256, total_steps=500_000, learning_rate=1e-4)
