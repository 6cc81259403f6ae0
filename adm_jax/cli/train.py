"""Train a network, going on from the last checkpoint in the work directory.

example:
  adm train --config configs/digits_unet.py --workdir runs/digits_unet --config.batch_size=64
"""

import pathlib

from adm_jax import progress


def add_arguments(parser):
  parser.add_argument('--config', required=True, metavar='FILE',
                      help='a file of configs/; --config.key=value overrides what it says')
  parser.add_argument('--workdir', required=True, metavar='DIR',
                      help='for checkpoints, metrics and the config')


def run(arguments, overrides):
  from adm_jax import compilation_cache
  from adm_jax import config as config_lib
  from adm_jax.training import checkpoints, loop

  config = config_lib.override(config_lib.load(arguments.config), overrides)
  described = config_lib.build(config)
  workdir, text = pathlib.Path(arguments.workdir), config_lib.to_json(config)
  # Before a bar is drawn.
  checkpoints.check_workdir(workdir, text, loop.MAY_CHANGE)
  compilation_cache.use()
  workdir.mkdir(parents=True, exist_ok=True)
  with progress.bar(described.total_steps, 'training') as advance:
    shown = 0
    def report(step, line):
      nonlocal shown
      advance(step - shown, f'loss {line["loss"]:.4f}' if 'loss' in line else '')
      shown = step
    loop.train(described, text, workdir, progress=report)
  print(f'checkpoints and metrics: {workdir}')
  return 0
