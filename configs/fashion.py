"""Fashion-MNIST, 28 x 28, with classes and label dropout: 1.4 M parameters, hours on two CPU cores.

One set of weights samples with and without classes, by classifier-free and by classifier guidance.
The data are Debian's package dataset-fashion-mnist, or --config.data.folder=FOLDER.
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.fashion_mnist import fashion_mnist
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
  module = call(UNet, image_size=28, out_channels=2, in_channels=1, channels=32,
                channel_mult=(1, 2, 2), depth=1, attention_resolutions=(14, 7), head_channels=32,
                num_classes=10)
  network = call(networks.unet, module=module, diffusion=diffusion, with_null_label=True)
  return call(
      Run,
      data=call(fashion_mnist),
      task=call(tasks.diffusion, network=network, objective=losses.mse, label_dropout=0.1),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=1.5e-3, linear_decay_steps=12_500, clip_norm=1.0),
      batch_size=64,
      total_steps=12_500,
      ema_rates=(0.999,),
      ema_warmup=True,
      log_every=50,
      save_every=250,
      sample_every=2500,
  )
