"""Sample a model on all devices: any number of images, in a folder that survives interruptions.

Images are written as they are made; the same command goes on where it was stopped, and ends with
the same bytes. OUT/samples.npz has the reference's layout: arr_0, uint8 N H W C, and arr_1, labels.

examples:
  adm sample --model runs/demo/unet --classifier runs/demo/classifier --scale 2 --num 100
    --out runs/digits --grid
  adm sample --model imagenet256 --classifier imagenet256-classifier --scale 1.0
    --classes 207,360,"golden retriever" --num 50000 --respacing 250 --seed 0 --out runs/in256
  adm sample --model runs/demo/unet --classifier runs/demo/classifier --scale 2 --num 100
    --solver dpm++2m --steps 20 --out runs/fast
  adm sample --model imagenet64 --solver heun --steps 128 --spacing karras --churn 40,0.05,50,1.003
    --out runs/edm
  adm sample --model imagenet64 --upsample 64_256 --num 100 --out runs/stack
  adm sample --base samples.npz --upsample 64_256 --out runs/enlarged
  adm sample --model lsun-cat --interpolate 1,2 --num 9 --solver ddim --out runs/between --grid
  adm sample --model lsun-cat --images cats/ --from-step 400 --out runs/variations --grid
  adm sample --model lsun-cat --images cats/ --reconstruct --solver ddim --out runs/again --grid
"""

import pathlib
from typing import Any, NamedTuple

from adm_jax.data.sources import Rows
from adm_jax.errors import UsageError

_FORMATS = ('npz', 'png')
_SOLVERS = ('ancestral', 'ddim', 'euler', 'heun', 'dpm++2m', 'dpm++3m', 'dpm++2s', 'dpm++2m-sde',
            'unipc2', 'unipc3')
_CHURNED = ('euler', 'heun')
# Each step of these acts alone, as `guidance.every_kth` needs.
_ONE_STEP = ('ancestral', 'ddim', 'euler')
_SPACINGS = ('time', 'log-snr', 'karras', 'trailing')
_STEPS = 20


def add_arguments(parser):
  model = parser.add_argument_group('which model (adm models lists the published ones)')
  model.add_argument('--model', metavar='NAME|DIR|FILE',
                     help='a published model, a work directory, converted weights, a .pt file')
  model.add_argument('--weights', metavar='PATH|WHICH',
                     help="a published model's file; or of a work directory 'params' or an average")
  model.add_argument('--classifier', metavar='NAME|DIR|FILE', help='what guides it')
  model.add_argument('--classifier-weights', metavar='PATH', help='its file')
  model.add_argument('--scale', type=float, metavar='S',
                     help="of the classifier's gradient; default: the paper's, or 1")
  model.add_argument('--upsample', metavar='NAME|DIR|FILE', help='enlarges the images it made')
  model.add_argument('--upsample-weights', metavar='PATH', help='its file')
  model.add_argument('--base', metavar='FILE', help='an .npz of images, to enlarge instead')

  guidance = parser.add_argument_group('guidance')
  guidance.add_argument('--cfg-scale', type=float, metavar='S',
                        help='classifier-free: 1 is none; for models trained with label dropout')
  guidance.add_argument('--weaker', metavar='NAME|DIR|FILE',
                        help='autoguidance: away from this weaker model of the same images')
  guidance.add_argument('--weaker-weights', metavar='PATH|WHICH', help='as --weights')
  guidance.add_argument('--weaker-scale', type=float, metavar='S',
                        help='of autoguidance: 1 is none; default: 2')
  guidance.add_argument('--guide-between', metavar='LOW,HIGH',
                        help='guide at these noise levels only, sigma = '
                        'sqrt((1 - alpha_bar) / alpha_bar): 0.2,5')
  guidance.add_argument('--normalize-gradient', action='store_true',
                        help="divide the classifier's gradient by its root mean square")
  guidance.add_argument('--classifier-every', type=int, default=1, metavar='K',
                        help='an approximation: ask it at every K-th step, times K')
  guidance.add_argument('--dynamic-threshold', type=float, metavar='SHARE',
                        help='scale x_0 down to where this share of values lie, say 0.995, instead '
                        'of clipping it')

  what = parser.add_argument_group('which images')
  what.add_argument('--num', type=int, metavar='N', help='default: one a class named, or 16')
  what.add_argument('--classes', metavar='LIST',
                    help='indices, ranges and names: 207,360-362,"golden retriever"; default: all')
  what.add_argument('--class-order', choices=('turn', 'drawn'),
                    help='in turn, the default with --classes, or drawn uniformly, without')
  what.add_argument('--seed', type=int, default=0,
                    help='image i depends on the seed, i and its label alone; default: 0')
  what.add_argument('--images', metavar='DIR|ZIP', help='start from these images')
  what.add_argument('--from-step', type=int, metavar='T',
                    help='with --images: noise them to step T of training, and go on from there')
  what.add_argument('--reconstruct', action='store_true',
                    help='with --images: encode them by DDIM, and decode their codes')
  what.add_argument('--interpolate', metavar='A,B',
                    help='from seed A to seed B, or with --images from its image A to B, by DDIM')

  how = parser.add_argument_group('how')
  how.add_argument('--respacing', metavar='SPEC',
                   help='the steps to take: 250, ddim25, 90,60,60,20,20; default: the paper\'s')
  how.add_argument('--upsample-respacing', metavar='SPEC', help='default: as --respacing')
  how.add_argument('--solver', choices=_SOLVERS, default='ancestral')
  how.add_argument('--steps', type=int, metavar='N',
                   help=f'how many of the whole process, instead of --respacing; default: {_STEPS} '
                   'with --spacing')
  how.add_argument('--spacing', choices=_SPACINGS,
                   help='how they lie in it; default: even in time')
  how.add_argument('--churn', metavar='S[,MIN,MAX[,NOISE]]',
                   help="EDM's, of --solver heun or euler: S_churn, S_min, S_max, S_noise")
  how.add_argument('--eta', type=float, help="of DDIM's noise; default: 0")
  how.add_argument('--clip-guided', action='store_true',
                   help='clip x_0 again after guidance, which the reference does not')
  how.add_argument('--batch-size', type=int, metavar='B', help='over all devices')
  how.add_argument('--dtype', choices=('float32', 'bfloat16'),
                   help='default: bfloat16 on accelerators, float32 on CPUs')
  how.add_argument('--fsdp', type=int, metavar='D',
                   help='devices that share one copy of the weights; default: as many as must')

  out = parser.add_argument_group('where to')
  out.add_argument('--out', required=True, metavar='DIR')
  out.add_argument('--format', choices=_FORMATS, default='npz',
                   help='png also writes OUT/png/LABEL_INDEX.png')
  out.add_argument('--grid', action='store_true', help='also draw OUT/grid.png')


def run(arguments, rest):
  if rest:
    raise UsageError(f'adm sample does not understand {" ".join(rest)}; see adm sample --help')
  _check(arguments)
  from adm_jax import compilation_cache, jobs
  from adm_jax.pipeline import check_small_images, check_small_shape

  out = pathlib.Path(arguments.out)
  jobs.check_folder(out)
  compiled = compilation_cache.use()
  # All networks are loaded, and fit each other, before anything is made.
  model = None if arguments.model is None else _model(arguments)
  if arguments.upsample is None:
    made = _sampled(arguments, model, out)
  else:
    upsampler = _upsampler(arguments)
    if model is None:
      small = _given(pathlib.Path(arguments.base), out)
      check_small_images(small.images, upsampler.low_res_shape)
    else:
      check_small_shape(model.sampler.shape, upsampler.low_res_shape)
      small = _sampled(arguments, model, out / jobs.BASE)
    made = _upsampled(arguments, upsampler, small, out)
  _draw(arguments, out, made)
  print(f'compiled programs are kept in {compiled}')
  return 0


def _check(arguments):
  """What no model needs to be loaded for."""
  if (arguments.model is None) == (arguments.base is None):
    raise UsageError('give --model NAME, or --base FILE.npz with --upsample NAME')
  if arguments.base is not None and arguments.upsample is None:
    raise UsageError('--base gives images to enlarge: say by which model with --upsample NAME')
  if arguments.eta is not None and arguments.solver != 'ddim':
    raise UsageError('--eta belongs to --solver ddim')
  _check_steps(arguments)
  _check_guidance(arguments)
  if arguments.num is not None and arguments.num < 1:
    raise UsageError(f'--num {arguments.num}: give at least 1')
  if arguments.batch_size is not None and arguments.batch_size < 1:
    raise UsageError(f'--batch-size {arguments.batch_size}: give at least 1')
  starts = [name for name, given in (('--from-step', arguments.from_step is not None),
                                     ('--reconstruct', arguments.reconstruct),
                                     ('--interpolate', arguments.interpolate is not None)) if given]
  if len(starts) > 1:
    raise UsageError(f'{" and ".join(starts)} are different places to start: give one')
  if arguments.images is not None and not starts:
    raise UsageError('--images gives images to start from: say how with --from-step T, '
                     '--reconstruct or --interpolate')
  if starts and arguments.images is None and starts != ['--interpolate']:
    raise UsageError(f'{starts[0]} needs images to start from: name them with --images DIR')
  deterministic = arguments.solver == 'ddim' and not arguments.eta
  if starts and starts != ['--from-step'] and not deterministic:
    raise UsageError(f'{starts[0]} needs a sampler without noise: give --solver ddim (and --eta 0)')


def _check_steps(arguments):
  spaced = [name for name, given in (('--steps', arguments.steps), ('--spacing', arguments.spacing))
            if given is not None]
  if spaced and arguments.respacing is not None:
    raise UsageError(f'{spaced[0]} and --respacing are two ways to choose the steps: give one')
  if spaced and arguments.solver == 'ancestral':
    raise UsageError(f'{spaced[0]} leads past steps, and ancestral sampling takes them one by one: '
                     'give --respacing N, or another --solver')
  if spaced and (arguments.reconstruct or arguments.images and arguments.interpolate):
    raise UsageError(f'images are encoded along the steps of --respacing: give it instead of '
                     f'{spaced[0]}')
  if arguments.churn is not None and arguments.solver not in _CHURNED:
    raise UsageError(f'--churn belongs to --solver {" or ".join(_CHURNED)}')
  if arguments.churn is not None and arguments.from_step is not None:
    raise UsageError('--churn and --from-step both add noise first: give one')


def _check_guidance(arguments):
  of_classifier = (('--scale', arguments.scale is not None),
                   ('--normalize-gradient', arguments.normalize_gradient),
                   ('--classifier-every', arguments.classifier_every != 1))
  for name, given in of_classifier:
    if given and arguments.classifier is None:
      raise UsageError(f'{name} is of a classifier\'s gradient: name one with --classifier')
  if arguments.classifier_every != 1 and arguments.solver not in _ONE_STEP:
    raise UsageError(f'--classifier-every needs steps that act alone: give --solver '
                     f'{", ".join(_ONE_STEP)}')
  for name, given in (('--weaker-scale', arguments.weaker_scale),
                      ('--weaker-weights', arguments.weaker_weights)):
    if given is not None and arguments.weaker is None:
      raise UsageError(f'{name} is of a weaker model: name one with --weaker')
  guides = arguments.classifier, arguments.weaker, arguments.cfg_scale
  if arguments.model is None and any(guide is not None for guide in guides):
    raise UsageError('guidance is of the model that makes images: name one with --model')
  if arguments.guide_between is not None and all(guide is None for guide in guides):
    raise UsageError('--guide-between is of guidance: give --classifier, --weaker or --cfg-scale')
  if arguments.dynamic_threshold is not None and arguments.clip_guided:
    raise UsageError('--dynamic-threshold stands instead of --clip-guided: give one')


class _Made(NamedTuple):
  """Images uint8[N H W C], mapped from a file; their labels i64[N] or None; where they lie."""
  images: Any
  labels: Any
  class_names: Any
  path: pathlib.Path


def _numbers(option, words, counts):
  """The numbers of a list, of which there must be one of `counts`."""
  try:
    numbers = [float(word) for word in words.split(',')]
  except ValueError:
    numbers = []
  if len(numbers) not in counts:
    raise UsageError(f'{option} {words}: give {" or ".join(map(str, counts))} numbers, with commas')
  return numbers


def _churn(arguments):
  """(S_churn, S_min, S_max, S_noise), or None."""
  if arguments.churn is None:
    return None
  given = _numbers('--churn', arguments.churn, (1, 3, 4))
  return (*given, *(0.0, float('inf'), 1.0)[len(given) - 1:])


def _solver(arguments):
  from adm_jax import solvers

  solver = {
      'ancestral': solvers.ancestral, 'ddim': lambda: solvers.ddim(arguments.eta or 0.0),
      'euler': solvers.ddim, 'heun': solvers.heun,
      'dpm++2m': solvers.dpm_multistep, 'dpm++3m': lambda: solvers.dpm_multistep(3),
      'dpm++2s': solvers.dpm_singlestep, 'dpm++2m-sde': lambda: solvers.dpm_multistep(sde=True),
      'unipc2': solvers.unipc, 'unipc3': lambda: solvers.unipc(3)}[arguments.solver]()
  churn = _churn(arguments)
  return solver if churn is None else solvers.churned(solver, noise_scale=churn[3])


def _is_spaced(arguments):
  return arguments.steps is not None or arguments.spacing is not None


def _steps(arguments):
  """Where the solver goes: a function of the schedule."""
  from adm_jax import solvers, spacing, starts

  def whole(schedule):
    steps = solvers.descend(schedule)
    if _is_spaced(arguments):
      space = {'time': spacing.by_time, 'log-snr': spacing.by_log_snr, 'karras': spacing.karras,
               'trailing': spacing.trailing}[arguments.spacing or 'time']
      steps = space(schedule, _STEPS if arguments.steps is None else arguments.steps)
    churn = _churn(arguments)
    if churn is not None:
      steps = spacing.churned(schedule, steps, churn[0], low=churn[1], high=churn[2])
    return steps
  return whole if arguments.from_step is None else starts.from_step(arguments.from_step, whole)


def _respacing(arguments):
  """Spacings go through the whole process."""
  return '' if _is_spaced(arguments) else arguments.respacing


def _how(arguments):
  """What a job's description says beside the model's."""
  return {'seed': arguments.seed, 'solver': arguments.solver, 'eta': arguments.eta or 0.0,
          'steps': arguments.steps, 'spacing': arguments.spacing, 'churn': arguments.churn}


def _model(arguments):
  from adm_jax import pipeline

  interval = (None if arguments.guide_between is None
              else tuple(_numbers('--guide-between', arguments.guide_between, (2,))))
  adm = pipeline.load(
      arguments.model, classifier=arguments.classifier, scale=arguments.scale,
      respacing=_respacing(arguments), solver=_solver(arguments), weights=arguments.weights,
      classifier_weights=arguments.classifier_weights, clip_guided=arguments.clip_guided,
      steps=_steps(arguments), cfg_scale=arguments.cfg_scale, weaker=arguments.weaker,
      weaker_scale=arguments.weaker_scale, weaker_weights=arguments.weaker_weights,
      interval=interval, normalize=arguments.normalize_gradient,
      classifier_every=arguments.classifier_every, threshold_share=arguments.dynamic_threshold,
      dtype=arguments.dtype, fsdp=arguments.fsdp)
  if adm.low_res_shape is not None:
    raise UsageError(f'{arguments.model} enlarges images: give it as --upsample, with --model or '
                     '--base for the small ones')
  return adm


def _upsampler(arguments):
  from adm_jax import pipeline, solvers

  own = arguments.upsample_respacing is not None
  adm = pipeline.load(
      arguments.upsample,
      respacing=arguments.upsample_respacing if own else _respacing(arguments),
      steps=solvers.descend if own else _steps(arguments),
      solver=_solver(arguments), weights=arguments.upsample_weights, dtype=arguments.dtype,
      fsdp=arguments.fsdp)
  if adm.low_res_shape is None:
    raise UsageError(f'{arguments.upsample} enlarges nothing: give an upsampler as --upsample')
  return adm


def _sampled(arguments, adm, out):
  classes, order = _classes(arguments, adm)
  num = arguments.num or _default_num(arguments, adm, classes)
  labels = _labels(adm, num, arguments.seed, classes, order)
  x = _start(arguments, adm, num, labels)
  description = {**adm.description, **_how(arguments), 'num': num,
                 'classes': 'all' if classes is None else classes, 'class_order': order,
                 'images': arguments.images, 'from_step': arguments.from_step,
                 'reconstruct': arguments.reconstruct, 'interpolate': arguments.interpolate}
  return _make(arguments, adm, out, description, num, labels, x=x)


def _classes(arguments, adm):
  """(the classes asked for, or None for all; 'turn' or 'drawn')."""
  from adm_jax import labels
  if arguments.classes is None:
    return None, arguments.class_order or 'drawn'
  if adm.num_classes is None:
    raise UsageError(f'{arguments.model or arguments.upsample} knows no classes: leave out '
                     '--classes, or guide it with --classifier')
  return (labels.find(arguments.classes, adm.num_classes, adm.class_names),
          arguments.class_order or 'turn')


def _default_num(arguments, adm, classes):
  if arguments.images is not None and arguments.interpolate is None:
    return len(_images(arguments, adm))
  return 16 if classes is None else len(classes)


def _labels(adm, num, seed, classes, order):
  from adm_jax import labels
  if adm.num_classes is None:
    return None
  if order == 'turn':
    return labels.in_turn(range(adm.num_classes) if classes is None else classes, num)
  return adm.labels(num, seed, classes)


def _images(arguments, adm):
  from adm_jax.data.folder import Folder
  height, width, channels = adm.sampler.shape
  if height != width:
    raise UsageError(f'--images are cut to squares, and the model makes {height} x {width}')
  return Rows(Folder(arguments.images, height, labels=None, channels=channels))


def _start(arguments, adm, num, labels):
  """Where the run starts: a function from indices to x, or None for fresh noise."""
  import numpy as np

  from adm_jax import starts

  images = None if arguments.images is None else _images(arguments, adm)
  if arguments.interpolate is not None:
    ends = _two(arguments.interpolate)
    if images is None:
      return starts.between(*(starts.noise_of_seed(adm, seed) for seed in ends), num)
    if not all(0 <= end < len(images) for end in ends):
      raise UsageError(f'--interpolate {arguments.interpolate}: {arguments.images} holds images 0 '
                       f'to {len(images) - 1}')
    labels = None if labels is None else labels[[0, -1]]
    return starts.between(*starts.codes(adm, images[np.asarray(ends)], labels), num)
  if images is None:
    return None
  if len(images) < num:
    raise UsageError(f'{arguments.images} holds {len(images)} images: --num {num} is more')
  if arguments.reconstruct:
    return starts.encoded(adm, images, labels)
  return starts.noised(adm, images, arguments.seed)


def _two(words):
  try:
    first, second = (int(word) for word in words.split(','))
    return first, second
  except ValueError:
    raise UsageError(f'--interpolate {words}: give two numbers, like 1,2') from None


def _make(arguments, adm, out, description, num, labels, **given):
  """Makes what is missing of a job."""
  import time

  from adm_jax import jobs, progress

  steps = adm.sampler.num_steps
  with jobs.open_job(out, description, num, adm.sampler.shape, labels) as job:
    done = job.done()
    if done < num:
      start, made = time.monotonic(), 0
      with progress.bar(num * steps, f'sampling {out.name}', initial=done * steps) as advance:
        def report(count):
          nonlocal made
          made += count
          rate = made / steps / (time.monotonic() - start)
          advance(count, f'{done + made // steps} of {num} images, {rate:.3g} a second, '
                         f'{adm.sampler.num_evaluations} evaluations each')
        jobs.fill(job, adm.batches(num, arguments.seed, labels, begin=done,
                                   batch_size=arguments.batch_size, progress=report, **given))
    path = job.finish()
    print(f'samples: {path}  {num} images of {" x ".join(map(str, adm.sampler.shape))}')
    return _Made(job.images(), job.labels, adm.class_names, path)


def _upsampled(arguments, adm, small, out):
  num = min(arguments.num or len(small.images), len(small.images))
  labels = None if adm.num_classes is None or small.labels is None else small.labels[:num]
  if adm.num_classes is not None and labels is None:
    labels = _labels(adm, num, arguments.seed, *_classes(arguments, adm))
  description = {**adm.description, **_how(arguments), 'num': num, 'base': str(small.path),
                 'base_fingerprint': _fingerprint(small.images)}
  return _make(arguments, adm, out, description, num, labels, low_res=small.images)


def _given(path, out):
  """The images of anyone's .npz."""
  import numpy as np

  from adm_jax import npz

  names = npz.names(path)
  images = npz.read(path, 'arr_0', out.with_name(f'.{out.name}.base.npy'))
  labels = npz.read(path, 'arr_1') if 'arr_1' in names else None
  if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu'):
    raise UsageError(f'{path} has labels {labels.dtype} of shape {labels.shape} for {len(images)} '
                     'images: give an integer each')
  return _Made(images, None if labels is None else np.asarray(labels, np.int64), None, path)


def _fingerprint(images):
  import hashlib
  return hashlib.sha256(images[::max(1, len(images) // 16)].tobytes()).hexdigest()[:16]


def _draw(arguments, out, made):
  """The formats beside the .npz; quick to repeat, so a second run with another choice adds it."""
  from adm_jax import pictures

  if arguments.format == 'png':
    pictures.write_folder(out / 'png', made.images, made.labels)
    print(f'pictures: {out / "png"}')
  if arguments.grid:
    pictures.write_grid(out / 'grid.png', made.images, made.labels, made.class_names)
    print(f'grid: {out / "grid.png"}')
