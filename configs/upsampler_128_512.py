"""ADM's upsampler from 128 to 512 on ImageNet: ADM-G + ADM-U has FID 3.85 (table 6)."""

from adm_jax.training import recipes


def get_config():
  return recipes.diffusion(
      recipes.published('128_512'), recipes.images_of('tfds:imagenet2012', 512),
      batch_size=256, total_steps=1_050_000, learning_rate=1e-4)
