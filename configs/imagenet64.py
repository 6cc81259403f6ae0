"""ADM on ImageNet 64 x 64, class-conditional, with dropout: FID 2.07 in 250 steps (table 5)."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.training import recipes, tasks


def get_config():
  module = call(
      UNet,
      image_size=64, out_channels=6, num_classes=1000,
      channels=192, channel_mult=(1, 2, 3, 4), depth=3, attention_resolutions=(32, 16, 8),
      head_channels=64, qkv_first=True, dropout=0.1, dtype='bfloat16', remat='blocks')
  schedule = call(schedules.cosine, num_steps=1000)
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(LearnedRange))
  network = call(networks.unet, module=module, diffusion=diffusion)
  return recipes.diffusion(
      call(tasks.diffusion, network=network, objective=losses.mse),
      recipes.images_of('tfds:imagenet2012', 64),
      batch_size=2048, total_steps=540_000, learning_rate=3e-4)
