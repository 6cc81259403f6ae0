"""`cifar10.py` with the classes, for sampling by class and for classifier guidance."""

from adm_jax.process.timestep_samplers import loss_second_moment
from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.network('unet', recipes.CIFAR10 + '--class_cond True --num_classes 10'),
      recipes.images_of('tfds:cifar10', 32),
      batch_size=128, total_steps=500_000, timestep_sampler=loss_second_moment,
      num_threads=1)
