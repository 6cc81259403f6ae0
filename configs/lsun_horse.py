"""ADM on LSUN horse 256 x 256, unconditional, with dropout: FID 2.57 in 1,000 steps."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('lsun-horse'), recipes.images_of('tfds:lsun/horse', 256, labels=None),
      batch_size=256, total_steps=250_000)
