"""The classifier of noisy CIFAR-10 that guides `cifar10_small.py`: an hour on two CPU cores."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.models import Classifier
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import recipes, tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  # The noise must be that of the U-Net it is to guide.
  diffusion = call(Diffusion, schedule=call(schedules.cosine, num_steps=1000), mean=call(Eps),
                   variance=call(LearnedRange))
  module = call(Classifier, image_size=32, num_classes=10, channels=32, channel_mult=(1, 2, 4),
                depth=1, attention_resolutions=(8,), head_channels=32, num_groups=8)
  return call(
      Run,
      data=recipes.images_of('tfds:cifar10', 32),
      validation=recipes.images_of('tfds:cifar10', 32, split='test'),
      validate_every=2000,
      task=call(tasks.classifier,
                network=call(networks.classifier, module=module, diffusion=diffusion)),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=1e-3, weight_decay=0.05, linear_decay_steps=12_000),
      loader=call(Loader, flip=True),
      batch_size=64,
      total_steps=12_000,
      log_every=50,
      save_every=500,
  )
