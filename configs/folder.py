"""A template for your own images: copy it, or override it on the command line.

  adm train --config configs/folder.py --workdir runs/mine --config.data.path=photos
  adm train --config configs/folder.py --workdir runs/mine --config.data.path=photos.zip
    --config.data.labels=labels.csv --config.task.network.module.num_classes=10
"""

from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training import recipes
from adm_jax.training.loop import Run
from adm_jax.training.state import adamw


def get_config():
  return call(
      Run,
      data=call(
          open_source,
          path='',  # a folder, a .zip or an .npz of images, or tfds:NAME after `adm prepare NAME`
          image_size=64,
          crop='center',  # 'random', or None if all images are of the network's size already
          labels=None,  # 'folders', 'prefix' (cat_0001.png), or the path of a .json or .csv
          channels=3,  # 1: grey levels; then in_channels=1 and out_channels=2 below
      ),
      # A network for 64 x 64 that trains on one accelerator. Its flags are the reference's; every
      # argument they lead to is under --config.task.network.module, and `adm train` refuses what
      # cannot be. For classes add --class_cond True --num_classes N.
      task=recipes.network(
          'unet', '--image_size 64 --num_channels 128 --num_head_channels 64 --num_res_blocks 3 '
                  '--attention_resolutions 32,16,8 --resblock_updown True --learn_sigma True '
                  '--noise_schedule cosine --dropout 0.1 --use_new_attention_order True'),
      timestep_sampler=call(uniform, num_steps=1000),
      optimizer=call(adamw, learning_rate=1e-4),
      batch_size=128,  # of the whole step, over all devices
      microbatches=1,  # more need less memory, and give the same step
      total_steps=200_000,
      ema_rates=(0.9999,),  # sampling uses the slowest
      ema_warmup=True,  # a short run's average should not remember the random start
      loader=call(
          Loader,
          flip=True,  # not for text, digits, or anything else with a left and a right
          num_threads=16,
          num_workers=0,  # processes that decode, for thousands of small images a second
      ),
      log_every=100,
      save_every=5000,
      keep=3,
  )
