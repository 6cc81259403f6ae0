"""Distill a guided model into a student that makes images in a few steps, without a classifier.

First a student learns to predict at any scale of guidance what its teacher does (OUT/guided), then
to do it in few steps (OUT/student). Both are runs of adm train, and go on where they were stopped.

examples:
  adm distill --teacher runs/demo/unet --classifier runs/demo/classifier --scales 0,4 --steps 4
    --out runs/distilled
  adm distill --teacher fashion --scales 1,4 --steps 4 --data fashion --out runs/fashion
  adm sample --model runs/distilled/student --scale 2 --classes 0-9 --num 20 --grid --out runs/few

--guided.key=value and --student.key=value override the configs of the two runs. A teacher's own
images are what both see noised: those that it was trained on, if its work directory says which,
others by --data, or else images that it makes itself (OUT/images).
"""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from adm_jax.cli import real_images, train
from adm_jax.cli.parser import at_least_one, numbers
from adm_jax.errors import UsageError

if TYPE_CHECKING:
  from adm_jax.config import ConfigDict

RESUMES = True
_STAGES = ('guided', 'student')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  what = parser.add_argument_group('what is distilled')
  what.add_argument('--teacher', required=True, metavar='NAME|DIR|FILE',
                    help='what makes images, see adm sample --model')
  what.add_argument('--classifier', metavar='NAME|DIR|FILE', help='what guides it')
  what.add_argument('--weaker', metavar='NAME|DIR|FILE',
                    help='or the weaker model that does; default: the teacher guides itself, '
                    'classifier-free')
  what.add_argument('--scales', required=True, metavar='LOW,HIGH',
                    help='of the guidance, which the student is told: 0,4; 1 is none '
                    'but for a classifier, whose none is 0')
  what.add_argument('--steps', type=int, default=4, metavar='N',
                    help='in which the student makes an image, 1 to 8 or more; default: 4')
  what.add_argument('--data', metavar='CONFIG|DIR|ZIP|NPZ', help='the images to learn on')
  what.add_argument('--labels', default='folders', metavar='folders|prefix|FILE',
                    help='where the labels of folders of images come from; default: folders')
  what.add_argument('--images', type=int, default=10_000, metavar='N',
                    help='how many the teacher makes where there are none; default: 10000')

  how = parser.add_argument_group('how')
  how.add_argument('--guided-steps', type=int, default=10_000, metavar='N',
                   help='of training, in the first stage; default: 10000')
  how.add_argument('--student-steps', type=int, default=20_000, metavar='N',
                   help='in the second; default: 20000')
  how.add_argument('--batch-size', type=int, default=64, metavar='B', help='default: 64')
  how.add_argument('--learning-rate', type=float, default=5e-4, metavar='R',
                   help='at the start of each stage; default: 0.0005')
  how.add_argument('--out', required=True, metavar='DIR')
  train.add_process_arguments(how)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
  overrides = _overrides(rest)
  scales = _check(arguments)
  from adm_jax import config as config_lib
  from adm_jax.devices import hosts
  from adm_jax.io import files
  from adm_jax.training import student_recipes, teachers
  from adm_jax.weights import folders, pretrained

  hosts.join(arguments.coordinator, arguments.num_processes, arguments.process)
  # A folder as it was given, not absolute: the configs name what lies in it.
  out = pathlib.Path(arguments.out) if '://' not in arguments.out else files.folder(arguments.out)
  taught = teachers.described(arguments.teacher, arguments.classifier, arguments.weaker)
  network = student_recipes.network(pretrained.network_config(arguments.teacher), scales,
                                    taught.num_classes)
  data = _data(arguments, taught)
  shared = dict(batch_size=arguments.batch_size, learning_rate=arguments.learning_rate)
  configs = {
      'guided': student_recipes.guided(
          network, data, arguments.teacher, arguments.classifier, arguments.weaker,
          total_steps=arguments.guided_steps, **shared),
      'student': student_recipes.few_steps(
          network, data, str(out / 'guided'), arguments.steps,
          total_steps=arguments.student_steps, **shared)}
  names = pretrained.outline(arguments.teacher).class_names
  starts = {'guided': arguments.teacher, 'student': str(out / 'guided')}
  for stage in _STAGES:
    if hosts.first():
      print(f'stage {stage}: {out / stage}', file=sys.stderr, flush=True)
    train.run_config(config_lib.override(configs[stage], overrides[stage]), argparse.Namespace(
        **vars(arguments), workdir=str(out / stage), init_from=starts[stage], init_config=None,
        profile=None, tensorboard=False))
    if hosts.first() and names is not None and len(names) == taught.num_classes:
      folders.write_class_names(out / stage, names)
  low, high = scales
  if hosts.first():
    print(f'the student: adm sample --model {out / "student"} --scale {(low + high) / 2:g} '
          f'--num 16 --grid --out {out / "look"}')
  return 0


def _overrides(rest: list[str]) -> dict[str, list[str]]:
  """The overrides of each stage's config."""
  found = {stage: [word.replace(f'--{stage}.', '--config.', 1) for word in rest
                   if word.startswith(f'--{stage}.')] for stage in _STAGES}
  if sum(map(len, found.values())) < len(rest):
    raise UsageError('adm distill understands --guided.key=value and --student.key=value beside '
                     f'its own options, but not all of {" ".join(rest)}; see adm distill --help')
  return found


def _check(arguments: argparse.Namespace) -> tuple[float, float]:
  """The scales, once nothing contradicts itself."""
  at_least_one(arguments, 'steps', 'images', 'guided_steps', 'student_steps', 'batch_size')
  low, high = numbers('--scales', arguments.scales, (2,))
  if not low < high:
    raise UsageError(f'--scales {arguments.scales}: give the lowest and the highest, as 0,4')
  return low, high


def images(data: str, labels: str, image_shape: tuple[int, int, int]) -> 'ConfigDict':
  """A call of what opens the images that a user names: a config's, or files."""
  from adm_jax.config import call
  from adm_jax.data.open import open_source

  height, _, channels = image_shape
  return real_images.config_of('adm distill', data, []) or call(
      open_source, path=data, image_size=height, labels=labels, channels=channels)


def _data(arguments: argparse.Namespace, taught) -> 'ConfigDict':
  """A call of what opens the images to learn on."""
  from adm_jax import stored_configs
  from adm_jax.io import files, json_files

  if arguments.data is not None:
    return images(arguments.data, arguments.labels, taught.network.image_shape)
  stored = files.folder(arguments.teacher) / 'config.json'
  if stored.exists():
    config = stored_configs.from_json(json_files.read_text(stored))
    if config.get('data') is not None:
      return config.data
  if '://' in arguments.out:
    raise UsageError(f'{arguments.teacher} names no images, and those that it makes are read from '
                     'a folder of this machine: give --data, or an --out here')
  return images(str(_made(arguments, taught)), arguments.labels, taught.network.image_shape)


def _made(arguments: argparse.Namespace, taught) -> pathlib.Path:
  """Images that the teacher makes, of all classes: by itself, or guided where it knows none.

  Hosts, which share the folder, make a part each.
  """
  import jax

  from adm_jax.devices import hosts
  from adm_jax.io.parts import Part
  from adm_jax.sampling import pipeline
  from adm_jax.sampling.guidance import ByClassifier
  from adm_jax.sampling.jobs import SamplingJob

  folder = pathlib.Path(arguments.out) / 'images'
  if hosts.first():
    print(f'no images to learn on: {arguments.teacher} makes {arguments.images:,} in {folder}',
          file=sys.stderr, flush=True)
  guidance = () if taught.network.num_classes else (ByClassifier(arguments.classifier, 1.0),)
  adm = pipeline.load(arguments.teacher, guidance=guidance)
  SamplingJob(adm, num=arguments.images, class_order='turn').write(
      folder, part=Part(jax.process_index(), jax.process_count()))
  hosts.meet('images are made')
  return folder / 'samples.npz'
