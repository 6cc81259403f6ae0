"""ADM's upsampler from 64 to 256 on ImageNet: ADM-G + ADM-U has FID 3.94 (table 6)."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('64_256'), recipes.images_of('tfds:imagenet2012', 256),
      batch_size=256, total_steps=500_000, learning_rate=1e-4)
