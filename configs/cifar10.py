"""ADM on CIFAR-10, unconditional, 57 M parameters: DDPM-IP's baseline, FID 2.99 in 1,000 steps.

Its recipe names no number of steps; this is IDDPM's. `--config.data.path=FOLDER` trains on other
images.
"""

from adm_jax.process.timestep_samplers import loss_second_moment
from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.network('unet', recipes.CIFAR10), recipes.images_of('tfds:cifar10', 32, labels=None),
      batch_size=128, total_steps=500_000, timestep_sampler=loss_second_moment,
      num_threads=1)
