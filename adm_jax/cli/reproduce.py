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

import argparse
import json
import pathlib
import shlex

from adm_jax import progress
from adm_jax.cli import evaluate, sample
from adm_jax.errors import UsageError
from adm_jax.files import written_whole


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
                      help='more options of adm sample, like "--batch-size 64 --weights FILE"')
  evaluate.add_extractor_arguments(parser)


def run(arguments, rest):
  from adm_jax.evaluation import tables

  if rest:
    raise UsageError(f'adm reproduce does not understand {" ".join(rest)}; see adm reproduce '
                     '--help')
  if arguments.samples < 1:
    raise UsageError(f'--samples {arguments.samples}: give at least 1')
  recipes = tables.select(arguments.table, arguments.row)
  listing = arguments.table is None and arguments.row is None
  if listing or arguments.dry_run:
    for recipe in recipes:
      print(describe(recipe, arguments.samples))
    return 0
  if arguments.out is None:
    raise UsageError('say where samples and tables go with --out DIR')
  runnable = [recipe for recipe in recipes if recipe.command or recipe.batch]
  if not runnable:
    raise UsageError(f'{recipes[0].name} cannot be run: {recipes[0].note}')
  reproduce(runnable, pathlib.Path(arguments.out), arguments, evaluate.extractor(arguments))
  return 0


def parse(recipe, *words):
  """(options of `adm sample` that a recipe and more words give, what is none)."""
  parser = argparse.ArgumentParser()
  sample.add_arguments(parser)
  return parser.parse_known_args([*shlex.split(recipe.command), *words])


def describe(recipe, num):
  """A few lines: what the row is, and what it needs."""
  from adm_jax.evaluation import reproduce, tables

  paper = ', '.join(f'{tables.METRICS[key]} {value:g}' for key, value in recipe.expected.items())
  lines = [f'table {recipe.table}, {recipe.name}: {paper or "no number in the paper"}']
  if recipe.command:
    given, _ = parse(recipe, '--out', 'OUT')
    needs = reproduce.needs(given.model, given.respacing, given.classifier, given.upsample,
                            given.upsample_respacing)
    weights = ', '.join(f'{name} ({count / 1e6:.0f} M)' for name, count in needs.models.items())
    work = ', '.join(f'{count * num:,} of {name}' for name, count in needs.evaluations.items())
    lines += [f'  adm sample {recipe.command} --num {num}', f'  weights: {weights}',
              f'  evaluations: {work}']
  if recipe.batch:
    lines.append(f'  samples: {recipe.batch}')
  if recipe.command or recipe.batch:
    lines.append(f'  reference: {tables.REFERENCES[recipe.reference]}')
  if recipe.note:
    lines.append(f'  note: {recipe.note}')
  return '\n'.join(lines)


def reproduce(recipes, out, arguments, extractor):
  """Runs rows one after the other, and writes the tables after each."""
  from adm_jax.evaluation import reproduce, tables

  results = []
  for recipe in recipes:
    folder = out / f'table{recipe.table}' / recipe.name
    reference = _file(tables.REFERENCES[recipe.reference], arguments.files)
    samples = (_sampled(recipe, folder, arguments) if recipe.command
               else _file(recipe.batch, arguments.files))
    results.append(reproduce.Result(recipe, _measured(folder, reference, samples, arguments,
                                                      extractor), samples))
    for name, text in (('table.md', reproduce.markdown(results)),
                       ('table.html', reproduce.page(results))):
      with written_whole(out / name) as part:
        part.write_text(text)
  print(reproduce.markdown(results))
  print(f'tables: {out / "table.md"}, {out / "table.html"}')


def _sampled(recipe, folder, arguments):
  sample.run(*parse(recipe, *shlex.split(arguments.sample_options),
                    '--num', str(arguments.samples), '--seed', str(arguments.seed),
                    '--out', str(folder / 'samples')))
  return folder / 'samples' / 'samples.npz'


def _measured(folder, reference, samples, arguments, extractor):
  """The report of a row's samples, measured once."""
  from adm_jax.evaluation import report

  path = folder / f'report_{extractor.hash}.json'
  if path.exists():
    return json.loads(path.read_text())
  measured = report.evaluate(report.open_set(reference), report.open_set(samples), extractor,
                             bar=progress.bar, distances='float16',  # as the published numbers
                             batch_size=arguments.batch_size).as_json()
  folder.mkdir(parents=True, exist_ok=True)
  with written_whole(path) as part:
    part.write_text(json.dumps(measured, indent=1))
  return measured


def _file(address, folder):
  """A published file: in `folder`, or fetched."""
  from adm_jax import downloads

  name = address.rsplit('/', 1)[-1]
  if folder is not None:
    path = pathlib.Path(folder) / name
    if not path.exists():
      raise UsageError(f'{path} is not there: fetch {address} and put it there')
    return path
  return downloads.fetch(name, address, progress.bar, sizes=range(10**6, 10**12), sha256=None,
                         otherwise='give the folder where it lies with --files')
