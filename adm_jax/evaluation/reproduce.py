"""Rows of the paper's tables, run: samples, their measurement, and the table of paper against ours.

    rows = tables.select(5, '256-guided')
    for result in run(rows, 'runs/paper', features.inception(None, progress.bar)):
      print(result.rows())

OUT/tableN/ROW holds a row's samples and reports; OUT/table.md and OUT/table.html compare. The same
call goes on where it was stopped.
"""

import dataclasses
import json
import pathlib
import shlex
from typing import Callable, Iterator, Sequence

from adm_jax.errors import UsageError
from adm_jax.evaluation import comparison, report, row_cost, tables
from adm_jax.evaluation.comparison import Result
from adm_jax.evaluation.features import Extractor
from adm_jax.evaluation.tables import METRICS, Row, Sampled
from adm_jax.io import digests, downloads, json_files, npz, progress
from adm_jax.io.files import written_whole
from adm_jax.sampling import courses, pipeline, shards
from adm_jax.sampling.guidance import ByClassifier
from adm_jax.sampling.jobs import SamplingJob

_DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class SampleOptions:
  """What a row leaves open: how many samples, and where and how they are made.

  Attributes:
    num: how many.
    seed: of their noise and labels.
    weights: the file of the model that makes images; None: its published one, fetched.
    classifier_weights: the file of the classifier.
    upsample_weights: the file of the upsampler.
    batch_size: over all devices; None: as many as fit well.
    fsdp: how many devices share one copy of the weights; None: as many as must.
    dtype: the networks compute in it; None: bfloat16 on accelerators, float32 on CPUs.
  """
  num: int = 50_000
  seed: int = 0
  weights: str | None = None
  classifier_weights: str | None = None
  upsample_weights: str | None = None
  batch_size: int | None = None
  fsdp: int | None = None
  dtype: str | None = None

  def __post_init__(self):
    for name in ('num', 'batch_size', 'fsdp'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise UsageError(f'{name}={value}: give at least 1')
    if not 0 <= self.seed < 2**32:
      raise UsageError(f'seed={self.seed}: give 0 to {2**32 - 1}')
    if self.dtype not in (None, *_DTYPES):
      raise UsageError(f'dtype={self.dtype}: give {" or ".join(_DTYPES)}')


# Files of weights: the field of `Sampled` that names what each is of, and a word for that.
_WEIGHTS = {'weights': ('model', 'model'), 'classifier_weights': ('classifier', 'classifier'),
            'upsample_weights': ('upsample', 'upsampler')}


def check(rows: Sequence[Row], options: SampleOptions) -> None:
  """Raises UsageError unless each file of weights is of one network, the same in all rows."""
  for name, (of, noun) in _WEIGHTS.items():
    path = getattr(options, name)
    named = {getattr(row.sampled, of) for row in rows if row.sampled is not None}
    named = sorted(named - {None})
    if path is not None and not named:
      raise UsageError(f'{name}={path}: no {noun} is sampled here, leave it out')
    if path is not None and len(named) > 1:
      raise UsageError(f'{name}={path}: the rows are of {", ".join(named)}, and a file is of one '
                       f'{noun}: choose rows of one')


def job(sampled: Sampled, options: SampleOptions) -> SamplingJob:
  """Loads the networks of a row, and returns what makes its samples."""
  placed = dict(dtype=options.dtype, fsdp=options.fsdp)
  common = dict(num=options.num, seed=options.seed, batch_size=options.batch_size)
  guidance = () if sampled.classifier is None else (
      ByClassifier(sampled.classifier, sampled.scale, weights=options.classifier_weights),)
  made = SamplingJob(pipeline.load(
      sampled.model, guidance=guidance, solver=sampled.solver,
      steps=courses.Course(sampled.respacing), weights=options.weights, **placed), **common)
  if sampled.upsample is None:
    return made
  enlarge = pipeline.load(
      sampled.upsample, solver=sampled.upsample_solver or sampled.solver,
      steps=courses.Course(sampled.upsample_respacing or sampled.respacing),
      weights=options.upsample_weights, **placed)
  return SamplingJob(enlarge, base=made, **common)


def command(sampled: Sampled, options: SampleOptions) -> str:
  """Returns the `adm sample` line that asks for the same samples, but for its --out."""
  words = ['adm', 'sample']
  def add(name, value):
    if value is not None:
      words.extend((f'--{name.replace("_", "-")}', str(value)))
  for field in dataclasses.fields(Sampled):
    value = getattr(sampled, field.name)
    if value != field.default:
      add(field.name, value)
  for name, (of, _) in _WEIGHTS.items():
    if getattr(sampled, of) is not None:
      add(name, getattr(options, name))
  for name in ('batch_size', 'fsdp', 'dtype', 'num', 'seed'):
    add(name, getattr(options, name))
  return shlex.join(words)


def describe(row: Row, options: SampleOptions, work: bool) -> str:
  """Says in a few lines what a row is and needs; with `work`, also for how long.

  Raises:
    UsageError: a name or respacing of the row does not exist.
  """
  paper = ', '.join(f'{METRICS[key]} {value:g}' for key, value in row.expected.items())
  lines = [f'table {row.table}, {row.name}: {paper or "no number in the paper"}']
  if row.sampled is not None:
    cost = row_cost.cost(row.sampled)
    weights = ', '.join(f'{name} ({count / 1e6:.0f} M)' for name, count in cost.models.items())
    evaluations = ', '.join(f'{count * options.num:,} of {name}'
                            for name, count in cost.evaluations.items())
    lines += [f'  {command(row.sampled, options)}', f'  weights: {weights}',
              f'  evaluations: {evaluations}']
    if work:
      lines.append(f'  work: {row_cost.work(row_cost.flops(cost) * options.num)}')
  if row.batch is not None:
    lines.append(f'  samples: {row.batch}')
  if can_be_run(row):
    lines.append(f'  reference: {tables.REFERENCES[row.reference]}')
  if row.note:
    lines.append(f'  note: {row.note}')
  return '\n'.join(lines)


def can_be_run(row: Row) -> bool:
  """Whether there is something to measure; else its note says why not."""
  return row.sampled is not None or row.batch is not None


def run(rows: Sequence[Row], out: str | pathlib.Path, extractor: Extractor,
        options: SampleOptions = SampleOptions(), *, files: str | pathlib.Path | None = None,
        batch_size: int = 64, bar: Callable = progress.bar) -> Iterator[Result]:
  """Runs rows one after the other, yields the result of each, and writes the tables after each.

  Args:
    rows: the rows.
    out: the folder of samples, reports and tables.
    extractor: measures.
    options: what the rows leave open.
    files: where reference and published batches lie; None: they are fetched.
    batch_size: of the extractor.
    bar: shows progress, see `progress.bar`.

  Raises:
    UsageError: weights that are not of all rows, or a row that cannot be had; what was done before
      stays.
  """
  check(rows, options)
  out, results = pathlib.Path(out), []
  for row in rows:
    folder = out / f'table{row.table}' / row.name
    folder.mkdir(parents=True, exist_ok=True)
    results.append(_result(row, folder, extractor, options, files, batch_size, bar))
    for name, text in (('table.md', comparison.markdown(results)),
                       ('table.html', comparison.page(results))):
      with written_whole(out / name) as part:
        part.write_text(text)
    yield results[-1]


def _result(row, folder, extractor, options, files, batch_size, bar) -> Result:
  if not can_be_run(row):
    return Result(row)
  reference = _file(tables.REFERENCES[row.reference], files, bar)
  if row.sampled is not None:
    source, where = command(row.sampled, options), folder / 'samples'
    shards.check_folder(where)  # before networks are loaded
    job(row.sampled, options).write(where)
    samples = where / 'samples.npz'
  else:
    source, samples = row.batch, _file(row.batch, files, bar)
  return Result(row, source, _measured(folder, reference, samples, extractor, batch_size, bar),
                samples)


def _measured(folder, reference, samples, extractor, batch_size, bar):
  """Returns the report of a row's samples, measured once for each content of both files."""
  content = digests.short(' '.join((npz.checksum(reference), npz.checksum(samples),
                                    extractor.hash)))
  path = folder / f'report_{content}.json'
  if path.exists():
    return json_files.read(path)
  measured = report.evaluate(report.open_set(reference), report.open_set(samples), extractor,
                             bar=bar, distances='float16',  # as the published numbers
                             batch_size=batch_size).as_json()
  with written_whole(path) as part:
    part.write_text(json.dumps(measured, indent=1))
  return measured


def _file(address, folder, bar):
  """Returns the path of a published file, which lies in `folder` or is fetched."""
  name = address.rsplit('/', 1)[-1]
  if folder is not None:
    path = pathlib.Path(folder) / name
    if not path.exists():
      raise UsageError(f'{path} is not there: fetch {address} and put it there')
    return path
  return downloads.fetch(name, address, bar, sizes=range(10**6, 10**12), sha256=None,
                         otherwise='give the folder where it lies with --files')
