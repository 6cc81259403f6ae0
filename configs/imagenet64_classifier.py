"""The classifier of noisy ImageNet 64 x 64 that guides `imagenet64.py` (table 12)."""

from adm_jax.training import recipes


def get_config():
  return recipes.classifier(
      recipes.published('imagenet64-classifier'),
      recipes.images_of('tfds:imagenet2012', 64, crop='random'),
      batch_size=1024, total_steps=300_000, learning_rate=6e-4, weight_decay=0.2)
