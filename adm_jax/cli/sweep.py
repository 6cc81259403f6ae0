"""Measure how guidance trades variety for fidelity: one model at many scales.

For each scale of each kind of guidance, samples are made and looked at by a judge, a classifier
that was trained on real, clean images alone: agreement with the asked class, Frechet distance,
precision and recall, in its features (not FID). OUT gets table.md, curve.png, sweep.json, and with
--training neighbors.png: samples beside the training images that are nearest to them. The same
command goes on where it was stopped, and more scales may be asked for later.

REF and TRAIN are configs, whose data is taken, or files: a folder, a .zip, an .npz. Overrides of a
config, --config.key=value, are the reference's.

examples:
  adm sweep --model fashion --cfg-scales 1,1.5,2,3,5,8 --num 2000 --respacing 50
    --judge runs/judge --reference fashion --config.data.split=test
    --training fashion --out runs/sweep
  adm sweep --model runs/demo/unet --classifier runs/demo/classifier --scales 0,1,2,4,10
    --judge runs/judge --reference digits_unet --config.data.split=held_out
    --out runs/sweep
  adm sweep --model runs/distilled/student --scales 0,1,2,4 --judge runs/judge
    --reference digits_unet --config.data.split=held_out --out runs/sweep
"""

import argparse
import math

from adm_jax.cli import real_images, sampling_options
from adm_jax.cli.parser import at_least_one, check_seed, local_path
from adm_jax.errors import UsageError

RESUMES = True
_KINDS = ('cfg_scales', 'scales', 'unconditional_scales')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  model = parser.add_argument_group('which model, guided how much')
  model.add_argument('--model', required=True, metavar='NAME|DIR|FILE', help='see adm sample')
  model.add_argument('--weights', metavar='PATH|WHICH', help='see adm sample')
  model.add_argument('--cfg-scales', metavar='LIST',
                     help='classifier-free: 1,1.5,2,3; 1 is none')
  model.add_argument('--classifier', metavar='NAME|DIR|FILE', help='what guides with these scales:')
  model.add_argument('--classifier-weights', metavar='PATH', help='its file')
  model.add_argument('--scales', metavar='LIST',
                     help='0,1,2,4,10; 0 is none; or what a distilled model is told')
  model.add_argument('--unconditional-scales', metavar='LIST',
                     help='likewise, where the model itself is told no class; for models trained '
                     'with label dropout')

  what = parser.add_argument_group('measured with what')
  what.add_argument('--judge', required=True, metavar='DIR|NAME',
                    help='a classifier that saw real, clean images: see configs/fashion_judge.py')
  what.add_argument('--reference', required=True, metavar='REF',
                    help='real images that were not trained on, with labels')
  what.add_argument('--training', metavar='TRAIN', help='the images that the model was trained on')
  what.add_argument('--labels', default='folders', metavar='folders|prefix|FILE',
                    help='where the labels of folders of images come from; default: folders')
  what.add_argument('--num', type=int, default=2000, metavar='N',
                    help='samples per point; default: 2000')
  what.add_argument('--seed', type=int, default=0, help='of their noise; default: 0')

  how = parser.add_argument_group('how')
  how.add_argument('--respacing', metavar='SPEC',
                   help='the steps to take: 50, ddim25; default: the paper\'s')
  how.add_argument('--solver', metavar='NAME',
                   help='docs/solvers.md lists them; default: ancestral, or as a distilled model '
                   'was taught')
  how.add_argument('--steps', type=int, metavar='N',
                   help='how many of the whole process, instead of --respacing')
  how.add_argument('--spacing', metavar='NAME', help='how they lie in it: time, karras, ...')
  how.add_argument('--dtype', choices=('float32', 'bfloat16'),
                   help='default: bfloat16 on accelerators, float32 on CPUs')
  how.add_argument('--fsdp', type=int, metavar='D',
                   help='devices that share one copy of the weights; default: as many as must')
  how.add_argument('--batch-size', type=int, metavar='B',
                   help='sampled at once, over all devices; default: as many as fit well')
  how.add_argument('--out', required=True, metavar='DIR')


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
  distilled = _distilled(arguments)
  check(arguments, distilled)
  from adm_jax.devices import compilation_cache
  from adm_jax.evaluation import sweep, sweep_pages
  from adm_jax.weights import pretrained

  cache = compilation_cache.use()
  shape = pretrained.outline(arguments.judge).network.image_shape

  def images(data, overrides):
    return real_images.source('adm sweep', data, overrides, shape, arguments.labels)
  training = None if arguments.training is None else images(arguments.training, [])
  asked = sweep.Sweep(
      arguments.model, _kinds(arguments, distilled), arguments.judge,
      images(arguments.reference, overrides), training, arguments.num, arguments.seed,
      arguments.batch_size,
      dict(steps=arguments.steps if arguments.respacing is None else arguments.respacing,
           spacing=arguments.spacing, solver=arguments.solver, weights=arguments.weights,
           dtype=arguments.dtype, fsdp=arguments.fsdp))
  out = local_path('--out', arguments.out)

  def told(point):
    measures = point.measures
    print(f'{point.guidance} {point.scale:g}: agreement {measures.agreement:.1%}, Frechet distance '
          f'{measures.frechet_distance:.3f}, precision {measures.precision:.3f}, recall '
          f'{measures.recall:.3f}', flush=True)
  found = sweep.run(asked, out, told=told)
  sweep_pages.write(found, out, training)
  print(sweep_pages.table(found))
  pictures = ', '.join(name for name in ('table.md', 'curve.png', 'neighbors.png', 'sweep.json')
                       if (out / name).exists())
  print(f'in {out}: {pictures}\ncompiled programs are kept in {cache}')
  return 0


def _distilled(arguments: argparse.Namespace) -> bool:
  """Whether the model is a student, which was taught all the scales that are asked for.

  Raises:
    UsageError: it was not, or is to be guided beside.
  """
  network = sampling_options.student(arguments.model)
  if network is None:
    return False
  for name in ('classifier', 'classifier_weights', 'cfg_scales', 'unconditional_scales'):
    if getattr(arguments, name) is not None:
      raise UsageError(f'{arguments.model} was distilled, and its guidance is inside: leave out '
                       f'{_option(name)}, and say how strong with --scales')
  if arguments.scales is not None:
    from adm_jax.sampling.guidance import distilled

    distilled.check(network, arguments.model, _scales(arguments, 'scales'))
  return True


def check(arguments: argparse.Namespace, distilled: bool = False) -> None:
  """Contradictions; no model needs to be loaded for them."""
  at_least_one(arguments, 'num', 'steps', 'batch_size', 'fsdp')
  if arguments.steps is not None and arguments.respacing is not None:
    raise UsageError('--steps and --respacing are two ways to choose the steps: give one')
  given = [name for name in _KINDS if getattr(arguments, name) is not None]
  if not given:
    raise UsageError('say how much guidance is to be tried: give --cfg-scales, --scales or '
                     '--unconditional-scales, as --scales 0,1,2,4')
  for name in given:
    _scales(arguments, name)
    if name != 'cfg_scales' and arguments.classifier is None and not distilled:
      raise UsageError(f'{_option(name)} is of a classifier\'s guidance: name one with '
                       '--classifier, or a distilled model')
  for name in ('classifier', 'classifier_weights'):
    if getattr(arguments, name) is not None and given == ['cfg_scales']:
      raise UsageError(f'{_option(name)} guides with --scales or --unconditional-scales: give one')
  check_seed(arguments)


def _kinds(arguments: argparse.Namespace, distilled: bool):
  """The kinds of guidance that the options ask for, as `sweep.Kind`."""
  from adm_jax.evaluation import sweep

  if distilled:
    return (sweep.distilled(_scales(arguments, 'scales')),)
  by_classifier = (arguments.classifier, arguments.classifier_weights)
  made = {'cfg_scales': lambda scales: sweep.classifier_free(scales),
          'scales': lambda scales: sweep.by_classifier(by_classifier[0], scales, by_classifier[1]),
          'unconditional_scales': lambda scales: sweep.unconditional_by_classifier(
              by_classifier[0], scales, by_classifier[1])}
  return tuple(made[name](_scales(arguments, name)) for name in _KINDS
               if getattr(arguments, name) is not None)


def _scales(arguments: argparse.Namespace, name: str) -> tuple[float, ...]:
  words = getattr(arguments, name)
  try:
    found = tuple(float(word) for word in words.split(','))
  except ValueError:
    found = (math.nan,)
  if not all(map(math.isfinite, found)) or len(set(found)) < len(found):
    raise UsageError(f'{_option(name)} {words}: give finite numbers with commas, each once')
  return found


def _option(name: str) -> str:
  return f'--{name.replace("_", "-")}'
