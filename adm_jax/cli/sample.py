"""Sample a model on all devices: any number of images, in a folder that survives interruptions.

Images are written as they are made; the same command goes on where it was stopped, and ends with
the same bytes. OUT/samples.npz has the reference's layout: arr_0, uint8 N H W C, and arr_1, labels.

examples:
  adm sample --classes sneaker,bag,coat --num 12 --grid --out runs/first
  adm sample --model runs/demo/unet --classifier runs/demo/classifier --scale 2 --num 100
    --out runs/digits --grid
  adm sample --model imagenet256 --classifier imagenet256-classifier --scale 1.0
    --classes 208,360,"golden retriever" --num 50000 --respacing 250 --seed 0 --out runs/in256
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

import argparse
import contextlib
import pathlib
from typing import TYPE_CHECKING, Callable

from adm_jax.cli import parts, sampling_options
from adm_jax.cli.parser import (
  add_profile_argument,
  at_least_one,
  check_seed,
  numbers,
  steps_to_profile,
)
from adm_jax.errors import UsageError

if TYPE_CHECKING:
  import jax

  from adm_jax.data.sources import Source
  from adm_jax.devices.profile import Profile
  from adm_jax.sampling.initial_states import InitialStates
  from adm_jax.sampling.jobs import Made, SamplingJob
  from adm_jax.sampling.pipeline import Pipeline

RESUMES = True
_SATURATED = 0.5  # the share of values at the ends of their range that is told


def add_arguments(parser: argparse.ArgumentParser) -> None:
  model = parser.add_argument_group('which model (adm models lists the published ones)')
  sampling_options.add_model_arguments(model)
  sampling_options.add_upsampler_arguments(model)
  model.add_argument('--base', metavar='FILE', help='an .npz of images, to enlarge instead')
  sampling_options.add_guidance_arguments(parser)

  what = parser.add_argument_group('which images')
  what.add_argument('--num', type=int, metavar='N', help='default: one per class named, or 16')
  what.add_argument('--classes', metavar='LIST',
                    help='indices, ranges and names: 208,360-362,"golden retriever"; default: all')
  what.add_argument('--class-order', choices=('turn', 'drawn'),
                    help='in turn, the default with --classes, or drawn uniformly, without')
  what.add_argument('--seed', type=int, default=0,
                    help='image i depends on the seed, i and its label alone; default: 0')
  what.add_argument('--images', metavar='DIR|ZIP|NPZ', help='start from these images')
  what.add_argument('--from-step', type=int, metavar='T',
                    help='with --images: noise them to step T of training, and go on from there')
  what.add_argument('--reconstruct', action='store_true',
                    help='with --images: encode them by DDIM, and decode their codes')
  what.add_argument('--interpolate', metavar='A,B',
                    help='from seed A to seed B, or with --images from its image A to B, by DDIM; '
                    'with one class, if the model has classes')

  how = parser.add_argument_group('how')
  sampling_options.add_step_arguments(how)
  how.add_argument('--batch-size', type=int, metavar='B', help='over all devices')
  add_profile_argument(how, 'parts of sampling (a batch has up to ten, of equal steps)')

  out = parser.add_argument_group('where to')
  out.add_argument('--out', required=True, metavar='DIR',
                   help='or gs://BUCKET/...; a folder that all processes share')
  out.add_argument('--format', choices=('npz', 'png'), default='npz',
                   help='png also writes OUT/png/LABEL_INDEX.png')
  out.add_argument('--grid', action='store_true', help='also draw the first 64 in OUT/grid.png')
  parts.add_sharing_argument(parts.add_arguments(parser))


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  if rest:
    raise UsageError(f'adm sample does not understand {" ".join(rest)}; see adm sample --help')
  filled_in = sampling_options.fill_in_model(arguments)
  sampling_options.fill_in_solver(arguments)
  check(arguments)
  from adm_jax.cli.first_images import Clock
  from adm_jax.devices import compilation_cache, hosts
  from adm_jax.devices.profile import Profile
  from adm_jax.io import files, progress
  from adm_jax.sampling import shards

  out = files.folder(arguments.out)
  shards.check_folder(out)
  part, devices = parts.part_and_devices(arguments)
  speaks = (part.first or part.alone) and hosts.leads(devices)
  if speaks:
    print(*filled_in, sep='\n', end='\n' if filled_in else '')
  cache = compilation_cache.use()
  clock = Clock()
  # All networks are loaded, and fit each other, before anything is made.
  job = _job(arguments, devices)
  clock.end('weights')
  seen = False

  def watch(batches):
    nonlocal seen
    seen = True
    return clock.first(batches)
  with Profile(*steps_to_profile(arguments), out, what='sampling part') as profile, \
      hosts.stopped_by_sigterm(), hosts.noticing_lost_peers():
    made = job.write(out, part=part, watch=watch, bar=_profiled(progress.images, profile))
  if seen and speaks:
    print(f'first images after {clock.report()}')
  if made is None:
    if part.alone:
      print(f'part {part} is made; whichever part comes last joins them all: adm status {out}')
    return 0
  shape = ' x '.join(map(str, made.images.shape[1:]))
  print(f'samples: {made.path}  {len(made.images)} images of {shape}')
  if job.pipeline.guidance and (share := made.saturated()) > _SATURATED:
    print(f'{share:.0%} of the values are 0 or 255: unless the images look right, guide with a '
          'smaller scale')
  _draw(arguments, out, made)
  if arguments.profile is not None:
    print(profile.report())
  print(f'compiled programs are kept in {cache}')
  return 0


def _profiled(bar: Callable, profile: 'Profile') -> Callable:
  """`progress.images`, by which `profile` knows when a part of the sampling ends."""
  @contextlib.contextmanager
  def images(total, done, steps, title, note):
    left = (total - done) * steps
    with bar(total, done, steps, title, note) as advance:
      profile.begin()
      def report(count, own=True):  # when the devices have come so far
        nonlocal left
        advance(count, own)
        if not own:
          return
        profile.end()
        left -= count
        if left > 0:
          profile.begin()
      yield report
  return images


def _job(arguments: argparse.Namespace,
         devices: 'list[jax.Device] | None' = None) -> 'SamplingJob':
  """What the options ask for, as a `SamplingJob`."""
  from adm_jax.sampling.jobs import SamplingJob

  common = dict(seed=arguments.seed, batch_size=arguments.batch_size)
  classes = dict(classes=arguments.classes, class_order=arguments.class_order)
  base = arguments.base
  if arguments.model is not None:
    adm = sampling_options.load(arguments, arguments.from_step, devices)
    base = SamplingJob(adm, arguments.num, start=_start(arguments, adm), **classes, **common)
    classes = {}  # the upsampler's are the base's
  if arguments.upsample is None:
    return base
  return SamplingJob(sampling_options.load_upsampler(arguments, devices), arguments.num, base=base,
                     **classes, **common)


def check(arguments: argparse.Namespace) -> None:
  """Contradictions; no model needs to be loaded for them."""
  if arguments.model is not None and arguments.base is not None:
    raise UsageError('--model makes images, and --base gives them: give one')
  if arguments.base is not None and arguments.upsample is None:
    raise UsageError('--base gives images to enlarge: say by which model with --upsample NAME')
  if arguments.model is None and arguments.base is None:  # then there is an upsampler
    raise UsageError('--upsample enlarges images: give them with --base FILE, or what makes them '
                     'with --model NAME')
  for name in ('weights', 'config', 'images', 'from_step', 'reconstruct', 'interpolate',
               'dynamic_threshold'):
    if arguments.base is not None and getattr(arguments, name):
      raise UsageError(f'--{name.replace("_", "-")} is of the model that makes images, and --base '
                       'stands in its place: give one')
  for name in ('upsample_weights', 'upsample_respacing', 'upsample_solver'):
    if arguments.upsample is None and getattr(arguments, name) is not None:
      raise UsageError(f'--{name.replace("_", "-")} is of an upsampler: name one with --upsample')
  sampling_options.check(arguments)
  at_least_one(arguments, 'num', 'batch_size')
  check_seed(arguments)
  steps_to_profile(arguments)
  _check_starts(arguments)


def _check_starts(arguments: argparse.Namespace) -> None:
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
  deterministic = sampling_options.solver(arguments.solver, arguments).deterministic
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


def _ends(arguments: argparse.Namespace) -> list[int]:
  ends = numbers('--interpolate', arguments.interpolate, (2,), int)
  if not all(0 <= end < 2**32 for end in ends):
    raise UsageError(f'--interpolate {arguments.interpolate}: give 0 to {2**32 - 1}')
  return ends


def _start(arguments: argparse.Namespace, adm: 'Pipeline') -> 'InitialStates | None':
  """Where the images start, if not from fresh noise."""
  from adm_jax.sampling.initial_states import Between, Encoded, Noised

  images = None if arguments.images is None else _folder(arguments, adm)
  if arguments.interpolate is not None:
    return Between(*_ends(arguments), images)
  if images is None:
    return None
  return Encoded(images) if arguments.reconstruct else Noised(images)


def _folder(arguments: argparse.Namespace, adm: 'Pipeline') -> 'Source':
  from adm_jax.data.open import open_source

  height, width, channels = adm.sampler.shape
  if height != width:
    raise UsageError(f'--images are cut to squares, and the model makes {height} x {width}')
  return open_source(arguments.images, height, labels=None, channels=channels)


def _draw(arguments: argparse.Namespace, out: pathlib.Path, made: 'Made') -> None:
  """The formats beside the .npz; quick to repeat, so a second run with another choice adds it."""
  from adm_jax.io import pictures

  if arguments.format == 'png':
    pictures.write_folder(out / 'png', made.images, made.labels)
    print(f'pictures: {out / "png"}')
  if arguments.grid:
    pictures.write_grid(out / 'grid.png', made.images, made.labels, made.class_names)
    print(f'grid: {out / "grid.png"}')
