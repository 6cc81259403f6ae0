"""The judge of Fashion-MNIST: a classifier that sees real, clean images only, 93,000 parameters.

Right on 92.5 % of the test images after a quarter of an hour on two CPU cores; it comes with the
package, as `fashion-judge`. `adm evaluate --extractor WORKDIR` and `adm sweep --judge WORKDIR` look
at images through it. It guides nothing: its process is one step that is never taken (`noised`).
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.fashion_mnist import fashion_mnist
from adm_jax.models import Judge
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  diffusion = call(Diffusion, schedule=call(schedules.linear, num_steps=1))
  network = call(networks.Network, module=call(Judge, num_classes=10), diffusion=diffusion,
                 image_shape=(28, 28, 1), num_classes=10, classifies=True)
  return call(
      Run,
      data=call(fashion_mnist),
      task=call(tasks.classifier, network=network, noised=False),
      timestep_sampler=call(uniform, num_steps=1),
      optimizer=call(adamw, learning_rate=2e-3, weight_decay=0.05, linear_decay_steps=7500),
      batch_size=64,
      total_steps=7500,
      log_every=100,
      save_every=1500,
      validation=call(fashion_mnist, split='test'),
      validate_every=1500,
  )
