"""Train a network, going on from the last checkpoint in the work directory.

examples:
  adm train --config digits_unet --workdir runs/digits_unet --config.batch_size=64
  adm train --config folder --workdir runs/mine --config.data.path=photos
    --config.task.network.module.channels=192 --init-from imagenet64

On a TPU slice and under Slurm, start the same command on every host: the processes find each other.
Elsewhere say where they are, with --coordinator HOST:PORT --num-processes N --process I.

It ends with code 0 when it is finished, and with 75 when it is to be started again: after SIGTERM,
when all is saved, or when another of its processes is gone. Ctrl-C saves a run of one process too,
and ends it with 130; twice, it ends at once.
"""

import argparse
import contextlib
import logging
import sys
from typing import TYPE_CHECKING

from adm_jax.cli.parser import add_profile_argument, steps_to_profile
from adm_jax.io import progress

if TYPE_CHECKING:
  from adm_jax.config import ConfigDict

RESUMES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--config', required=True, metavar='NAME|FILE.py',
                      help='one of adm config, which explains them, or a file of your own; '
                      '--config.key=value overrides what it says')
  parser.add_argument('--workdir', required=True, metavar='DIR',
                      help='for checkpoints, metrics and the config; a folder that all processes '
                           'share, or gs://BUCKET/...')
  parser.add_argument('--init-from', metavar='MODEL',
                      help='start from the weights of a published model, a work directory or a '
                           'file; a class table of another size starts at random')
  parser.add_argument('--init-config', metavar='FILE.py',
                      help='of a network of your own: the config that --init-from was trained with')
  parser.add_argument('--tensorboard', action='store_true',
                      help='write files for TensorBoard too (needs adm_jax[tensorboard])')
  add_profile_argument(parser, 'steps of training')
  add_process_arguments(parser)


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--coordinator', metavar='HOST:PORT', help='where process 0 listens')
  parser.add_argument('--num-processes', type=int, metavar='N', help='of this run')
  parser.add_argument('--process', type=int, metavar='I', help='which of them this is, from 0')


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from adm_jax import config as config_lib
  from adm_jax.devices import hosts

  steps_to_profile(arguments)  # a mistake is told before hosts wait for each other
  config = config_lib.load(arguments.config, overrides)
  hosts.join(arguments.coordinator, arguments.num_processes, arguments.process)
  return run_config(config, arguments)


def run_config(config: 'ConfigDict', arguments: argparse.Namespace) -> int:
  """Trains what a config says, as the options say, on hosts that have joined."""
  from adm_jax import config as config_lib
  from adm_jax import stored_configs
  from adm_jax.devices import compilation_cache, hosts
  from adm_jax.devices.profile import Profile
  from adm_jax.errors import Preempted
  from adm_jax.io import files
  from adm_jax.training import checkpoints, fine_tuning, goodput, loop, metrics

  described = config_lib.build(config)
  cache = compilation_cache.use()
  stored = stored_configs.to_json(config)
  checkpoints.check_workdir(files.folder(arguments.workdir), stored, loop.MAY_CHANGE)
  saved, start = checkpoints.saved_steps(arguments.workdir), None
  if arguments.init_from and not saved:
    given = config_lib.load(arguments.init_config) if arguments.init_config else None
    start, text = fine_tuning.start(arguments.init_from, described, given)
    if hosts.first():
      print(text, file=sys.stderr)
  drawn = hosts.first() and sys.stderr.isatty()
  if hosts.first() and not drawn:  # a log file has lines, not a bar
    # By force: libraries that were imported by now may have set up the log.
    logging.basicConfig(format='%(asctime)s %(message)s', datefmt='%H:%M:%S', force=True)
    logging.getLogger('adm_jax').setLevel(logging.INFO)
  profile = Profile(*steps_to_profile(arguments), arguments.workdir, what='training step')
  with contextlib.ExitStack() as stack:
    shown, advance, spent = None, None, {}
    def ended(kind, error, traceback):  # after the bar
      if hosts.first() and kind in (None, Preempted, KeyboardInterrupt):
        if spent:
          print(goodput.sentence(spent))
        if arguments.profile is not None:
          print(profile.report())
    stack.push(ended)
    def report(step, line):
      nonlocal shown, advance, spent
      if shown is None:  # the work directory is known to be right
        shown = step
        if hosts.first():
          print(beginning(described, step, bool(arguments.init_from and saved)), file=sys.stderr)
          if (warning := few_at_once(described)) is not None:
            print(warning, file=sys.stderr)
        if drawn:
          advance = stack.enter_context(progress.bar(described.total_steps, 'training', step))
      if advance is not None:
        loss = f'loss {line["loss"]:.4f}, ' if 'loss' in line else ''
        advance(step - shown, loss + metrics.note(line) if 'images_per_second' in line else '')
      shown, spent = step, line
    loop.train(described, stored, arguments.workdir, progress=report,
               start=start, tensorboard=arguments.tensorboard, profile=profile)
  if hosts.first():
    print(f'checkpoints and metrics: {arguments.workdir}\n'
          f'compiled programs are kept in {cache}')
  return 0


def few_at_once(run):
  """A warning about a run whose devices have too few images at once to be fast; else None."""
  import jax

  from adm_jax.devices import chips
  height, width, _ = run.task.network.image_shape
  return chips.too_few(jax.devices()[0].device_kind, height, width,
                       run.batch_size // (run.num_devices or jax.device_count())
                       // run.microbatches)


def beginning(run, step, ignores_start):
  """A line that says what is trained on what, and from where it goes on."""
  import jax

  params = run.task.network.abstract_params()
  size = sum(leaf.size for leaf in jax.tree.leaves(params))
  begun = (f'going on from step {step} of {run.total_steps}' if step
           else f'{run.total_steps} steps, a line of metrics every {run.log_every}')
  if ignores_start:
    begun += ' (--init-from is for a new work directory, and was not read)'
  return (f'{size:,} parameters, {len(run.data):,} images, {len(run.data.class_names)} classes, '
          f'{jax.device_count()} x {jax.devices()[0].device_kind}; {begun}; compiling first')
