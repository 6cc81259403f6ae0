"""IDDPM on ImageNet 64 x 64, L_hybrid, cosine, 4,000 steps: 3.57 bits per dimension, FID 19.2."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('iddpm-imagenet64'),
      recipes.images_of('tfds:imagenet2012', 64, labels=None),
      batch_size=128, total_steps=1_500_000, flip=False)
