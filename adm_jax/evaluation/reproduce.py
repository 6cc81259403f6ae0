"""Rows of the paper's tables, run: samples, their measurement, and the table of paper against ours.

    rows = tables.select(5, '256-guided')
    for result in run(rows, 'runs/paper', features.inception(None, progress.bar)):
      print(result.rows())

OUT/tableN/ROW holds a row's samples and reports; OUT/table.md and OUT/table.html compare. The same
call goes on where it was stopped.
"""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import time
from typing import Any, Callable, Iterator, Sequence

import jax

from adm_jax.errors import UsageError
from adm_jax.evaluation import comparison, features, reference_statistics, report, row_cost, tables
from adm_jax.evaluation.comparison import Result
from adm_jax.evaluation.features import Extractor
from adm_jax.evaluation.tables import METRICS, Row, Sampled
from adm_jax.io import digests, downloads, json_files, meetings, npz, progress
from adm_jax.io import files as files_lib
from adm_jax.io.files import written_whole
from adm_jax.io.parts import Part
from adm_jax.sampling import courses, pipeline, shards
from adm_jax.sampling.guidance import ByClassifier
from adm_jax.sampling.jobs import SamplingJob

_DTYPES = ('float32', 'bfloat16')
_TIME = 'time.json'  # in a row's folder


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


def check_files(rows: Sequence[Row], files: str | pathlib.Path | None) -> None:
  """Raises UsageError unless what the rows need lies in `files`, if it is not to be fetched."""
  for row in rows if files is not None else ():
    if can_be_run(row):
      for address in (tables.REFERENCES[row.reference], row.batch):
        if address is not None:
          _given(address, files)


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
        batch_size: int = 64, bar: Callable = progress.bar,
        part: Part = Part()) -> Iterator[Result]:
  """Runs rows one after the other, yields the result of each, and writes the tables after each.

  Of several processes each makes and measures a share of every row; the first yields and writes.

  Args:
    rows: the rows.
    out: the folder of samples, reports and tables, which all processes share.
    extractor: measures.
    options: what the rows leave open.
    files: where reference and published batches lie; None: they are fetched.
    batch_size: of the extractor.
    bar: shows progress, see `progress.bar`.
    part: which of several processes this is.

  Raises:
    PeerLost: another process has gone while samples were measured.
    UsageError: weights that are not of all rows, or a row that cannot be had; what was done before
      stays.
  """
  check(rows, options)
  out, results = files_lib.folder(out) if '://' in str(out) else pathlib.Path(out), []
  bar = bar if part.first else progress.no_bar
  for row in rows:
    folder = out / f'table{row.table}' / row.name
    folder.mkdir(parents=True, exist_ok=True)
    results.append(_result(row, folder, extractor, options, files, batch_size, bar, part))
    if not part.first:
      continue
    for name, text in (('table.md', comparison.markdown(results)),
                       ('table.html', comparison.page(results))):
      with written_whole(out / name) as temporary:
        temporary.write_text(text)
    yield results[-1]


def _result(row, folder, extractor, options, files, batch_size, bar, part) -> Result:
  if not can_be_run(row):
    return Result(row)
  reference = _file(tables.REFERENCES[row.reference], files, bar)
  if row.sampled is not None:
    source, where = command(row.sampled, options), folder / 'samples'
    shards.check_folder(where)  # before networks are loaded
    samples = where / 'samples.npz'
    with _timing(folder, 'sampling', part, not samples.exists()):
      job(row.sampled, options).write(where, part=part)
  else:
    source, samples = row.batch, _file(row.batch, files, bar)
  here = files_lib.local(samples)
  content = digests.short(' '.join((npz.checksum(reference), npz.checksum(here),
                                    reference_statistics.signature(extractor))))
  path, measuring = folder / f'report_{content}.json', f'measuring {content}'
  with _timing(folder, measuring, part, not path.exists()):
    measured = _measured(path, reference, here, str(samples), extractor, batch_size, bar, part)
  took, keys = _took(folder), {'sampling': 'sampling', 'measuring': measuring, 'devices': 'devices'}
  return Result(row, source, measured, samples,
                {name: took[key] for name, key in keys.items() if key in took})


def _measured(path, reference, samples, name, extractor, batch_size, bar, part):
  """Returns the report of a row's samples, measured once for each content of both files.

  None in processes beside the first.
  """
  if path.exists():
    return json_files.read(path)
  words = [path.name, features.size_of_batches(batch_size)]
  with meetings.meeting(path.parent, part, words) as meeting:
    measured = report.evaluate(
        report.open_set(reference), dataclasses.replace(report.open_set(samples), name=name),
        extractor, bar=bar, distances='float16',  # as the published numbers
        batch_size=batch_size, meeting=meeting)
  if measured is None:
    return None
  with written_whole(path) as temporary:
    temporary.write_text(json.dumps(measured.as_json(), indent=1))
  return measured.as_json()


def _took(folder: pathlib.Path) -> dict[str, Any]:
  """What is known of how long a row took, and on what: seconds of all starts of the command.

  Those of each report stand by themselves, under 'measuring' and its content.
  """
  path = folder / _TIME
  found = json_files.read(path) if path.exists() else {}
  return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _timing(folder: pathlib.Path, what: str, part: Part, goes_on: bool) -> Iterator[None]:
  """Adds the seconds of the block to what it has taken before, unless it was finished.

  A block that is stopped, or fails, has taken its time as well.
  """
  began = time.monotonic()
  try:
    yield
  finally:
    if goes_on and part.first:
      took, devices = _took(folder), jax.local_devices()
      took[what] = took.get(what, 0.0) + time.monotonic() - began
      took['devices'] = (f'{part.count} process{"" if part.whole else "es"} with {len(devices)} x '
                         f'{devices[0].device_kind}')
      with written_whole(folder / _TIME) as temporary:
        temporary.write_text(json.dumps(took))


def plan(rows: Sequence[Row], options: SampleOptions, out: str | pathlib.Path, processes: int,
         price: float | None = None) -> list[str]:
  """A line for each row that is to be sampled yet, and one for all: how long, and for how much.

  Args:
    rows: the rows.
    options: what they leave open.
    out: the folder of `run`.
    processes: which share the work, with as many devices each as this one.
    price: of an hour of one device, in any currency.
  """
  lines, total, unknown = [], 0.0, False
  out = files_lib.folder(out)
  for row in rows:
    folder = out / f'table{row.table}' / row.name / 'samples'
    if row.sampled is None or (folder / 'samples.npz').exists():
      continue
    try:
      flops = row_cost.flops(row_cost.cost(row.sampled)) * options.num
    except UsageError:  # a model that nobody has published
      lines.append(f'table {row.table}, {row.name}: {options.num:,} samples, work unknown')
      unknown = True
      continue
    total += flops
    lines.append(f'table {row.table}, {row.name}: {options.num:,} samples, '
                 f'{row_cost.work(flops, processes)}')
  if total and not unknown and len(lines) > 1:
    lines.append(f'all: {row_cost.work(total, processes)}')
  cost = row_cost.cost_of(total, price) if total and price is not None else None
  return lines + ([] if cost is None else [cost])


def _file(address, folder, bar):
  """Returns the path of a published file, which lies in `folder` or is fetched."""
  if folder is not None:
    return _given(address, folder)
  name = address.rsplit('/', 1)[-1]
  return downloads.fetch(name, address, bar, sizes=range(10**6, 10**12), sha256=None,
                         otherwise='give the folder where it lies with --files')


def _given(address, folder):
  path = pathlib.Path(folder) / address.rsplit('/', 1)[-1]
  if not path.exists():
    raise UsageError(f'{path} is not there: fetch {address} and put it there')
  return path
