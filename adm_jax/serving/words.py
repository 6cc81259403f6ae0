"""What a visitor asks for, in `adm sample`'s words: read from JSON, and written as its command.

Steps, eta and numbers of images come in buckets, so that a slider meets programs that are compiled.
"""

import base64
import dataclasses
import math
import shlex
from typing import Any, Mapping, Sequence

from adm_jax.errors import UsageError, one_line
from adm_jax.sampling import solvers, spacings, students
from adm_jax.serving.models import CLASSIFIER, FREE, NONE, STUDENT, Model

STEPS = (5, 10, 20, 30, 50, 100, 250)  # of models that were not distilled
ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_IMAGES = 16
MOST_RUNS = 16
_MOST_SCALE = 100.0


@dataclasses.dataclass(frozen=True)
class Words:
  """One run: `num` images of one pipeline, as one `adm sample` makes them.

  Attributes:
    model: which.
    guide: how it is guided: one of `models.NONE`, `CLASSIFIER`, `FREE`, `STUDENT`.
    scale: of that.
    classes: the labels, in turn; empty for a model without classes. Unguided, a model that only
      its classifier gives classes takes no notice.
    num: how many images.
    seed: of their noise.
    solver: its name.
    steps: how many, one of STEPS, or of those that a student was taught.
    spacing: how they lie in the process; None: a respacing of it.
    eta: of DDIM's noise.
    until: the seed at the other end of a way from `seed`; None: no way.
    pixels: the bytes of uint8[H W C], an image to encode and start from; None: noise.
    origin: the label that it is encoded with.
  """
  model: Model
  guide: str
  scale: float
  classes: tuple[int, ...]
  num: int
  seed: int
  solver: str
  steps: int
  spacing: str | None
  eta: float = 0.0
  until: int | None = None
  pixels: bytes | None = None
  origin: int | None = None

  @property
  def name(self) -> str:
    """What `adm sample --model` takes."""
    return self.model.student if self.guide == STUDENT else self.model.name

  def command(self) -> str:
    """Returns the `adm sample` line that makes these images; an uploaded image goes by
    picture, a folder that holds it.

    What is encoded with one class or guidance and decoded with another has no such line: ''.
    """
    if self.pixels is not None and not self.is_reconstruction:
      return ''
    words = ['adm', 'sample', '--model', self.name]
    if self.guide == CLASSIFIER:
      words += ['--classifier', self.model.classifier, '--scale', f'{self.scale!r}']
    elif self.guide == FREE:
      words += ['--cfg-scale', f'{self.scale!r}']
    elif self.guide == STUDENT:
      words += ['--scale', f'{self.scale!r}']
    if self.takes_classes:
      words += ['--classes', ','.join(map(str, self.classes))]
    words += ['--num', str(self.num)]
    if self.pixels is not None:
      words += ['--images', 'picture', '--reconstruct']
    elif self.until is not None:
      words += ['--interpolate', f'{self.seed},{self.until}']
    else:
      words += ['--seed', str(self.seed)]
    words += ['--solver', self.solver]
    if self.eta:
      words += ['--eta', f'{self.eta!r}']
    words += (['--respacing', str(self.steps)] if self.spacing is None else
              ['--steps', str(self.steps), '--spacing', self.spacing])
    return shlex.join([*words, '--format', 'png', '--out', 'runs/live'])

  @property
  def is_reconstruction(self) -> bool:
    """Whether an image is decoded as it was encoded."""
    return self.guide == NONE and (not self.takes_classes or self.origin == self.classes[0])

  def python(self) -> str:
    """Returns the lines of Python that make these images."""
    guidance = {NONE: '()', FREE: f'(guidance.ClassifierFree({self.scale!r}),)',
                STUDENT: f'(guidance.Distilled({self.scale!r}),)',
                CLASSIFIER: f'(guidance.ByClassifier({self.model.classifier!r}, {self.scale!r}),)'}
    solver = (f"solvers.by_name('{self.solver}', eta={self.eta!r})" if self.eta
              else repr(self.solver))
    steps = (f"steps='{self.steps}'" if self.spacing is None
             else f'steps={self.steps}, spacing={self.spacing!r}')
    start, given = self._python_start()
    labels = f'{self.labels()!r}, ' if self.takes_classes else ''
    return '\n'.join([
        'import adm_jax', 'from adm_jax import guidance, solvers',
        f'adm = adm_jax.load({self.name!r}, guidance={guidance[self.guide]},',
        f'                   solver={solver}, {steps})', *start,
        f'images = adm({labels}num={self.num}, seed={self.seed}{given})  '
        f'# uint8 {[self.num, *self.model.network.image_shape]}'])

  @property
  def takes_classes(self) -> bool:
    """Whether the images are of classes."""
    return bool(self.classes) and (self.guide != NONE
                                   or self.model.network.num_classes is not None)

  def labels(self) -> list[int]:
    """Returns the asked class of each image."""
    return [self.classes[i % len(self.classes)] for i in range(self.num)] if self.classes else []

  def _python_start(self) -> tuple[list[str], str]:
    """Lines that say where images start, and the argument that gives it."""
    states = 'from adm_jax.sampling import initial_states'
    if self.until is not None:
      return [states, 'ends = [initial_states.noise_of_seed(adm, seed) for seed in '
                      f'({self.seed}, {self.until})]'], (
              f', x=initial_states.between(*ends, {self.num})')
    if self.pixels is not None:
      height, _, channels = self.model.network.image_shape
      origin = 'None' if self.model.network.num_classes is None else f'np.array([{self.origin}])'
      return [states, 'import numpy as np', 'from adm_jax.data.decoding import Decoder',
              f'image = Decoder({height}, channels={channels})(open("image.png", "rb").read())',
              f"plain = adm_jax.load({self.name!r}, solver={self.solver!r}, steps='{self.steps}')",
              ], f', x=initial_states.encoded(plain, image[None], {origin})'
    return [], ''


def first(model: Model, guide: str) -> Words:
  """What the page shows first of a model that is guided so."""
  taught = model.taught
  low, high = taught.scales if guide == STUDENT else (0.0, 4.0)
  course = ('dpm++2m', 20, 'karras')
  if guide == STUDENT and taught.steps is not None:
    course = (students.SOLVER, max(taught.steps), students.SPACING)
  return Words(model, guide, min(max(2.0, low), high), (0,) if model.class_names else (), 1, 0,
               *course)


def read(value: Any, models: Sequence[Model]) -> Words:
  """Reads one run of a request.

  Args:
    value: what JSON held.
    models: those that are offered.

  Raises:
    UsageError: anything that is missing, unknown, out of range or makes no sense; one line.
  """
  if not isinstance(value, Mapping):
    raise UsageError(f'a run of {_quoted(value)}: give an object')
  unknown = sorted(set(value) - {field.name for field in dataclasses.fields(Words)})
  if unknown:
    raise UsageError(f'a run has no {_quoted(unknown[0])}')
  model = {model.name: model for model in models}.get(_text(value, 'model'))
  if model is None:
    raise UsageError(f'model {_quoted(value["model"])}: there are '
                     f'{", ".join(model.name for model in models)}')
  guide = _one_of(_text(value, 'guide'), model.guides, f'guide of {model.name}')
  until, pixels = value.get('until'), value.get('pixels')
  words = Words(
      model, guide, _scale(value, model, guide), _classes(value, model),
      _whole(value, 'num', 1, MOST_IMAGES), _whole(value, 'seed', 0, 2**32 - 1),
      *_course(value, model, guide),
      until=None if until is None else _whole(value, 'until', 0, 2**32 - 1),
      pixels=None if pixels is None else _pixels(value, model))
  if pixels is not None and model.class_names:
    words = dataclasses.replace(words, origin=_whole(value, 'origin', 0,
                                                     len(model.class_names) - 1))
  _check_start(words)
  return words


def _check_start(words: Words) -> None:
  if words.until is None and words.pixels is None:
    return
  if words.until is not None and words.pixels is not None:
    raise UsageError('until and pixels are two places to start: give one')
  if not solvers.by_name(words.solver).deterministic or words.eta:
    raise UsageError(f'the way from noise to an image is followed by a solver that draws none: '
                     f'give ddim or another instead of {words.solver}')
  if len(words.classes) > 1:
    raise UsageError('the way between two images keeps to one class: give one')
  if words.pixels is None:
    return
  if words.num != 1:
    raise UsageError(f'num={words.num}: one image is encoded at a time')
  if words.guide == STUDENT or words.spacing is not None or words.solver != 'ddim':
    raise UsageError('an image is encoded by ddim along a respacing, by a model that is no '
                     'student: leave out the spacing')


def _scale(value: Mapping[str, Any], model: Model, guide: str) -> float:
  found = value.get('scale', 0 if guide == NONE else None)
  if isinstance(found, bool) or not isinstance(found, (int, float)):
    raise UsageError(f'scale {_quoted(found)}: give a number')
  low, high = (-_MOST_SCALE, _MOST_SCALE)
  if guide == STUDENT:
    low, high = model.taught.scales
  if not low <= found <= high:
    raise UsageError(f'scale {_quoted(found)}: give {low:g} to {high:g}')
  return float(found)


def _classes(value: Mapping[str, Any], model: Model) -> tuple[int, ...]:
  found, count = value.get('classes', []), len(model.class_names)
  if not isinstance(found, list) or len(found) > MOST_IMAGES:
    raise UsageError(f'classes {_quoted(found)}: give a list of at most {MOST_IMAGES} labels')
  if bool(found) != bool(count):
    raise UsageError(f'{model.name} has {count} classes, and {len(found)} are named')
  return tuple(_check_whole('class', label, 0, count - 1) for label in found)


def _course(value: Mapping[str, Any], model: Model, guide: str
            ) -> tuple[str, int, str | None, float]:
  """(solver, steps, spacing, eta)."""
  taught = model.taught
  if guide == STUDENT and taught.steps is not None:
    steps = _one_of(value.get('steps'), sorted(taught.steps), f'number of steps of {model.student}')
    return students.SOLVER, steps, students.SPACING, 0.0
  name = _one_of(_text(value, 'solver'), tuple(solvers.offered()), 'solver')
  steps = _one_of(value.get('steps'), STEPS, 'number of steps')
  spacing = value.get('spacing')
  if spacing is not None:
    _one_of(spacing, tuple(spacings.OFFERED), 'spacing')
    if solvers.by_name(name).neighbors_only:
      raise UsageError(f'spacing {spacing} leads past steps, and {name} takes them one by one: '
                       'leave it out')
  eta = float(_one_of(value.get('eta', 0.0), ETAS, 'eta'))
  if eta and 'eta' not in solvers.options(name):
    raise UsageError(f'eta belongs to {" or ".join(solvers.having("eta"))}, not to {name}')
  return name, steps, spacing, eta


def _pixels(value: Mapping[str, Any], model: Model) -> bytes:
  text, size = _text(value, 'pixels'), math.prod(model.network.image_shape)
  try:
    found = base64.b64decode(text, validate=True)
  except ValueError as error:  # binascii's is one
    raise UsageError('pixels are not base64') from error
  if len(found) != size:
    raise UsageError(f'{len(found)} pixels: {model.name} makes images of {size}')
  return found


def _text(value: Mapping[str, Any], name: str) -> str:
  found = value.get(name)
  if not isinstance(found, str):
    raise UsageError(f'{name} {_quoted(found)}: give a text')
  return found


def _whole(value: Mapping[str, Any], name: str, least: int, most: int) -> int:
  return _check_whole(name, value.get(name), least, most)


def _check_whole(name: str, found: Any, least: int, most: int) -> int:
  if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
    raise UsageError(f'{name} {_quoted(found)}: give a whole number from {least} to {most}')
  return found


def _one_of(found: Any, known: Sequence[Any], what: str) -> Any:
  if isinstance(found, (bool, list, dict)) or found not in known:
    raise UsageError(f'{what} {_quoted(found)}: give one of {", ".join(map(str, known))}')
  return known[list(known).index(found)]  # 5, where 5.0 was given


def _quoted(value: Any) -> str:
  """What was given, short."""
  return one_line(repr(value), 60)
