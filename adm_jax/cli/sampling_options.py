"""Options that say which networks are sampled, how they are guided, and in which steps.

Shared by the commands that sample; `load` makes of them what `pipeline.load` makes.
"""

import argparse
import math
from typing import TYPE_CHECKING, Callable

import numpy as np

from adm_jax.cli.parser import numbers
from adm_jax.errors import UsageError
from adm_jax.io import functions

if TYPE_CHECKING:  # JAX is imported when a command runs, not when its options are read
  import jax

  from adm_jax.networks import Network
  from adm_jax.process.schedules import Schedule
  from adm_jax.sampling.courses import Course
  from adm_jax.sampling.guidance import Guidance, Scale
  from adm_jax.sampling.pipeline import Pipeline
  from adm_jax.sampling.solvers import Solver
  from adm_jax.sampling.steps import Step
  from adm_jax.weights.folders import Trained


_NAMES = 'docs/solvers.md lists them, and so does the answer to a name that is none'


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--model', metavar='NAME|DIR|FILE',
                      help='one of adm models, a work directory, converted weights, a .pt file; '
                      'default of adm sample: one that comes with the package')
  parser.add_argument('--weights', metavar='PATH|WHICH',
                      help="a published model's file; or of a work directory 'params' or an "
                      'average')
  parser.add_argument('--config', metavar='FILE.py',
                      help='of a network of your own: the config that it was trained with')
  parser.add_argument('--classifier', metavar='NAME|DIR|FILE', help='what guides it')
  parser.add_argument('--classifier-weights', metavar='PATH', help='its file')
  parser.add_argument('--classifier-config', metavar='FILE.py', help='as --config')
  parser.add_argument('--scale', metavar='S[,LAST]',
                      help="of the classifier's gradient, or what a distilled model is told; of "
                      "two, it goes evenly from the first step's to the last's; default: the "
                      "paper's, or 1; of a distilled model the middle of its range")
  parser.set_defaults(distilled=False)  # until `fill_in_solver` has looked


def add_guidance_arguments(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group('guidance')
  group.add_argument('--cfg-scale', metavar='S[,LAST]',
                     help='classifier-free: 1 is none; for models trained with label dropout')
  group.add_argument('--weaker', metavar='NAME|DIR|FILE',
                     help='autoguidance: away from this weaker model of the same images')
  group.add_argument('--weaker-weights', metavar='PATH|WHICH', help='as --weights')
  group.add_argument('--weaker-scale', metavar='S[,LAST]',
                     help='of autoguidance: 1 is none; default: 2')
  group.add_argument('--guidance', action='append', default=[], metavar='FILE.py:FUNCTION',
                     help='the guidance value that a function of your own returns; may be repeated')
  group.add_argument('--guide-between', metavar='LOW,HIGH',
                     help='guide at these noise levels only, sigma = '
                     'sqrt((1 - alpha_bar) / alpha_bar): 0.2,5')
  group.add_argument('--normalize-gradient', action='store_true',
                     help="divide the classifier's gradient by its root mean square")
  group.add_argument('--classifier-every', type=int, default=1, metavar='K',
                     help='an approximation: ask it at every K-th step, times K')
  group.add_argument('--dynamic-threshold', type=float, metavar='SHARE',
                     help='scale x_0 down to where this share of values lie, say 0.995, instead of '
                     'clipping it')
  group.add_argument('--clip-guided', action=argparse.BooleanOptionalAction,
                     help="clip x_0 again after a classifier's guidance; default: not with "
                     'ancestral, nor with ddim unless it starts at the end of a cosine schedule, '
                     'but with all others')


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--respacing', metavar='SPEC',
                      help='the steps to take: 250, ddim25, 90,60,60,20,20; default: the paper\'s')
  parser.add_argument('--solver', metavar='NAME|FILE.py:FUNCTION',
                      help=f'ancestral, the default, ddim, heun, dpm++2m, ...: {_NAMES}')
  parser.add_argument('--eta', type=float, help="of DDIM's noise, 0 to 1; default: 0")
  parser.add_argument('--steps', type=int, metavar='N',
                      help='how many of the whole process, instead of --respacing; default: '
                      '20 with --spacing')
  parser.add_argument('--spacing', metavar='NAME|FILE.py:FUNCTION',
                      help='how they lie in it: time, the default, karras, ..., listed there')
  parser.add_argument('--churn', metavar='S[,MIN,MAX[,NOISE]]',
                      help="EDM's, of --solver heun, euler or others that may: S_churn, S_min, "
                      'S_max, S_noise')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'),
                      help='default: bfloat16 on accelerators, float32 on CPUs')
  parser.add_argument('--fsdp', type=int, metavar='D',
                      help='devices that share one copy of the weights; default: as many as must')


def add_upsampler_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--upsample', metavar='NAME|DIR|FILE', help='enlarges the images it made')
  parser.add_argument('--upsample-weights', metavar='PATH', help='its file')
  parser.add_argument('--upsample-respacing', metavar='SPEC', help='default: as --respacing')
  parser.add_argument('--upsample-solver', metavar='NAME|FILE.py:FUNCTION',
                      help='default: as --solver')


def _scale(arguments: argparse.Namespace, name: str) -> 'Scale | None':
  """A guidance scale: None, a number, or one that goes from the first step's to the last's."""
  words, option = getattr(arguments, name), f'--{name.replace("_", "-")}'
  if words is None:
    return None
  found = numbers(option, words, (1, 2))
  if not all(map(math.isfinite, found)):
    raise UsageError(f'{option} {words}: give finite numbers')
  first, last = found[0], found[-1]
  # Indices of a schedule rise with the noise; steps go the other way.
  return first if len(found) == 1 else lambda sigma: np.linspace(last, first, len(sigma))


def fill_in_model(arguments: argparse.Namespace) -> list[str]:
  """Where nothing says what to sample, takes a model of the package; says so in a line.

  It is guided and takes the steps as it is best, unless options say otherwise.
  """
  if arguments.model is not None or arguments.base is not None or arguments.upsample is not None:
    return []
  for name in ('weights', 'config'):
    if getattr(arguments, name) is not None:
      raise UsageError(f'--{name} is of a model: name it with --model')
  from adm_jax.weights import shipped

  arguments.model = shipped.FIRST
  best = shipped.sampling(arguments.model)
  words = []
  guides = (arguments.classifier, arguments.weaker, arguments.cfg_scale, arguments.scale,
            arguments.dynamic_threshold, *arguments.guidance)
  if all(guide is None for guide in guides):
    arguments.cfg_scale = f'{best.cfg_scale:g}'
    words.append(f'--cfg-scale {arguments.cfg_scale}')
  steps = arguments.respacing, arguments.steps, arguments.spacing
  if arguments.solver in (None, 'ancestral') and all(step is None for step in steps):
    arguments.respacing = best.respacing
    words.append(f'--respacing {best.respacing}')
  return [' '.join(['model: --model', arguments.model, *words])]


def fill_in_solver(arguments: argparse.Namespace) -> None:
  """Ancestral sampling; or a distilled model's as it was taught, unless options say otherwise.

  Raises:
    UsageError: guidance of its own beside that which is in it.
  """
  network = None if arguments.config else student(arguments.model)
  arguments.distilled = network is not None
  for name in ('classifier', 'weaker', 'cfg_scale') if arguments.distilled else ():
    if getattr(arguments, name) is not None:
      raise UsageError(f'{arguments.model} was distilled, and its guidance is inside: leave out '
                       f'--{name.replace("_", "-")}, and say how strong with --scale')
  if network is None or network.steps is None:
    arguments.solver = arguments.solver or 'ancestral'
    return
  from adm_jax.sampling import students

  arguments.solver = arguments.solver or students.SOLVER
  if arguments.respacing is None and arguments.spacing is None:
    arguments.spacing = students.SPACING
    if arguments.steps is None:
      arguments.steps = max(network.steps)


def student(name: str | None) -> 'Network | None':
  """The network of a name, without its weights, if a folder says that it was distilled."""
  from adm_jax import config
  from adm_jax.io import files
  from adm_jax.weights import pretrained, shipped

  if name is None or not (name in shipped.names() or (files.folder(name) / 'config.json').exists()):
    return None
  try:
    network = config.build(pretrained.network_config(name))
  except UsageError:  # whoever loads it says what is wrong
    return None
  return network if network.scales is not None else None


def check(arguments: argparse.Namespace) -> None:
  """What of these options contradicts itself; no model needs to be loaded for it."""
  for name in ('scale', 'cfg_scale', 'weaker_scale'):
    _scale(arguments, name)
  if arguments.eta is not None and not 0 <= arguments.eta <= 1:
    raise UsageError(f'--eta {arguments.eta}: give 0 (no noise) to 1')
  _check_solvers(arguments)
  _check_steps(arguments)
  _check_guidance(arguments)


def _solvers(arguments: argparse.Namespace) -> tuple[str | None, ...]:
  """The names of all solvers that are asked for."""
  named = arguments.solver, getattr(arguments, 'upsample_solver', None)
  return [name for name in named if name is not None]


def _with(trait):
  """The names of the solvers that have a trait."""
  from adm_jax.sampling import solvers

  return [name for name, make in solvers.offered().items() if getattr(make(), trait)]


def _check_solvers(arguments: argparse.Namespace) -> None:
  from adm_jax.sampling import solvers

  for name in _solvers(arguments):
    solver(name, arguments)
  if arguments.eta is not None and not any(
      'eta' in solvers.options(name) for name in _solvers(arguments)):
    raise UsageError(f'--eta belongs to --solver {" or ".join(solvers.having("eta"))}')


def _check_steps(arguments: argparse.Namespace) -> None:
  from adm_jax.sampling import spacings

  spaced = [name for name, given in (('--steps', arguments.steps), ('--spacing', arguments.spacing))
            if given is not None]
  if spaced and arguments.respacing is not None:
    raise UsageError(f'{spaced[0]} and --respacing are two ways to choose the steps: give one')
  if arguments.spacing is not None:
    spacings.by_name(arguments.spacing)
  for name in _solvers(arguments):
    if spaced and solver(name, arguments).neighbors_only:
      number = 'N' if arguments.steps is None else arguments.steps
      raise UsageError(f'{spaced[0]} leads past steps, and {name} sampling takes them one by one: '
                       f'give --respacing {number}, or another --solver')
  if arguments.churn is not None and not solver(arguments.solver, arguments).may_churn:
    raise UsageError(f'--churn belongs to --solver {" or ".join(_with("may_churn"))}')


def _check_guidance(arguments: argparse.Namespace) -> None:
  of_classifier = (('--scale', arguments.scale is not None and not arguments.distilled),
                   ('--classifier-weights', arguments.classifier_weights is not None),
                   ('--classifier-config', arguments.classifier_config is not None),
                   ('--normalize-gradient', arguments.normalize_gradient),
                   ('--clip-guided', arguments.clip_guided is not None),
                   ('--classifier-every', arguments.classifier_every != 1))
  for name, given in of_classifier:
    if given and arguments.classifier is None:
      raise UsageError(f'{name} is of a classifier\'s guidance: name one with --classifier'
                       + (', or a distilled model' if name == '--scale' else ''))
  if arguments.classifier_every != 1 and not solver(arguments.solver, arguments).acts_alone:
    raise UsageError(f'--classifier-every needs steps that act alone: give --solver '
                     f'{", ".join(_with("acts_alone"))}')
  for name, given in (('--weaker-scale', arguments.weaker_scale),
                      ('--weaker-weights', arguments.weaker_weights)):
    if given is not None and arguments.weaker is None:
      raise UsageError(f'{name} is of a weaker model: name one with --weaker')
  for name in arguments.guidance:
    if not functions.is_own(name):
      raise UsageError(f'--guidance {name}: give FILE.py:FUNCTION')
  guides = arguments.classifier, arguments.weaker, arguments.cfg_scale, *(arguments.guidance[:1])
  if arguments.model is None and any(guide is not None for guide in guides):
    raise UsageError('guidance is of the model that makes images: name one with --model')
  if arguments.guide_between is not None and all(guide is None for guide in guides):
    raise UsageError('--guide-between is of guidance: give --classifier, --weaker or --cfg-scale')
  if arguments.dynamic_threshold is not None and arguments.clip_guided:
    raise UsageError('--dynamic-threshold stands instead of --clip-guided: give one')


def _churn(arguments: argparse.Namespace) -> tuple[float, ...] | None:
  """(S_churn, S_min, S_max, S_noise), or None."""
  if arguments.churn is None:
    return None
  given = numbers('--churn', arguments.churn, (1, 3, 4))
  churn = (*given, *(0.0, float('inf'), 1.0)[len(given) - 1:])
  if not all(value >= 0 for value in churn) or not churn[0] < math.inf or not churn[1] <= churn[2]:
    raise UsageError(f'--churn {arguments.churn}: give numbers from 0 on, MIN not above MAX')
  return churn


def solver(name: str, arguments: argparse.Namespace) -> 'Solver':
  """The solver called `name`, with the options that are its own."""
  from adm_jax.sampling import solvers

  own = solvers.options(name) if arguments.eta is not None else ()
  found = solvers.by_name(name, **({'eta': arguments.eta} if 'eta' in own else {}))
  churn = _churn(arguments)
  return found if churn is None else solvers.churned(found, noise_scale=churn[3])


def _is_spaced(arguments: argparse.Namespace) -> bool:
  return arguments.steps is not None or arguments.spacing is not None


def _steps(arguments: argparse.Namespace) -> 'Callable[[Schedule], Step]':
  """Where the solver goes: a function of the schedule."""
  from adm_jax.sampling import spacings
  from adm_jax.sampling.courses import DEFAULT_STEPS
  from adm_jax.sampling.steps import descend

  def steps(schedule):
    found = descend(schedule)
    if _is_spaced(arguments):
      space = spacings.by_name(arguments.spacing or 'time')
      found = space(schedule, DEFAULT_STEPS if arguments.steps is None else arguments.steps)
    churn = _churn(arguments)
    if churn is not None:
      found = spacings.churned(schedule, found, churn[0], low=churn[1], high=churn[2])
    return found
  return steps


def _respacing(arguments: argparse.Namespace) -> str | None:
  """Spacings go through the whole process."""
  return '' if _is_spaced(arguments) else arguments.respacing


def _guidance(arguments: argparse.Namespace) -> 'tuple[Guidance, ...]':
  """What the options of guidance name, in the order in which it is folded."""
  from adm_jax.sampling import guidance

  between = (None if arguments.guide_between is None
             else tuple(numbers('--guide-between', arguments.guide_between, (2,))))
  found = [guidance.Distilled(_scale(arguments, 'scale'))] if arguments.distilled else []
  if arguments.cfg_scale is not None:
    found.append(guidance.ClassifierFree(_scale(arguments, 'cfg_scale'), between))
  if arguments.weaker is not None:
    scale = _scale(arguments, 'weaker_scale')
    found.append(guidance.ByWeakerModel(
        arguments.weaker, **({} if scale is None else {'scale': scale}), between=between,
        weights=arguments.weaker_weights))
  if arguments.classifier is not None:
    found.append(guidance.ByClassifier(
        classifier(arguments), _scale(arguments, 'scale'), between,
        normalize=arguments.normalize_gradient, every=arguments.classifier_every,
        clip=arguments.clip_guided, weights=arguments.classifier_weights))
  found += map(guidance.OfFile, arguments.guidance)
  if arguments.dynamic_threshold is not None:
    found.append(guidance.DynamicThreshold(arguments.dynamic_threshold))
  return tuple(found)


def model(arguments: argparse.Namespace) -> 'str | Trained':
  """What --model names, or the network itself where --config says what it is."""
  return _own(arguments.model, arguments.config, arguments.weights)


def classifier(arguments: argparse.Namespace) -> 'str | Trained':
  """What --classifier names, likewise."""
  return _own(arguments.classifier, arguments.classifier_config, arguments.classifier_weights)


def _own(name: str, path: str | None, weights: str | None) -> 'str | Trained':
  """A network of a user's own, whose config names functions that a stored one may not."""
  if path is None:
    return name
  from adm_jax import config
  from adm_jax.weights import folders
  return folders.load(name, weights=weights, config=config.load(path))


def _course(arguments: argparse.Namespace, from_step: int | None = None) -> 'Course':
  """The steps that the options ask for."""
  from adm_jax.sampling import initial_states
  from adm_jax.sampling.courses import Course

  steps = _steps(arguments)
  words = {'steps': arguments.steps,
           'spacing': arguments.spacing and functions.described(arguments.spacing),
           'churn': arguments.churn, 'from_step': from_step}
  if from_step is not None:
    steps = initial_states.from_step(from_step, steps)
  return Course(_respacing(arguments), steps, words)


def load(arguments: argparse.Namespace, from_step: int | None = None,
         devices: 'list[jax.Device] | None' = None) -> 'Pipeline':
  """The model with its guidance as a `Pipeline`, perhaps one that starts in the middle."""
  from adm_jax.sampling import pipeline

  adm = pipeline.load(
      model(arguments), guidance=_guidance(arguments), steps=_course(arguments, from_step),
      solver=solver(arguments.solver, arguments), weights=arguments.weights, dtype=arguments.dtype,
      fsdp=arguments.fsdp, devices=devices)
  if adm.low_res_shape is not None:
    raise UsageError(f'{arguments.model} enlarges images: give it as --upsample, with --model or '
                     '--base for the small ones')
  return adm


def load_upsampler(arguments: argparse.Namespace,
                   devices: 'list[jax.Device] | None' = None) -> 'Pipeline':
  """What --upsample names, as a `Pipeline`."""
  from adm_jax.sampling import pipeline

  own = arguments.upsample_respacing
  adm = pipeline.load(
      arguments.upsample, steps=_course(arguments) if own is None else own,
      solver=solver(arguments.upsample_solver or arguments.solver, arguments),
      weights=arguments.upsample_weights, dtype=arguments.dtype, fsdp=arguments.fsdp,
      devices=devices)
  if adm.low_res_shape is None:
    raise UsageError(f'{arguments.upsample} enlarges nothing: give an upsampler as --upsample')
  return adm
