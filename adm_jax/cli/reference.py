"""Make the statistics file of a data set, for adm evaluate and for the published evaluator.

The file holds the moments of all images, and 10,000 of them, evenly spaced, for precision and
recall. Images of a config's data are taken as training sees them.

examples:
  adm reference --data images/ --out reference.npz
  adm reference --data digits_unet --out digits.npz --extractor runs/digits_classifier
  adm reference --data digits_unet --out held_out.npz --config.data.split=held_out
"""

import os
import pathlib

from adm_jax.cli import evaluate, parts, real_images
from adm_jax.cli.parser import local_path
from adm_jax.errors import UsageError
from adm_jax.io import progress


def add_arguments(parser):
  parser.add_argument('--data', required=True, metavar='CONFIG|DIR|FILE.npz',
                      help='a config, whose data is taken; a folder of pictures; or an .npz')
  parser.add_argument('--out', required=True, metavar='FILE.npz', help='the file to write')
  parser.add_argument('--images', type=int, default=10_000, metavar='N',
                      help='how many images the file keeps; default: 10,000')
  evaluate.add_extractor_arguments(parser)
  parts.add_shared_argument(parser)


def run(arguments, overrides):
  from adm_jax.devices import compilation_cache
  from adm_jax.evaluation import reference_statistics, report

  out = local_path('--out', arguments.out)
  if out.exists() or out.suffix != '.npz':
    raise UsageError(f'{out} {"exists" if out.exists() else "does not end in .npz"}: give the name '
                     'of a new .npz file')
  if arguments.images != 0 and arguments.images < report.LEAST:
    raise UsageError(f'--images {arguments.images}: give 0, or at least {report.LEAST}, which adm '
                     'evaluate asks for')
  part = parts.part(arguments)
  images = _images(arguments.data, overrides)
  out.parent.mkdir(parents=True, exist_ok=True)
  if not os.access(out.parent, os.W_OK):
    raise UsageError(f'{out.parent} cannot be written to: give another folder')
  extractor = evaluate.extractor(arguments)
  words = [evaluate.words(arguments, extractor), images.name, len(images), arguments.images]
  bar = progress.bar if part.first else progress.no_bar
  with parts.meeting(arguments, part, words) as meeting, bar(len(images), 'measuring') as advance:
    reference_statistics.measure(
        out, extractor, images, keep=arguments.images, batch_size=arguments.batch_size,
        advance=lambda count: advance(count * part.count), meeting=meeting)
  if not part.first:
    return 0
  print(f'{out}: {len(images):,} images of {images.name}, {extractor.name} {extractor.hash}\n'
        f'compiled programs are kept in {compilation_cache.use()}')
  return 0


def _images(data, overrides):
  from adm_jax.data.open import open_source

  found = real_images.of_config('adm reference', data, overrides)
  if found is not None:
    return found
  if not pathlib.Path(data).exists():
    raise UsageError(f'there is no file or folder {data}')
  return open_source(data, crop=None, labels=None, channels=None)
