"""The classifier of noisy CIFAR-10 that guides `cifar10.py` and `cifar10_cond.py`.

The network of ADM's ImageNet-64 classifier at half its depth, for a quarter of the pixels: the
paper has none of this size.
"""

from adm_jax.training import recipes


def get_config():
  # The noise is that of the U-Nets it guides.
  return recipes.classifier(
      recipes.network('classifier', '--image_size 32 --classifier_depth 2 --num_classes 10 '
                                    '--classifier_attention_resolutions 16,8 '
                                    '--noise_schedule cosine'),
      recipes.images_of('tfds:cifar10', 32),
      batch_size=256, total_steps=150_000, learning_rate=3e-4, weight_decay=0.05,
      num_threads=1)
