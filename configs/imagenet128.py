"""ADM on ImageNet 128 x 128, class-conditional: FID 5.91, guided 2.97 (table 5)."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('imagenet128'), recipes.images_of('tfds:imagenet2012', 128),
      batch_size=256, total_steps=4_360_000, learning_rate=1e-4)
