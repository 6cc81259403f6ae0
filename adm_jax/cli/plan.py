"""Say what a run needs and how long it takes, before anyone pays for it.

examples:
  adm plan --config imagenet64 --topology v5e:8x8 --config.fsdp=8
  adm plan --config imagenet64 --topology h100:8 --config.batch_size=256
  adm plan --config folder --devices 8 --device-kind 'NVIDIA L4'
  adm plan --model imagenet256 --classifier imagenet256-classifier --topology v5e:2x4
    --batch-size 32
  adm plan --evaluate 256 --topology h100:8

The real training step, or the whole sampler, is compiled for these devices: seconds for a small
network, minutes to more than an hour for a large one (a training step of imagenet64 for a TPU: 70
minutes and 17 GB of memory on two cores), once. A topology of TPUs needs no TPU, but `pip install
libtpu`; one of GPUs (h100, a100) needs no GPU, but the extra gpu-plan, and its memory is a lower
bound. No weights are fetched.
"""

import argparse
import dataclasses

from adm_jax.cli import sampling_options
from adm_jax.cli.parser import at_least_one
from adm_jax.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--config', metavar='NAME|FILE.py',
                      help='training: one of adm config; --config.key=value overrides')
  parser.add_argument('--topology', metavar='KIND:SHAPE',
                      help='a TPU slice, as v5e:8x8, or GPUs of one host, as h100:8 or a100:8')
  parser.add_argument('--devices', type=int, metavar='N',
                      help='so many devices, by the compiler for CPUs: roughly, for other GPUs')
  parser.add_argument('--device-kind', metavar='NAME',
                      help="what --devices stand for, as 'NVIDIA H100 80GB HBM3': then whether it "
                           'fits, and the hours')
  parser.add_argument('--utilization', type=float, default=0.4, metavar='SHARE',
                      help='of the peak, for the hours (default 0.4)')
  parser.add_argument('--evaluate', type=int, metavar='SIDE',
                      help='evaluation: features by Inception of images of SIDE x SIDE, '
                           '--batch-size at once')
  group = parser.add_argument_group('sampling, by the options of adm sample')
  group.add_argument('--model', metavar='NAME|DIR|FILE')
  group.add_argument('--classifier', metavar='NAME|DIR|FILE')
  group.add_argument('--respacing', metavar='SPEC')
  group.add_argument('--cfg-scale', type=float, metavar='S')
  group.add_argument('--weaker', metavar='NAME|DIR|FILE')
  group.add_argument('--dtype', choices=('float32', 'bfloat16'),
                     help='default: bfloat16')
  group.add_argument('--fsdp', type=int, metavar='D')
  group.add_argument('--batch-size', type=int, metavar='N',
                     help='images at once, over all devices (default: one on each; of --evaluate: '
                          '64 on each)')


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from adm_jax import config as config_lib
  from adm_jax.plan import needs as plan
  from adm_jax.plan import report

  if sum(given is not None for given in (arguments.config, arguments.model,
                                         arguments.evaluate)) != 1:
    raise UsageError('give one: --config to plan training, --model to plan sampling, or --evaluate '
                     'to plan evaluation')
  if arguments.config is None and overrides:
    raise UsageError(f'adm plan does not understand {" ".join(overrides)}; see adm plan --help')
  names = [field.name for field in dataclasses.fields(plan.Sampling)]
  of_sampling = {name: getattr(arguments, name) for name in names
                 if getattr(arguments, name) is not None}
  if arguments.config is not None and of_sampling:
    raise UsageError(f'--{next(iter(of_sampling)).replace("_", "-")} is of sampling: give it with '
                     '--model; of training, --config.key=value')
  if arguments.evaluate is not None and set(of_sampling) - {'batch_size'}:
    name = min(set(of_sampling) - {'batch_size'})
    raise UsageError(f'--{name.replace("_", "-")} is of sampling: give it with --model')
  if not 0 < arguments.utilization <= 1:
    raise UsageError(f'--utilization {arguments.utilization}: give a share, above 0 and at most 1')
  at_least_one(arguments, 'fsdp', 'batch_size')
  if arguments.model is not None:
    _check_student(arguments)
  target = plan.Target(arguments.topology, arguments.devices, arguments.device_kind)
  total_steps, remat, microbatches = None, None, 1
  remat_key = 'task.network.module.remat'
  if arguments.evaluate is not None:
    asked = plan.Evaluation(arguments.evaluate, arguments.batch_size)
  elif arguments.config is None:
    asked = plan.Sampling(**of_sampling)
  else:
    config = config_lib.load(arguments.config, overrides)
    teacher = plan.untrained_teacher(config)
    if teacher is not None:
      print(f"{teacher} is not there yet: its student's own network stands for it")
    asked = plan.training(config, arguments.config, overrides)
    module, total_steps = config.task.network.module, config.total_steps
    microbatches = config.get('microbatches', 1)
    remat = module.get('unet', module).get('remat')
    if 'unet' in module:  # an upsampler's
      remat_key = 'task.network.module.unet.remat'
  needs = plan.measure(asked, target)
  for line in report.lines(needs, microbatches):
    print(line)
  if needs.fits is False:
    print(f'what to change: {report.advice(needs, remat, microbatches, remat_key)}')
  print(report.hours(needs, arguments.utilization, total_steps))
  return 0


def _check_student(arguments: argparse.Namespace) -> None:
  """Raises UsageError for guidance beside that which a distilled model has inside."""
  if sampling_options.student(arguments.model) is None:
    return
  for name in ('classifier', 'cfg_scale', 'weaker'):
    if getattr(arguments, name) is not None:
      raise UsageError(f'{arguments.model} was distilled, and its guidance is inside: leave out '
                       f'--{name.replace("_", "-")}')
