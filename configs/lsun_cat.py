"""ADM on LSUN cat 256 x 256, unconditional, with dropout: FID 5.57 in 1,000 steps."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('lsun-cat'), recipes.images_of('tfds:lsun/cat', 256, labels=None),
      batch_size=256, total_steps=200_000)
