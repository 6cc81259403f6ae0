"""The classifier of noisy ImageNet 256 x 256 that guides `imagenet256.py` (table 12)."""

from adm_jax.training import recipes


def get_config():
  return recipes.classifier(
      recipes.published('imagenet256-classifier'),
      recipes.images_of('tfds:imagenet2012', 256, crop='random'),
      batch_size=256, total_steps=500_000, learning_rate=3e-4, weight_decay=0.05)
