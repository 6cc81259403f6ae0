"""The classifier of noisy ImageNet 128 x 128 that guides `imagenet128.py` (table 12)."""

from adm_jax.training import recipes


def get_config():
  return recipes.classifier(
      recipes.published('imagenet128-classifier'),
      recipes.images_of('tfds:imagenet2012', 128, crop='random'),
      batch_size=256, total_steps=300_000, learning_rate=3e-4, weight_decay=0.05)
