"""ADM on ImageNet 512 x 512, class-conditional: FID 23.24, guided 7.72 (table 5)."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('imagenet512'), recipes.images_of('tfds:imagenet2012', 512),
      batch_size=256, total_steps=1_940_000, learning_rate=1e-4)
