"""The classifier of noisy CIFAR-10 that guides `cifar10.py` and `cifar10_cond.py`.

The network of ADM's ImageNet-64 classifier at half its depth, for a quarter of the pixels: the
paper has none of this size.
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import Classifier
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, FixedLarge
from adm_jax.training import recipes, tasks


def get_config():
  module = call(
      Classifier,
      image_size=32, num_classes=10,
      channels=128, channel_mult=(1, 2, 2, 2), depth=2, attention_resolutions=(16, 8),
      head_channels=64, dtype='bfloat16', remat='blocks')
  # The noise is that of the U-Nets it guides; nothing else of the process matters.
  schedule = call(schedules.cosine, num_steps=1000)
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(FixedLarge))
  network = call(networks.classifier, module=module, diffusion=diffusion)
  return recipes.classifier(
      call(tasks.classifier, network=network),
      recipes.images_of('tfds:cifar10', 32),
      batch_size=256, total_steps=150_000, learning_rate=3e-4, weight_decay=0.05, num_threads=1)
