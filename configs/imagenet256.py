"""ADM on ImageNet 256 x 256, class-conditional: FID 10.94, guided 4.59 (table 5)."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('imagenet256'), recipes.images_of('tfds:imagenet2012', 256),
      batch_size=256, total_steps=1_980_000, learning_rate=1e-4)
