"""CIFAR-10, 32 x 32, with classes and label dropout: as small as hours on two CPU cores can feed.

One set of weights samples with and without classes, by classifier-free and by classifier guidance.
Where there is hardly any image it predicts v in effect (`TemperedEps`), and it is the error of v
that is minimized: that of eps hardly depends on the color of a whole image.
The data are TFDS's (`adm prepare cifar10`), or --config.data.path=FOLDER or .zip of the images.
"""

from adm_jax import networks
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.models import UNet
from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import Diffusion, LearnedRange, TemperedEps
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import recipes, tasks
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  diffusion = call(Diffusion, schedule=call(schedules.cosine, num_steps=1000),
                   mean=call(TemperedEps), variance=call(LearnedRange))
  module = call(UNet, image_size=32, out_channels=6, channels=32, channel_mult=(1, 2, 4), depth=1,
                attention_resolutions=(16, 8), head_channels=32, num_classes=10,
                num_groups=8)  # of 4 channels, as in `folder.py`
  network = call(networks.unet, module=module, diffusion=diffusion, with_null_label=True)
  return call(
      Run,
      data=recipes.images_of('tfds:cifar10', 32),
      task=call(tasks.diffusion, network=network, objective=losses.v_mse, label_dropout=0.1),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=1.5e-3, linear_decay_steps=16_000, clip_norm=1.0),
      loader=call(Loader, flip=True),
      batch_size=64,
      microbatches=4,  # all at once takes 3.8 GB, which the system hands out anew for each step
      total_steps=16_000,
      ema_rates=(0.999,),
      ema_warmup=True,
      log_every=50,
      save_every=250,
      sample_every=2000,
  )
