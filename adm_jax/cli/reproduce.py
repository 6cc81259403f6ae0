"""Reproduce the paper's tables: sample, measure, and write paper against measured.

Without options, lists every row with what it needs. A row is a way to sample a published model and
a reference batch, or a batch of samples that was published; they are fetched, or taken from
--files and --weights. Everything goes on where it was stopped. OUT gets table.md and table.html,
with samples.

examples:
  adm reproduce                                        # the list
  adm reproduce --row 256-guided --table 5 --dry-run   # what it needs
  adm reproduce --row 256-guided --table 5 --out runs/paper
  adm reproduce --row 64 --table 5 --samples 1000 --weights 64x64_diffusion.pt --out runs/look
  adm reproduce --row published-256-guided-upsampled --out runs/golden
  adm reproduce --rows 5/256-guided,5/512-guided,14 --out gs://BUCKET/paper   # on every host
"""

import sys

from adm_jax.cli import evaluate, parts
from adm_jax.cli.parser import at_least_one
from adm_jax.cli.train import add_process_arguments
from adm_jax.errors import UsageError

RESUMES = True


def add_arguments(parser):
  parser.add_argument('--table', type=int, metavar='N', help='4, 5, 6, 8, 14, 15 or 16')
  parser.add_argument('--row', metavar='NAME', help='one row of the list')
  parser.add_argument('--rows', metavar='LIST',
                      help='several: tables, names and TABLE/NAME, as 5/256-guided,5/512,14')
  parser.add_argument('--out', metavar='DIR',
                      help='for samples, reports and the tables; or gs://BUCKET/...; all processes '
                           'share it')
  parser.add_argument('--dry-run', action='store_true', help='print what the rows need, and stop')
  parser.add_argument('--files', metavar='DIR',
                      help='where reference and sample batches lie, if not to be fetched')

  parser.add_argument('--price', type=float, metavar='P',
                      help='of an hour of one device: says what the rows will cost')
  samples = parser.add_argument_group('samples')
  samples.add_argument('--samples', type=int, default=50_000, metavar='N',
                       help='fewer for a quick look, which is labeled as such; default: 50,000')
  samples.add_argument('--seed', type=int, default=0, help='default: 0')
  samples.add_argument('--weights', metavar='FILE',
                       help="of the rows' model, if not to be fetched")
  samples.add_argument('--classifier-weights', metavar='FILE', help='of their classifier')
  samples.add_argument('--upsample-weights', metavar='FILE', help='of their upsampler')
  samples.add_argument('--sampling-batch-size', type=int, metavar='B',
                       help='images sampled at once, over all devices; default: as many as fit')
  samples.add_argument('--sampling-dtype', choices=('float32', 'bfloat16'),
                       help='default: bfloat16 on accelerators, float32 on CPUs')
  samples.add_argument('--fsdp', type=int, metavar='D',
                       help='devices that share one copy of the weights; default: as many as must')

  evaluate.add_extractor_arguments(parser.add_argument_group('measurement'))
  add_process_arguments(parser.add_argument_group(
      'several processes (TPU slices and Slurm are found by themselves)'))


def run(arguments, rest):
  from adm_jax.devices import hosts
  from adm_jax.evaluation import comparison, reproduce, tables

  if rest:
    raise UsageError(f'adm reproduce does not understand {" ".join(rest)}; see adm reproduce '
                     '--help')
  at_least_one(arguments, 'samples', 'sampling_batch_size', 'fsdp')
  options = reproduce.SampleOptions(
      arguments.samples, arguments.seed, arguments.weights, arguments.classifier_weights,
      arguments.upsample_weights, arguments.sampling_batch_size, arguments.fsdp,
      arguments.sampling_dtype)
  if arguments.rows is not None and (arguments.table is not None or arguments.row is not None):
    raise UsageError('--rows names rows of any table: leave out --table and --row')
  rows = (tables.select(arguments.table, arguments.row) if arguments.rows is None
          else tables.select_all(arguments.rows))
  reproduce.check(rows, options)
  listing = arguments.table is arguments.row is arguments.rows is None
  if listing or arguments.dry_run:
    for row in rows:
      print(reproduce.describe(row, options, work=not listing))
    return 0
  if arguments.out is None:
    raise UsageError('say where samples and tables go with --out DIR')
  if not any(map(reproduce.can_be_run, rows)):
    raise UsageError(f'{rows[0].name} cannot be run: {rows[0].note}')
  part = parts.part(arguments)
  reproduce.check_files(rows, arguments.files)
  extractor = evaluate.extractor(arguments)
  if part.first:
    for line in reproduce.plan(rows, options, arguments.out, part.count, arguments.price):
      print(f'plan: {line}', file=sys.stderr)
  results = []
  with hosts.stopped_by_sigterm():
    for result in reproduce.run(rows, arguments.out, extractor, options, files=arguments.files,
                                batch_size=arguments.batch_size, part=part):
      results.append(result)
      if result.samples is not None:
        print(f'samples: {result.samples}')
  if not part.first:
    return 0
  print(comparison.markdown(results))
  print(f'tables: {arguments.out}/table.md, {arguments.out}/table.html')
  return 0
