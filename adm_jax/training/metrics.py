"""What a run writes of itself: losses as JSON lines, its speed, and TensorBoard files if asked.

`metrics.jsonl` holds what the run computes and nothing else, so that an interrupted run ends with
the file of an undisturbed one, byte for byte. How fast it went, and what its time went into, is in
`speed.jsonl`.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import logging
import math
import os
import pathlib
import time
from typing import Any, Callable, Iterator

import jax
import numpy as np

from adm_jax.io.files import is_local, naming, written_whole
from adm_jax.training import goodput
from adm_jax.training.event_files import EventFile
from adm_jax.training.steps import Mean

Array = jax.Array

_log = logging.getLogger(__name__)
_METRICS, _SPEED, _EVALUATIONS = 'metrics.jsonl', 'speed.jsonl', 'evaluations.jsonl'
_VALIDATION = 'validation.jsonl'


class Lines:
  """A file of one JSON object a line, in order of their steps; whole lines only."""

  def __init__(self, path: pathlib.Path, resume_at: int):
    """Keeps the lines of `path` up to step `resume_at`: later ones will be written again."""
    self._path = path
    lines = path.read_text().splitlines() if path.exists() else []
    self._kept = [line for line in lines if _step_of(line) <= resume_at]
    self._write_all()

  def append(self, step: int, values: dict[str, float]) -> None:
    line = json.dumps({'step': step, **values})
    self._kept.append(line)
    if not is_local(self._path):  # nothing can be appended to an object of a bucket
      return
    with naming(self._path), open(self._path, 'a') as file:
      file.write(line + '\n')
      file.flush()
      os.fsync(file.fileno())

  def extend(self, step: int, values: dict[str, float]) -> None:
    """Replaces values of the line of `step`, if that is the last one; else appends one."""
    if not self._kept or _step_of(self._kept[-1]) != step:
      return self.append(step, values)
    self._kept[-1] = json.dumps({**json.loads(self._kept[-1]), **values})
    if is_local(self._path):
      self._write_all()

  def flush(self) -> None:
    """Brings a file in a bucket up to date; elsewhere it always is."""
    if not is_local(self._path):
      self._write_all()

  def _write_all(self) -> None:
    with written_whole(self._path) as part:
      part.write_text(''.join(line + '\n' for line in self._kept))


def _step_of(line: str) -> float:
  """The step of a line; a line that a crash cut short counts as later than all."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return math.inf


class Window:
  """The metrics of the steps since the last line.

  A checkpoint between two lines stores it, so that the next line does not depend on interruptions.
  """

  def __init__(self, stored: list[dict[str, list[float]]] = ()):
    self._steps = [{name: Mean(*map(np.float32, pair)) for name, pair in step.items()}
                   for step in stored]

  def add(self, metrics: dict[str, Mean]) -> None:
    self._steps.append(metrics)

  def stored(self) -> list[dict[str, list[float]]]:
    """JSON values from which `Window` makes it again."""
    return [{name: [float(mean.total), float(mean.count)] for name, mean in step.items()}
            for step in jax.device_get(self._steps)]

  def close(self) -> dict[str, float]:
    """The means over all of it, which is then empty."""
    totals = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64),
                          *jax.device_get(self._steps))
    self._steps = []
    return {name: float(mean.value) for name, mean in totals.items() if mean.count}


@dataclasses.dataclass
class Stopwatch:
  """How fast a run goes.

  Attributes:
    batch_size: images per step.
    total_steps: of the run.
    flops: of a step, over all devices.
    peak: FLOPs per second that all devices could do; None where that is not known.
  """
  batch_size: int
  total_steps: int
  flops: float
  peak: float | None

  def __post_init__(self):
    self._since, self._steps = time.perf_counter(), 0
    self.waited = self._waited_before = 0.0  # since it was made, and until the last reading
    self._observer = concurrent.futures.ThreadPoolExecutor(1)
    self._idle_since = self._observer.submit(time.perf_counter)

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Around what fetches a batch: counts how long the devices had nothing left to work on."""
    began = time.perf_counter()
    with jax.profiler.TraceAnnotation('input'):
      yield
    if self._idle_since.done():
      self.waited += time.perf_counter() - max(began, self._idle_since.result())

  def step(self, result: Array) -> None:
    """Counts a step that was given to the devices, and ends in `result`."""
    self._steps += 1
    self._idle_since = self._observer.submit(_when_ready, result)

  def read(self, done: int) -> dict[str, float]:
    """Speed since the last reading, after step `done`: the devices must have come so far.

    `data_wait` is the share of time in which devices had no images to work on;
    `flop_utilization` the share of their peak that went into the model.
    """
    now = time.perf_counter()
    seconds = now - self._since
    rate = self._steps / seconds
    speed = {'images_per_second': rate * self.batch_size,
             'data_wait': (self.waited - self._waited_before) / seconds,
             'eta_seconds': (self.total_steps - done) / rate}
    if self.peak is not None:
      speed['flop_utilization'] = rate * self.flops / self.peak
    self._since, self._steps, self._waited_before = now, 0, self.waited
    return speed


def _when_ready(array: Array) -> float:
  """The time at which it was; also if the step failed, which whoever reads its result is told."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    array.block_until_ready()
  return time.perf_counter()


class Ledger:
  """Charges the time of this process to what a run is busy with, for its `Goodput`.

  That is 'restarts' until `begin`, then 'steps' but within `busy`.
  """

  def __init__(self, compiled: Callable[[], float]):
    """Begins to count; `compiled` gives the seconds that were traced and compiled so far."""
    self._spent, self._kind, self._since = goodput.Goodput(), 'restarts', time.perf_counter()
    self._hidden, self._seen = {}, {}
    self._hide('compile', compiled)

  def _hide(self, kind: str, total: Callable[[], float]) -> None:
    """Time of this kind, in all so far, is to be taken out of that of the others."""
    self._hidden[kind], self._seen[kind] = total, total()

  def went_before(self, spent: goodput.Goodput) -> None:
    """Adds what earlier starts of the run took."""
    self._spent = self._spent.plus(**dataclasses.asdict(spent))

  def begin(self, watch: Stopwatch) -> None:
    """The steps begin; `watch` knows how long the devices wait for images."""
    self._charge('steps')
    self._hide('input', lambda: watch.waited)

  @contextlib.contextmanager
  def busy(self, kind: str, after: Any = None) -> Iterator[None]:
    """Around what keeps the run from its steps, once the arrays in `after` are there.

    It has this name in a trace.
    """
    jax.block_until_ready(after)
    self._charge(kind)
    with jax.profiler.TraceAnnotation(kind):
      yield
    self._charge('steps')

  def read(self) -> goodput.Goodput:
    self._charge(self._kind)
    return self._spent

  def _charge(self, following: str) -> None:
    now = time.perf_counter()
    totals = {kind: total() for kind, total in self._hidden.items()}
    hidden = {kind: total - self._seen[kind] for kind, total in totals.items()}
    # Not below 0, as other threads may compile at the same time.
    rest = max(0.0, now - self._since - sum(hidden.values()))
    self._spent = self._spent.plus(**hidden).plus(**{self._kind: rest})
    self._kind, self._since, self._seen = following, now, totals


class MetricFiles:
  """Everything that one process writes about a run."""

  def __init__(self, workdir: pathlib.Path, resume_at: int, tensorboard: bool = False):
    """Opens the files of `workdir`; with `tensorboard` also one in `workdir/tensorboard`.

    `spent` is then what the time of earlier starts went into.

    Raises:
      UsageError: TensorBoard is asked for, and not installed.
    """
    self._tensorboard = EventFile(workdir / 'tensorboard', resume_at) if tensorboard else None
    self._metrics = Lines(workdir / _METRICS, resume_at)
    speed = workdir / _SPEED
    # Before the lines of steps that will be done again are gone.
    self.spent = goodput.so_far(speed.read_text().splitlines() if speed.exists() else [], resume_at)
    self._speed = Lines(speed, resume_at)
    self._open_evaluations = functools.cache(lambda: Lines(workdir / _EVALUATIONS, resume_at))
    self._open_validation = functools.cache(lambda: Lines(workdir / _VALIDATION, resume_at))

  def write(self, step: int, means: dict[str, float], speed: dict[str, float]) -> None:
    self._metrics.append(step, means)
    self._speed.append(step, speed)
    _log.info('%s', _sentence(step, means, speed))
    if self._tensorboard is not None:
      self._tensorboard.scalars(step, {**means, **speed})

  def picture(self, step: int, images: np.ndarray) -> None:
    """Shows uint8[N H W C] in TensorBoard."""
    if self._tensorboard is not None:
      self._tensorboard.images(step, 'samples', images)
      self._tensorboard.flush()

  def evaluation(self, step: int, measured: dict[str, float]) -> None:
    self._open_evaluations().append(step, measured)
    self._open_evaluations().flush()

  def validation(self, step: int, measured: dict[str, float]) -> None:
    self._open_validation().append(step, measured)
    self._open_validation().flush()
    _log.info('step %d, on held-out images: %s', step, ', '.join(
        f'{name} {measured[name]:.4f}' for name in ('loss', 'accuracy_top1') if name in measured))
    if self._tensorboard is not None:
      self._tensorboard.scalars(step, {f'validation/{name}': value
                                       for name, value in measured.items()})

  def end(self, step: int, spent: dict[str, float]) -> None:
    """Nothing comes after `step`; what was spent until then replaces what its line says."""
    self._speed.extend(step, spent)
    self.flush()

  def flush(self) -> None:
    self._metrics.flush()
    self._speed.flush()
    if self._tensorboard is not None:
      self._tensorboard.flush()


def _sentence(step: int, means: dict[str, float], speed: dict[str, float]) -> str:
  loss = [f'loss {means["loss"]:.4f}'] if 'loss' in means else []
  return ', '.join([f'step {step}', *loss, note(speed), _to_go(speed['eta_seconds'])])


def _to_go(seconds: float) -> str:
  minutes = round(seconds / 60)
  return f'{minutes // 60}:{minutes % 60:02d} h to go' if minutes else 'less than a minute to go'


def note(speed: dict[str, float]) -> str:
  """'512 images/s, 38 % of peak, 2 % waiting for data'."""
  parts = [f'{speed["images_per_second"]:.3g} images/s']
  if 'flop_utilization' in speed:
    parts.append(f'{speed["flop_utilization"]:.0%} of peak')
  return ', '.join([*parts, f'{speed["data_wait"]:.0%} waiting for data'])
