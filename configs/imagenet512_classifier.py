"""The classifier of noisy ImageNet 512 x 512 that guides `imagenet512.py` (table 12)."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.models import Classifier
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, FixedLarge
from adm_jax.training import recipes, tasks


def get_config():
  module = call(
      Classifier,
      image_size=512, num_classes=1000,
      channels=128, channel_mult=(0.5, 1, 1, 2, 2, 4, 4), depth=2,
      attention_resolutions=(32, 16, 8),
      head_channels=64, dtype='bfloat16', remat='blocks')
  # The noise is that of the U-Nets it guides; nothing else of the process matters.
  schedule = call(schedules.linear, num_steps=1000)
  diffusion = call(Diffusion, schedule=call(schedules.respace, schedule=schedule, spec=''),
                   mean=call(Eps), variance=call(FixedLarge))
  network = call(networks.classifier, module=module, diffusion=diffusion)
  return recipes.classifier(
      call(tasks.classifier, network=network),
      recipes.images_of('tfds:imagenet2012', 512, crop='random'),
      batch_size=256, total_steps=500_000, learning_rate=3e-4, weight_decay=0.05)
