"""ADM on ImageNet 64 x 64, class-conditional, with dropout: FID 2.07 in 250 steps (table 5)."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('imagenet64'), recipes.images_of('tfds:imagenet2012', 64),
      batch_size=2048, total_steps=540_000, learning_rate=3e-4)
