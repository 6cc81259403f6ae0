"""IDDPM on CIFAR-10, L_hybrid, cosine, 4,000 steps: 3.17 bits per dimension, FID 3.19."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('iddpm-cifar10'), recipes.images_of('tfds:cifar10', 32, labels=None),
      batch_size=128, total_steps=500_000, flip=False,
      num_threads=1)
