"""Reproduce the paper's tables: sample, measure, and write paper against measured.

Without options, lists every row with what it needs. A row is an `adm sample` command and a
reference batch, or a batch of samples that was published; both are fetched, or taken from --files.
Everything goes on where it was stopped. OUT gets table.md and table.html, with samples.

examples:
  adm reproduce                                        # the list
  adm reproduce --row 256-guided --table 5 --dry-run   # what it needs
  adm reproduce --row 256-guided --table 5 --out runs/paper
  adm reproduce --row 64 --table 5 --samples 1000 --out runs/look
  adm reproduce --row published-256-guided-upsampled --out runs/golden
"""

import hashlib
import json
import pathlib
import shlex

from adm_jax.cli import evaluate, sample
from adm_jax.cli.parser import Parser, at_least_one
from adm_jax.errors import UsageError
from adm_jax.io import progress
from adm_jax.io.files import written_whole

RESUMES = True
_SHARE = 0.4  # of a device's peak that hours are estimated with


def add_arguments(parser):
  parser.add_argument('--table', type=int, metavar='N', help='4, 5, 6, 8, 14, 15 or 16')
  parser.add_argument('--row', metavar='NAME', help='one row of the list')
  parser.add_argument('--out', metavar='DIR', help='for samples, reports and the tables')
  parser.add_argument('--samples', type=int, default=50_000, metavar='N',
                      help='fewer for a quick look, which is labelled as such; default: 50,000')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--dry-run', action='store_true', help='print what the rows need, and stop')
  parser.add_argument('--files', metavar='DIR',
                      help='where reference and sample batches lie, if not to be fetched')
  parser.add_argument('--sample-options', default='', metavar='"--NAME VALUE ..."',
                      help='for adm sample: --weights, --classifier-weights, --upsample-weights, '
                      '--batch-size, --fsdp, --dtype')
  evaluate.add_extractor_arguments(parser)


def run(arguments, rest):
  from adm_jax.evaluation import tables

  if rest:
    raise UsageError(f'adm reproduce does not understand {" ".join(rest)}; see adm reproduce '
                     '--help')
  at_least_one(arguments, 'samples')
  recipes = tables.select(arguments.table, arguments.row)
  listing = arguments.table is None and arguments.row is None
  for recipe in recipes:  # every command is read before the first is run
    if recipe.command:
      sample.check(parse(recipe, arguments))
  if listing or arguments.dry_run:
    for recipe in recipes:
      print(describe(recipe, arguments, work=not listing))
    return 0
  if arguments.out is None:
    raise UsageError('say where samples and tables go with --out DIR')
  if not any(recipe.command or recipe.batch for recipe in recipes):
    raise UsageError(f'{recipes[0].name} cannot be run: {recipes[0].note}')
  _run_rows(recipes, pathlib.Path(arguments.out), arguments, evaluate.extractor(arguments))
  return 0


def command(recipe, arguments):
  """The options of `adm sample`, but for --out, that make a row's samples."""
  words = [*shlex.split(recipe.command), *_more(arguments.sample_options), '--num',
           str(arguments.samples), '--seed', str(arguments.seed)]
  return shlex.join(words)


def _more(text):
  """Options that change no image of a row, or say where its weights lie."""
  try:
    words = shlex.split(text)
  except ValueError as error:
    raise UsageError(f'--sample-options {text!r}: {error}') from error
  parser = Parser(prog='adm reproduce --sample-options', add_help=False, allow_abbrev=False)
  for name in ('weights', 'classifier-weights', 'upsample-weights', 'batch-size', 'fsdp', 'dtype'):
    parser.add_argument(f'--{name}')
  parser.parse_args(words)
  return words


def parse(recipe, arguments, folder='OUT'):
  """A row's `adm sample` command line, read."""
  parser = Parser(prog='adm sample')
  sample.add_arguments(parser)
  return parser.parse_args([*shlex.split(command(recipe, arguments)), '--out', str(folder)])


def describe(recipe, arguments, work):
  """A few lines: what the row is, and what it needs; with `work`, also for how long."""
  from adm_jax.evaluation import reproduce, tables

  paper = ', '.join(f'{tables.METRICS[key]} {value:g}' for key, value in recipe.expected.items())
  lines = [f'table {recipe.table}, {recipe.name}: {paper or "no number in the paper"}']
  if recipe.command:
    given = parse(recipe, arguments)
    needs = reproduce.needs(given.model, given.respacing, given.classifier, given.upsample,
                            given.upsample_respacing)
    weights = ', '.join(f'{name} ({count / 1e6:.0f} M)' for name, count in needs.models.items())
    evaluations = ', '.join(f'{count * arguments.samples:,} of {name}'
                            for name, count in needs.evaluations.items())
    lines += [f'  adm sample {command(recipe, arguments)}', f'  weights: {weights}',
              f'  evaluations: {evaluations}']
    if work:
      lines.append(f'  work: {_work(reproduce.flops(needs) * arguments.samples)}')
  if recipe.batch:
    lines.append(f'  samples: {recipe.batch}')
  if recipe.command or recipe.batch:
    lines.append(f'  reference: {tables.REFERENCES[recipe.reference]}')
  if recipe.note:
    lines.append(f'  note: {recipe.note}')
  return '\n'.join(lines)


def _work(total):
  """Hours on the devices at hand, if their speed is known, and on an H100."""
  import jax

  from adm_jax.devices import chips

  lines = [f'{total / 1e18:.3g} EFLOP']
  have = chips.peak(jax.devices()[0].device_kind)
  for name, speed in (('one H100', chips.peak('NVIDIA H100 80GB HBM3')),
                      ('the devices here', have and have * jax.device_count())):
    if speed is not None:
      lines.append(f'{total / (_SHARE * speed) / 3600:.3g} hours on {name} at {_SHARE:.0%} of peak')
  return ', '.join(lines)


def _run_rows(recipes, out, arguments, extractor):
  """Runs rows one after the other, and writes the tables after each."""
  from adm_jax.evaluation import reproduce

  results = []
  for recipe in recipes:
    results.append(_result(recipe, out / f'table{recipe.table}' / recipe.name, arguments,
                           extractor))
    for name, text in (('table.md', reproduce.markdown(results)),
                       ('table.html', reproduce.page(results))):
      with written_whole(out / name) as part:
        part.write_text(text)
  print(reproduce.markdown(results))
  print(f'tables: {out / "table.md"}, {out / "table.html"}')


def _result(recipe, folder, arguments, extractor):
  from adm_jax.evaluation import reproduce, tables

  folder.mkdir(parents=True, exist_ok=True)
  if not recipe.command and not recipe.batch:
    return reproduce.Result(recipe)
  reference = _file(tables.REFERENCES[recipe.reference], arguments.files)
  if recipe.command:
    source, samples = f'adm sample {command(recipe, arguments)}', folder / 'samples'
    sample.run(parse(recipe, arguments, samples), [])
    samples = samples / 'samples.npz'
  else:
    source, samples = recipe.batch, _file(recipe.batch, arguments.files)
  report = _measured(folder, reference, samples, arguments.batch_size, extractor)
  return reproduce.Result(recipe, source, report, samples)


def _measured(folder, reference, samples, batch_size, extractor):
  """The report of a row's samples, measured once for each content of both files."""
  from adm_jax.evaluation import report
  from adm_jax.io import npz

  content = hashlib.sha256(' '.join((npz.checksum(reference), npz.checksum(samples),
                                     extractor.hash)).encode()).hexdigest()[:16]
  path = folder / f'report_{content}.json'
  if path.exists():
    return json.loads(path.read_text())
  measured = report.evaluate(report.open_set(reference), report.open_set(samples), extractor,
                             bar=progress.bar, distances='float16',  # as the published numbers
                             batch_size=batch_size).as_json()
  with written_whole(path) as part:
    part.write_text(json.dumps(measured, indent=1))
  return measured


def _file(address, folder):
  """A published file: in `folder`, or fetched."""
  from adm_jax.io import downloads

  name = address.rsplit('/', 1)[-1]
  if folder is not None:
    path = pathlib.Path(folder) / name
    if not path.exists():
      raise UsageError(f'{path} is not there: fetch {address} and put it there')
    return path
  return downloads.fetch(name, address, progress.bar, sizes=range(10**6, 10**12), sha256=None,
                         otherwise='give the folder where it lies with --files')
