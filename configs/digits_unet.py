"""An unconditional U-Net for the embedded 8 x 8 digits: minutes on two CPU cores."""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, Eps, LearnedRange
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  diffusion = call(Diffusion, schedule=call(schedules.cosine, num_steps=1000), mean=call(Eps),
                   variance=call(LearnedRange))
  module = call(UNet, image_size=8, out_channels=2, in_channels=1, channels=32, channel_mult=(1, 2),
                depth=1, attention_resolutions=(4,), head_channels=32)
  return call(
      Run,
      data=call(digits),
      task=call(tasks.diffusion,
                network=call(networks.unet, module=module, diffusion=diffusion),
                objective=losses.mse),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=2e-3, linear_decay_steps=1000),
      batch_size=64,
      total_steps=1000,
      ema_rates=(0.995,),
      ema_warmup=True,
      log_every=50,
      save_every=500,
      keep=2,
  )
