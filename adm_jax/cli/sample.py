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

from adm_jax.cli import models_and_steps
from adm_jax.cli.parser import at_least_one, numbers
from adm_jax.errors import UsageError

RESUMES = True


def add_arguments(parser):
  model = parser.add_argument_group('which model (adm models lists the published ones)')
  models_and_steps.add_model_arguments(model)
  models_and_steps.add_upsampler_arguments(model)
  model.add_argument('--base', metavar='FILE', help='an .npz of images, to enlarge instead')
  models_and_steps.add_guidance_arguments(parser)

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
                    help='from seed A to seed B, or with --images from its image A to B, by DDIM; '
                    'with one class, if the model has classes')

  how = parser.add_argument_group('how')
  models_and_steps.add_step_arguments(how)
  how.add_argument('--batch-size', type=int, metavar='B', help='over all devices')

  out = parser.add_argument_group('where to')
  out.add_argument('--out', required=True, metavar='DIR')
  out.add_argument('--format', choices=('npz', 'png'), default='npz',
                   help='png also writes OUT/png/LABEL_INDEX.png')
  out.add_argument('--grid', action='store_true', help='also draw the first 64 in OUT/grid.png')


def run(arguments, rest):
  if rest:
    raise UsageError(f'adm sample does not understand {" ".join(rest)}; see adm sample --help')
  check(arguments)
  from adm_jax.cli import first_images
  from adm_jax.devices import compilation_cache
  from adm_jax.sampling import jobs
  from adm_jax.sampling.pipeline import check_small_images, check_small_shape

  out = pathlib.Path(arguments.out).absolute()
  jobs.check_folder(out)
  cache = compilation_cache.use()
  clock = first_images.Clock()
  # All networks are loaded, and fit each other, before anything is made.
  model = None if arguments.model is None else models_and_steps.load(arguments, arguments.from_step)
  if arguments.upsample is None:
    clock.end('weights')
    made = _sampled(arguments, model, out, clock)
  else:
    upsampler = models_and_steps.load_upsampler(arguments)
    clock.end('weights')
    if model is None:
      small = _given(pathlib.Path(arguments.base))
      check_small_images(small.images, upsampler.low_res_shape)
    else:
      check_small_shape(model.sampler.shape, upsampler.low_res_shape)
      small = _sampled(arguments, model, out / jobs.BASE, clock)
      clock = None  # these are the first images
    made = _upsampled(arguments, upsampler, small, out, clock)
  _draw(arguments, out, made)
  print(f'compiled programs are kept in {cache}')
  return 0


def check(arguments):
  """Contradictions; no model needs to be loaded for them."""
  if (arguments.model is None) == (arguments.base is None):
    raise UsageError('give --model NAME, or --base FILE.npz with --upsample NAME')
  if arguments.base is not None and arguments.upsample is None:
    raise UsageError('--base gives images to enlarge: say by which model with --upsample NAME')
  for name in ('weights', 'images', 'from_step', 'reconstruct', 'interpolate'):
    if arguments.base is not None and getattr(arguments, name):
      raise UsageError(f'--{name.replace("_", "-")} is of the model that makes images, and --base '
                       'stands in its place: give one')
  for name in ('upsample_weights', 'upsample_respacing', 'upsample_solver'):
    if arguments.upsample is None and getattr(arguments, name) is not None:
      raise UsageError(f'--{name.replace("_", "-")} is of an upsampler: name one with --upsample')
  models_and_steps.check(arguments)
  at_least_one(arguments, 'num', 'batch_size')
  if not 0 <= arguments.seed < 2**32:
    raise UsageError(f'--seed {arguments.seed}: give 0 to {2**32 - 1}')
  _check_starts(arguments)


def _check_starts(arguments):
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
  deterministic = models_and_steps.solver(arguments.solver, arguments).deterministic
  if starts and starts != ['--from-step'] and not deterministic:
    raise UsageError(f'{starts[0]} needs a sampler without noise: give --solver ddim (and --eta 0, '
                     'no --churn), or another that is deterministic in docs/solvers.md')
  spaced = arguments.steps is not None or arguments.spacing is not None
  if spaced and (arguments.reconstruct or arguments.images and arguments.interpolate):
    raise UsageError('images are encoded along the steps of --respacing: give it instead of '
                     '--steps and --spacing')
  if arguments.churn is not None and arguments.from_step is not None:
    raise UsageError('--churn and --from-step both add noise first: give one')
  if arguments.interpolate is not None:
    _ends(arguments)


def _ends(arguments):
  ends = numbers('--interpolate', arguments.interpolate, (2,), int)
  if not all(0 <= end < 2**32 for end in ends):
    raise UsageError(f'--interpolate {arguments.interpolate}: give 0 to {2**32 - 1}')
  return ends


class _Images(NamedTuple):
  """Images uint8[N H W C], read as they are indexed, and their labels i64[N] or None.

  `origin` tells them from others, for a job's description.
  """
  images: Any
  labels: Any
  class_names: Any
  origin: str


def _sampled(arguments, adm, out, clock):
  from adm_jax.data.sources import Rows

  classes, order = _classes(arguments, adm)
  folder = None if arguments.images is None else _folder(arguments, adm)
  images = None if folder is None else Rows(folder)
  if arguments.num is not None or images is None or arguments.interpolate is not None:
    num = arguments.num or (16 if classes is None or arguments.interpolate else len(classes))
  else:
    num = len(images)
  labels = _labels(adm, num, arguments.seed, classes, order)
  x = _start(arguments, adm, images, num, labels)
  description = {**adm.description, **models_and_steps.describe(arguments.solver, arguments),
                 'num': num, 'classes': 'all' if classes is None else classes, 'class_order': order,
                 'images': None if folder is None else folder.fingerprint(),
                 'from_step': arguments.from_step, 'reconstruct': arguments.reconstruct,
                 'interpolate': arguments.interpolate}
  return _make(arguments, adm, out, clock, description, num, labels, labels, x=x)


def _upsampled(arguments, adm, small, out, clock):
  num = len(small.images) if arguments.num is None else arguments.num
  if num > len(small.images):
    raise UsageError(f'there are {len(small.images)} small images: --num {num} is more')
  labels = kept = None if small.labels is None else small.labels[:num]
  if adm.num_classes is None:
    labels = None  # the file keeps them all the same
  elif labels is None:
    labels = kept = _labels(adm, num, arguments.seed, *_classes(arguments, adm))
  elif arguments.base is not None and arguments.classes is not None:
    raise UsageError(f'{arguments.base} has labels: leave out --classes')
  solver = models_and_steps.upsample_solver(arguments)
  description = {**adm.description, **models_and_steps.describe(solver, arguments), 'num': num,
                 'base': small.origin}
  return _make(arguments, adm, out, clock, description, num, labels, kept, low_res=small.images)


def _make(arguments, adm, out, clock, description, num, labels, kept, **given):
  """Makes what is missing of a job; `labels` are for the network, `kept` for the file.

  `clock` times the first images, if these are they.
  """
  from adm_jax.io import npz, progress
  from adm_jax.sampling import jobs
  from adm_jax.sampling.sampler import check_labels

  labels = check_labels(labels, num, adm.num_classes)
  evaluations = adm.sampler.num_evaluations
  with jobs.open_job(out, description, num, adm.sampler.shape, kept) as job:
    done = job.done()
    if done < num:
      title = f'sampling {out.name}'
      with progress.images(num, done, adm.sampler.num_steps, title,
                           f'{evaluations} evaluations each') as report:
        batches = adm.batches(num, arguments.seed, labels, begin=done,
                              batch_size=arguments.batch_size, progress=report, **given)
        jobs.fill(job, batches if clock is None else clock.first(batches))
      if clock is not None:
        print(f'first images after {clock.report()}')
    path = job.finish()
    print(f'samples: {path}  {num} images of {" x ".join(map(str, adm.sampler.shape))}')
    return _Images(job.images(), job.labels, adm.class_names, npz.checksum(path))


def _classes(arguments, adm):
  """(the classes asked for, or None for all; 'turn' or 'drawn')."""
  from adm_jax.data import class_names

  if arguments.classes is None:
    if arguments.interpolate is not None and adm.num_classes is not None:
      raise UsageError('--interpolate keeps to one class: name it with --classes')
    return None, arguments.class_order or 'drawn'
  if adm.num_classes is None:
    raise UsageError(f'{arguments.model or arguments.upsample} knows no classes: leave out '
                     '--classes, or guide it with --classifier')
  classes = class_names.find(arguments.classes, adm.num_classes, adm.class_names)
  if arguments.interpolate is not None and len(classes) > 1:
    raise UsageError(f'--interpolate keeps to one class: --classes names {len(classes)}')
  return classes, arguments.class_order or 'turn'


def _labels(adm, num, seed, classes, order):
  from adm_jax.data import class_names

  if adm.num_classes is None:
    return None
  if order == 'turn':
    return class_names.in_turn(range(adm.num_classes) if classes is None else classes, num)
  return adm.labels(num, seed, classes)


def _folder(arguments, adm):
  from adm_jax.data.folder import Folder

  height, width, channels = adm.sampler.shape
  if height != width:
    raise UsageError(f'--images are cut to squares, and the model makes {height} x {width}')
  return Folder(arguments.images, height, labels=None, channels=channels)


def _start(arguments, adm, images, num, labels):
  """Where the run starts: a function from indices to x, or None for fresh noise."""
  import numpy as np

  from adm_jax.sampling import initial_states

  if arguments.interpolate is not None:
    ends = _ends(arguments)
    if images is None:
      noises = (initial_states.noise_of_seed(adm, seed) for seed in ends)
      return initial_states.between(*noises, num)
    if max(ends) >= len(images):
      raise UsageError(f'--interpolate {arguments.interpolate}: {arguments.images} holds images 0 '
                       f'to {len(images) - 1}')
    both = None if labels is None else np.resize(labels, 2)
    return initial_states.between(*initial_states.codes(adm, images[np.asarray(ends)], both), num)
  if images is None:
    return None
  if len(images) < num:
    raise UsageError(f'{arguments.images} holds {len(images)} images: --num {num} is more')
  if arguments.reconstruct:
    return initial_states.encoded(adm, images, labels)
  return initial_states.noised(adm, images, arguments.seed)


def _given(path):
  """The images of anyone's .npz."""
  import numpy as np

  from adm_jax.io import npz

  images = npz.rows(path, 'arr_0')
  labels = npz.read(path, 'arr_1') if 'arr_1' in npz.names(path) else None
  if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu'):
    raise UsageError(f'{path} has labels {labels.dtype} of shape {labels.shape} for {len(images)} '
                     'images: give an integer each')
  return _Images(images, None if labels is None else np.asarray(labels, np.int64), None,
                 npz.checksum(path))


def _draw(arguments, out, made):
  """The formats beside the .npz; quick to repeat, so a second run with another choice adds it."""
  from adm_jax.io import pictures

  if arguments.format == 'png':
    pictures.write_folder(out / 'png', made.images, made.labels)
    print(f'pictures: {out / "png"}')
  if arguments.grid:
    pictures.write_grid(out / 'grid.png', made.images, made.labels, made.class_names)
    print(f'grid: {out / "grid.png"}')
