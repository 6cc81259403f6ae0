"""The judge of CIFAR-10: a classifier that sees real, clean images only, 355,000 parameters.

As `fashion_judge.py`, and larger. The data are TFDS's (`adm prepare cifar10`), or
--config.data.path=FOLDER or .zip of the images, and --config.validation.path of the test images.
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.models import Judge
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import recipes, tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  diffusion = call(Diffusion, schedule=call(schedules.linear, num_steps=1))
  module = call(Judge, num_classes=10, channels=(64, 128, 128))
  network = call(networks.Network, module=module, diffusion=diffusion, image_shape=(32, 32, 3),
                 num_classes=10, classifies=True)
  return call(
      Run,
      data=recipes.images_of('tfds:cifar10', 32),
      task=call(tasks.classifier, network=network, noised=False),
      timestep_sampler=call(uniform, num_steps=1),
      optimizer=call(adamw, learning_rate=2e-3, weight_decay=0.05, linear_decay_steps=12_000),
      loader=call(Loader, flip=True),
      batch_size=64,
      total_steps=12_000,
      log_every=100,
      save_every=2000,
      validation=recipes.images_of('tfds:cifar10', 32, split='test'),
      validate_every=2000,
  )
