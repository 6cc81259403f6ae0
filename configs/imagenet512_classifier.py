"""The classifier of noisy ImageNet 512 x 512 that guides `imagenet512.py` (table 12)."""

from adm_jax.training import recipes


def get_config():
  return recipes.classifier(
      recipes.published('imagenet512-classifier'),
      recipes.images_of('tfds:imagenet2012', 512, crop='random'),
      batch_size=256, total_steps=500_000, learning_rate=3e-4, weight_decay=0.05)
