"""Say what a training run needs and how long it takes, before anyone pays for it.

examples:
  adm plan --config configs/imagenet64.py --topology v5e:8x8 --config.fsdp=8
  adm plan --config configs/folder.py --devices 8 --config.batch_size=64

The real training step is compiled for these devices: seconds for a small network, minutes to half
an hour for a large one, once. A TPU topology needs no TPU, but `pip install libtpu`.
"""

from adm_jax.errors import UsageError


def add_arguments(parser):
  parser.add_argument('--config', required=True, metavar='FILE',
                      help='a file of configs/; --config.key=value overrides what it says')
  parser.add_argument('--topology', metavar='GENERATION:SHAPE', help='a TPU slice, as v5e:8x8')
  parser.add_argument('--devices', type=int, metavar='N',
                      help='so many devices, by the compiler for CPUs: a rough guide for GPUs')
  parser.add_argument('--utilization', type=float, default=0.4, metavar='SHARE',
                      help='of the peak, for the hours (default 0.4)')


def run(arguments, overrides):
  from adm_jax import config as config_lib
  from adm_jax import plan

  target = plan.Target(arguments.topology, arguments.devices)
  if not 0 < arguments.utilization <= 1:
    raise UsageError(f'--utilization {arguments.utilization}: give a share, above 0 and at most 1')
  config = config_lib.override(config_lib.load(arguments.config), overrides)
  needs = plan.measure(config_lib.to_json(config), target)
  model = config.task.model
  for line in plan.report(needs, config.total_steps, config.batch_size,
                          getattr(model, 'unet', model).remat, arguments.utilization):
    print(line)
  return 0
