"""How good images of few steps are, by solvers of a guided teacher and by its students.

  pip install matplotlib
  python benchmarks/few_steps.py digits --teacher runs/demo/unet --classifier runs/demo/classifier
    --scale 2 --scales 0,1,2,4 --judge digits --consistency runs/students/consistency_*
    --progressive runs/students/progressive_* --out runs/few_steps/digits
  python benchmarks/few_steps.py fashion --teacher fashion --scale 2 --scales 1,1.5,2,3
    --judge fashion-judge --reference fashion --config.data.split=test
    --guided runs/fashion/guided --consistency runs/fashion/student --out runs/few_steps/fashion

NAME is the section of docs/few_steps.md that is written, with docs/few_steps_NAME.json, its plot
and its picture. All methods start from the same noise and labels. Distances are Frechet distances
in the features of a judge that has only seen real images, and are not FID; agreement is the share
of images to which it gives the class that was asked. The judge `digits` is the perceptron of
docs/few_evaluations.md; others are trained classifiers, with --reference as in `adm sweep`.

What OUT holds already is not measured again, unless it is of other models, images or options.
--parts speed alone measures the times, for which nothing else should run.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import re
import statistics
import time
from typing import Any, Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.cli import real_images
from adm_jax.cli.parser import numbers
from adm_jax.data.digits import digits
from adm_jax.data.sources import ArraySource
from adm_jax.devices import compilation_cache
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, frechet
from adm_jax.evaluation.independent_classifier import IndependentClassifier
from adm_jax.evaluation.precision_recall import precision_recall
from adm_jax.evaluation.sweep import outline, spread
from adm_jax.io import json_files, markdown, pictures
from adm_jax.io.files import written_whole
from adm_jax.io.pixels import to_float
from adm_jax.process import continuous
from adm_jax.process.diffusion import predict
from adm_jax.sampling import pipeline
from adm_jax.sampling.guidance import ByClassifier, ClassifierFree, Distilled
from adm_jax.sampling.sampler import image_keys, normal_each
from adm_jax.training import teachers
from adm_jax.weights import pretrained

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
STEPS = (1, 2, 4, 8)
REFERENCE = 'teacher, ancestral'
CONSISTENCY, PROGRESSIVE = 'student, consistency', 'student, progressive'
SOLVERS = {
    'teacher, DDIM': dict(solver='ddim', spacing='trailing'),
    'teacher, DPM-Solver++(2M)': dict(solver='dpm++2m', spacing='karras'),
    'teacher, UniPC': dict(solver='unipc2', spacing='log-snr'),
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A method at a number of steps, which is that of its evaluations of the U-Net.

  Attributes:
    method: its name in tables.
    steps: how many.
    make: scale -> a pipeline.
  """
  method: str
  steps: int
  make: Callable[[float], pipeline.Pipeline]

  @property
  def key(self) -> str:
    return f'{self.method} {self.steps}'


@dataclasses.dataclass(frozen=True)
class Judge:
  """What looks at images.

  Attributes:
    name: in the page.
    look: uint8[N H W C] -> (features f[N D], classes i[N]).
    real: the images that it compares with.
    hash: of its weights.
  """
  name: str
  look: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
  real: ArraySource
  hash: str = ''

  @functools.cached_property
  def features(self) -> np.ndarray:
    """Of the real images, f[N D]."""
    return self.look(self.real.images)[0]


def judge(name: str, reference: str | None, overrides: list[str]) -> Judge:
  """The perceptron of the demo, or a trained classifier."""
  if name == 'digits':
    train = digits('train')
    perceptron = IndependentClassifier(train.images, train.labels)
    return Judge('a perceptron that has only seen real digits', lambda images: (
        perceptron.features(images), perceptron.classes(images)), digits('held_out'))
  trained = pretrained.load(name)
  extractor = features.of_classifier(trained, name)

  def look(images):
    seen = features.extract(extractor, ArraySource('images', images), batch_size=250)
    return seen.pool, seen.logits.argmax(-1)
  real = real_images.source('few_steps.py', reference, overrides, trained.network.image_shape,
                            'folders')
  return Judge(name, look, spread(real, len(real)), extractor.hash)


def cells(arguments: argparse.Namespace) -> list[Cell]:
  """All that is compared; networks are loaded once, and only when they are asked for."""
  guide = (ClassifierFree if arguments.classifier is None else
           functools.partial(ByClassifier, arguments.classifier, clip=True))

  @functools.cache
  def teacher():
    return pipeline.load(arguments.teacher, guidance=(guide(arguments.scale),))

  def of_teacher(**how):
    return lambda scale: teacher().with_guidance((guide(scale),)).with_steps(**how)

  def of_student(folder):
    adm = functools.cache(lambda: pipeline.load(folder, guidance=(Distilled(arguments.scale),)))
    return lambda scale: adm().guided(scale=scale)

  found = [Cell(REFERENCE, arguments.teacher_steps,
                of_teacher(steps=str(arguments.teacher_steps), solver='ancestral'))]
  for method, folders in ((CONSISTENCY, arguments.consistency),
                          (PROGRESSIVE, arguments.progressive)):
    students = {_steps(folder): folder for folder in folders}
    found += [Cell(method, steps, of_student(students[steps])) for steps in sorted(students)]
  return found + [Cell(name, steps, of_teacher(steps=steps, **how))
                  for name, how in SOLVERS.items() for steps in STEPS]


def _steps(folder: str) -> int:
  return max(pretrained.outline(folder).network.steps)


def quality(cell: Cell, arguments: argparse.Namespace, eyes: Judge) -> dict[str, Any]:
  """The means over the seeds of what the judge says."""
  real, rows = eyes.features, []
  adm = cell.make(arguments.scale)
  for seed in range(arguments.seeds):
    labels = np.arange(arguments.num) % adm.num_classes
    seen, classes = eyes.look(adm(labels, seed=seed, chunks=1))
    close = precision_recall(real, seen)
    rows.append({'distance': frechet.frechet_distance(frechet.moments(seen), frechet.moments(real)),
                 'agreement': float((classes == labels).mean()), 'precision': close.precision,
                 'recall': close.recall})
  return {name: statistics.mean(row[name] for row in rows) for name in rows[0]} | {
      'distances': [row['distance'] for row in rows]}


def speed(cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
  """Images per second in a batch, and milliseconds of one image alone; compiling is left out."""
  adm = cell.make(arguments.scale)

  def seconds(count):
    labels = np.arange(count) % adm.num_classes
    adm(labels, seed=0, chunks=1)
    times = []
    while not times or (sum(times) < 2 and len(times) < 20):
      begin = time.perf_counter()
      adm(labels, seed=0, chunks=1)
      times.append(time.perf_counter() - begin)
    return statistics.median(times)
  return {'images_per_second': arguments.batch / seconds(arguments.batch),
          'milliseconds': 1000 * seconds(1)}


# Quarters of the process and its noisy end, as shares of its steps.
RANGES = {'all': (0, 1), 'up to 0.9': (0, 0.9), '0 to 0.25': (0, 0.25), '0.25 to 0.5': (0.25, 0.5),
          '0.5 to 0.75': (0.5, 0.75), '0.75 to 0.9': (0.75, 0.9), '0.9 to 1': (0.9, 1)}


def fidelity(guided: str, arguments: argparse.Namespace, real: ArraySource,
             scales: list[float]) -> list[dict[str, float]]:
  """How far stage 1 is from its teacher: a row per scale.

  Real images that none of them was trained on are noised to steps that are even over the process,
  four each. In each range of the steps it is the root of the mean squared difference of the
  predicted x_0, both clipped to [-1, 1], over the root mean square of the teacher's.
  """
  taught = teachers.described(arguments.teacher, arguments.classifier)
  student = pretrained.load(guided)
  network, weights = student.network, jax.device_put(taught.weights())
  schedule = network.diffusion.schedule

  @jax.jit
  def squares(x0, t, y, keys, scale):
    scale, at = jnp.full(t.shape, scale), continuous.at_step(schedule, t)
    z = at.alpha * to_float(x0) + at.sigma * normal_each(keys, x0.shape[1:])
    wanted = taught.ask(weights, y, scale)(z, t).x0
    output = network.apply(student.params, z, schedule.network_time(t), y, scale=scale)
    found = predict(network.diffusion, output, z, t).x0
    return [jnp.square(x).mean(axis=(1, 2, 3)) for x in (found - wanted, wanted)]

  chosen = spread(real, 250)
  num = len(chosen)
  rows = []
  for scale in scales:
    t = np.random.default_rng(0).permutation(np.arange(4 * num) * schedule.num_steps // (4 * num))
    parts = [squares(chosen.images, part, chosen.labels,
                     image_keys(jax.random.key(i), np.arange(num)), jnp.float32(scale))
             for i, part in enumerate(t.reshape(4, num))]
    wrong, power = (np.concatenate(values) for values in zip(*parts))
    inside = {name: (low <= t / schedule.num_steps) & (t / schedule.num_steps < high)
              for name, (low, high) in RANGES.items()}
    rows.append({'scale': scale, **{
        name: float(np.sqrt(wrong[where].sum() / power[where].sum()))
        for name, where in inside.items()}})
  return rows


def kept(path: pathlib.Path, content: dict[str, Any],
         make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """What `make` returns, once for each content, which are JSON values."""
  content = json.loads(json.dumps(content))  # tuples come back as lists
  if path.exists():
    stored = json_files.read(path)
    if stored['content'] == content:
      return stored
  made = {'content': content, **make()}
  path.parent.mkdir(parents=True, exist_ok=True)
  with written_whole(path) as part:
    part.write_text(json.dumps(made))
  return made


Measured = tuple[dict[str, Any], list[dict[str, Any]]]  # a row, and what its parts were made of


def measured(arguments: argparse.Namespace, everything: list[Cell],
             eyes: Judge) -> Iterator[Measured]:
  """A row per cell: of both parts, what is asked for or was measured before."""
  asked = {'quality': {'num': arguments.num, 'seeds': arguments.seeds, 'scale': arguments.scale,
                       'judge': [arguments.judge, eyes.hash], 'reference': outline(eyes.real)},
           'speed': {'batch': arguments.batch, 'scale': arguments.scale}}
  makers = {'quality': lambda cell: quality(cell, arguments, eyes),
            'speed': lambda cell: speed(cell, arguments)}
  for cell in everything:
    row, contents = {'method': cell.method, 'steps': cell.steps}, []
    for part, make in makers.items():
      path, found = arguments.out / part / f'{re.sub("[^a-z0-9]+", "_", cell.key.lower())}.json', {}
      if part in arguments.parts:
        content = {**asked[part], 'images': cell.make(arguments.scale).description}
        found = kept(path, content, functools.partial(make, cell))
      elif path.exists():
        found = json_files.read(path)
      if found:
        contents.append(found.pop('content'))
      row |= found
    yield row, contents


def settings(contents: list[dict[str, Any]]) -> dict[str, Any]:
  """The scale, num, seeds and batch that all measurements were made with.

  Raises:
    UsageError: some were made with others than the rest.
  """
  found = {}
  for about in ('scale', 'num', 'seeds', 'batch'):
    values = sorted({content[about] for content in contents if about in content})
    if len(values) > 1:
      raise UsageError(f'measurements are of {about} {", ".join(map(str, values))}: make all again '
                       'with one of them, --parts quality,speed,pages')
    if values:
      found[about], = values
  return found


def table(rows: list[dict[str, Any]]) -> str:
  """Markdown: a line per method and number of steps."""
  slow = _slow(rows)

  def cell(row, name, form):
    return form.format(row[name]) if name in row else ''

  def times(row):
    name = 'images_per_second'
    return f'{row[name] / slow[name]:.1f}' if name in row and name in slow else ''
  head = ('method', 'steps', 'distance', 'agreement', 'precision', 'recall', 'images/s',
          'times the first', 'ms, one image')
  return markdown.table(head, [
      (row['method'], str(row['steps']), cell(row, 'distance', '{:.2f}'),
       cell(row, 'agreement', '{:.1%}'), cell(row, 'precision', '{:.2f}'),
       cell(row, 'recall', '{:.2f}'), cell(row, 'images_per_second', '{:,.1f}'), times(row),
       cell(row, 'milliseconds', '{:,.1f}')) for row in rows])


def table_of_fidelity(rows: list[dict[str, float]]) -> str:
  """Markdown: a line per scale, a column per range of the steps."""
  return markdown.table(('scale', *RANGES), [
      (f'{row["scale"]:g}', *(f'{row[name]:.3f}' for name in RANGES)) for row in rows])


def _slow(rows: list[dict[str, Any]]) -> dict[str, Any]:
  return next(row for row in rows if row['method'] == REFERENCE)


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """Distance, agreement, precision and recall against steps."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(1, 4, figsize=(16, 4), layout='constrained')
  slow = _slow(rows)
  names = [name for name in dict.fromkeys(row['method'] for row in rows) if name != REFERENCE]
  for axis, what in zip(axes, ('distance', 'agreement', 'precision', 'recall'), strict=True):
    for name in names:
      of = [row for row in rows if row['method'] == name]
      axis.plot([row['steps'] for row in of], [row[what] for row in of], label=name, marker='o',
                markersize=4)
    axis.axhline(slow[what], color='gray', linestyle='--', label=f'{REFERENCE}, {slow["steps"]}')
    axis.set(xscale='log', xlabel='steps', xticks=STEPS, xticklabels=STEPS,
             title=f'Frechet {what}, judge (not FID)' if what == 'distance' else what)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
  axes[0].set(yscale='log')
  axes[0].legend(fontsize=8)
  figure.savefig(path, dpi=90)


def picture(everything: list[Cell], scales: list[float], path: pathlib.Path, classes: int) -> None:
  """Scales down, steps across: images from the same noise, of the first classes."""
  shown = [cell for cell in everything if cell.method == CONSISTENCY]
  slow = next(cell for cell in everything if cell.method == REFERENCE)
  first = slow.make(scales[0])
  shown.append(Cell('teacher, DDIM', slow.steps, lambda scale: slow.make(scale).with_steps(
      str(slow.steps), solver='ddim')))
  classes = min(classes, first.num_classes)
  enlarged = max(1, 32 // first.sampler.shape[0])

  def panel(cell):
    images = [cell.make(scale)(np.arange(classes), seed=0, chunks=1) for scale in scales]
    return pictures.grid(np.concatenate(images), classes, scale=enlarged, gap=2)
  pictures.write(path, pictures.side_by_side(
      {f'{cell.method}, {cell.steps}': panel(cell) for cell in shown},
      row_names=tuple(f'scale {scale:g}' for scale in scales)))


def write_section(page: pathlib.Path, name: str, text: str) -> None:
  """Puts a text between the marks of a section of a page, which stay; a new one is at its end."""
  before, after = f'<!-- {name}: -->', f'<!-- :{name} -->'
  whole = page.read_text()
  if before not in whole:
    whole += f'\n## {name.capitalize()}\n\n{before}\n{after}\n'
  start, end = whole.index(before) + len(before), whole.index(after)
  with written_whole(page) as part:
    part.write_text(f'{whole[:start]}\n{text}\n{whole[end:]}')


def write_pages(arguments: argparse.Namespace, everything: list[Cell], found: list[Measured],
                eyes: Judge) -> None:
  """Writes what docs/ has of one section."""
  rows = [row for row, _ in found]
  made_with = settings([content for _, contents in found for content in contents])
  name, scales = arguments.name, numbers('--scales', arguments.scales, tuple(range(1, 9)))
  near = ([] if arguments.guided is None else
          fidelity(arguments.guided, arguments, eyes.real, scales))
  with written_whole(DOCS / f'few_steps_{name}.json') as part:
    part.write_text(json.dumps({'judge': eyes.name, 'fidelity': near, 'rows': rows, **made_with},
                               indent=1) + '\n')
  plot(rows, DOCS / f'few_steps_{name}.png')
  picture(everything, scales, DOCS / f'few_steps_{name}_grid.png', arguments.classes)
  write_section(DOCS / 'few_steps.md', name, table(rows))
  if near:
    write_section(DOCS / 'few_steps.md', f'{name} fidelity', table_of_fidelity(near))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('name', help='of the section of docs/few_steps.md')
  parser.add_argument('--teacher', required=True)
  parser.add_argument('--classifier', help='what guides it; default: itself, classifier-free')
  parser.add_argument('--scale', type=float, required=True, help='of the guidance that is measured')
  parser.add_argument('--scales', default='0,1,2,4', help='in the picture')
  parser.add_argument('--classes', type=int, default=5, help='in the picture, of each scale')
  parser.add_argument('--teacher-steps', type=int, default=250, help='that are compared with')
  parser.add_argument('--consistency', nargs='*', default=[], help='students, each of its steps')
  parser.add_argument('--progressive', nargs='*', default=[], help='likewise')
  parser.add_argument('--guided', help='the student of stage 1, to compare with its teacher')
  parser.add_argument('--judge', required=True)
  parser.add_argument('--reference', help='real images, as of adm sweep')
  parser.add_argument('--num', type=int, default=500, help='images per seed')
  parser.add_argument('--seeds', type=int, default=3, help='numbers are means over so many')
  parser.add_argument('--batch', type=int, default=100, help='of the images per second')
  parser.add_argument('--parts', default='quality,speed,pages')
  parser.add_argument('--out', type=pathlib.Path, required=True)
  arguments, overrides = parser.parse_known_args()
  arguments.parts = arguments.parts.split(',')
  compilation_cache.use()
  everything, eyes = cells(arguments), judge(arguments.judge, arguments.reference, overrides)
  found = []
  for row, contents in measured(arguments, everything, eyes):
    found.append((row, contents))
    print({name: round(value, 3) if isinstance(value, float) else value
           for name, value in row.items()}, flush=True)
  if 'pages' in arguments.parts:
    write_pages(arguments, everything, found, eyes)


if __name__ == '__main__':
  main()
