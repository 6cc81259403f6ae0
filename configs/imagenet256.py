"""ADM on ImageNet 256 x 256, class-conditional: FID 10.94, guided 4.59 (table 5)."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.training import recipes, tasks


def get_config():
  module = call(
      UNet,
      image_size=256, out_channels=6, num_classes=1000,
      channels=256, channel_mult=(1, 1, 2, 2, 4, 4), depth=2, attention_resolutions=(32, 16, 8),
      head_channels=64, dtype='bfloat16', remat='blocks')
  schedule = call(schedules.linear, num_steps=1000)
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(LearnedRange))
  network = call(networks.unet, module=module, diffusion=diffusion)
  return recipes.diffusion(
      call(tasks.diffusion, network=network, objective=losses.mse),
      recipes.images_of('tfds:imagenet2012', 256),
      batch_size=256, total_steps=1_980_000, learning_rate=1e-4)
