"""Measure samples against real images: FID, sFID, Inception Score, precision, recall, KID.

REF and SAMPLES are .npz files in the published layouts (arr_0: uint8 images; mu, sigma, mu_s,
sigma_s: statistics), folders of pictures, or folders of adm sample. With fewer than 50,000
samples the distance is called FID-n and has an error bar. With another extractor than the published
Inception network it is not called FID at all; a classifier also says to which share of samples it
gives their labels.

examples:
  adm evaluate VIRTUAL_imagenet256_labeled.npz samples.npz
  adm evaluate REF.npz SAMPLES/ --features classify_image_graph_def.pb --json
  adm evaluate digits.npz runs/samples --extractor runs/digits_classifier
  adm evaluate fashion.npz runs/samples --extractor fashion-judge
  adm evaluate digits.npz runs/samples --extractor my_features.py:embed
"""

import json
import pathlib
import sys

from adm_jax.cli import parts
from adm_jax.errors import UsageError
from adm_jax.io import progress


def add_arguments(parser):
  parser.add_argument('reference', metavar='REF')
  parser.add_argument('samples', metavar='SAMPLES')
  add_extractor_arguments(parser)
  parser.add_argument('--distances', choices=['float32', 'float16'], default='float32',
                      help='for precision and recall; float16 rounds as the published evaluator')
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  parts.add_shared_argument(parser)


def run(arguments, rest):
  from adm_jax.devices import compilation_cache
  from adm_jax.evaluation import report

  if rest:
    raise UsageError(f'adm evaluate does not understand {" ".join(rest)}; see adm evaluate --help')
  part = parts.part(arguments)
  reference, samples = report.open_set(arguments.reference), report.open_labeled(arguments.samples)
  report.check(reference, samples)
  sees = extractor(arguments)
  agreed = [*words(arguments, sees, reference, samples), arguments.distances]
  with parts.meeting(arguments, part, agreed) as meeting:
    measured = report.evaluate(
        reference, samples, sees, bar=progress.bar if part.first else progress.no_bar,
        distances=arguments.distances, batch_size=arguments.batch_size, meeting=meeting)
  if measured is None:
    return 0
  print(json.dumps(measured.as_json(), indent=1) if arguments.json else measured.text())
  print(f'compiled programs are kept in {compilation_cache.use()}', file=sys.stderr)
  return 0


def words(arguments, extractor, *sides):
  """What processes that measure together have to agree on."""
  from adm_jax.evaluation import features, reference_statistics

  return [reference_statistics.signature(extractor), features.size_of_batches(arguments.batch_size),
          *([side.name, None if side.images is None else len(side.images)] for side in sides)]


def add_extractor_arguments(parser):
  """What both commands that look at images ask for."""
  parser.add_argument('--extractor', metavar='NAME|DIR|FILE.py:FUNCTION',
                      help='a trained classifier, or a function of uint8 images (B, H, W, C) to '
                           'vectors (B, D); default: Inception')
  parser.add_argument('--features', metavar='FILE',
                      help='the Inception weights: classify_image_graph_def.pb, or the state dict '
                           'of its PyTorch port; default: fetched once')
  parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32',
                      help='of the Inception network; bfloat16 is faster and not exact')
  parser.add_argument('--batch-size', type=int, default=64, metavar='N', help='default: 64')


def extractor(arguments):
  """The extractor that `add_extractor_arguments`'s words name."""
  from adm_jax.devices import compilation_cache
  from adm_jax.evaluation import features

  if arguments.batch_size < 1:
    raise UsageError(f'--batch-size {arguments.batch_size}: give at least 1')
  compilation_cache.use()
  if arguments.extractor is not None:
    if arguments.features is not None or arguments.dtype != 'float32':
      raise UsageError('--features and --dtype are of the Inception network: leave them out with '
                       '--extractor')
    return features.by_name(arguments.extractor)
  path = None if arguments.features is None else pathlib.Path(arguments.features)
  return features.inception(path, progress.bar, dtype=arguments.dtype)
