"""The classifier of noisy digits that guides the U-Net of `digits_unet.py`."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.models import Classifier
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  # The noise must be that of the U-Net it is to guide.
  diffusion = call(Diffusion, schedule=call(schedules.cosine, num_steps=1000), mean=call(Eps),
                   variance=call(LearnedRange))
  module = call(Classifier, image_size=8, num_classes=10, in_channels=1, channels=32,
                channel_mult=(1, 2), depth=1, attention_resolutions=(4,), head_channels=32)
  return call(
      Run,
      data=call(digits),
      task=call(tasks.classifier,
                network=call(networks.classifier, module=module, diffusion=diffusion)),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=1e-3, weight_decay=0.05, linear_decay_steps=300),
      batch_size=128,
      total_steps=300,
      log_every=50,
      save_every=150,
  )
