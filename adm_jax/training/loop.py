"""The training loop: restore, step, log, save. One for all tasks."""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any, Callable

import jax
import numpy as np
import optax

from adm_jax.data import pipeline
from adm_jax.data.sources import Source
from adm_jax.errors import TrainingStopped, UsageError
from adm_jax.files import written_whole
from adm_jax.timestep_samplers import TimestepSampler
from adm_jax.training.checkpoints import Checkpoints, write_class_names
from adm_jax.training.state import TrainState, init_state
from adm_jax.training.steps import train_step
from adm_jax.training.tasks import Task

# Streams of the run's seed.
_INIT, _STEPS = 0, 1

# Keys of a config that a resumed run may change.
MAY_CHANGE = ('total_steps', 'log_every', 'save_every', 'keep', 'max_skipped_in_a_row',
              'loader.num_threads', 'loader.num_workers', 'loader.max_unreadable')


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run, as a config builds it.

  Attributes:
    data: the images.
    task: network and loss.
    timestep_sampler: which timesteps to train on.
    optimizer: an optax transformation.
    batch_size: of the whole step.
    total_steps: when to stop.
    seed: of the initial parameters, the order of the data and all noise.
    ema_rates: a list of averages of the parameters to keep.
    ema_warmup: see `steps.train_step`.
    microbatches: see `steps.train_step`.
    log_every: steps between lines of metrics, each the mean over these steps.
    save_every: steps between checkpoints, a multiple of `log_every`.
    keep: how many of the latest checkpoints to keep.
    max_skipped_in_a_row: stop after so many steps in a row with a non-finite loss or gradient.
    loader: how images are read.
  """
  data: Source
  task: Task
  timestep_sampler: TimestepSampler
  optimizer: optax.GradientTransformation
  batch_size: int
  total_steps: int
  seed: int = 0
  ema_rates: tuple[float, ...] = ()
  ema_warmup: bool = False
  microbatches: int = 1
  log_every: int = 100
  save_every: int = 1000
  keep: int = 2
  max_skipped_in_a_row: int = 20
  loader: pipeline.Loader = pipeline.Loader()

  def __post_init__(self):
    for name in ('batch_size', 'total_steps', 'log_every', 'save_every', 'keep', 'microbatches'):
      if getattr(self, name) < 1:
        raise UsageError(f'{name}={getattr(self, name)}: give at least 1')
    if self.save_every % self.log_every:
      # So that the metrics of a resumed run are those of an uninterrupted one.
      raise UsageError(f'save_every={self.save_every} is not a multiple of '
                       f'log_every={self.log_every}: choose one that is')
    if self.batch_size % self.microbatches:
      raise UsageError(f'batch_size={self.batch_size} cannot be cut into '
                       f'microbatches={self.microbatches}: choose a divisor')
    for rate in self.ema_rates:
      if not 0 <= rate < 1:
        raise UsageError(f'ema_rates holds {rate}: a rate is at least 0 and less than 1')
    if self.seed < 0:
      raise UsageError(f'seed={self.seed}: give 0 or more')
    num_steps = self.task.diffusion.schedule.num_steps
    if self.timestep_sampler.num_steps != num_steps:
      raise UsageError(f'timestep_sampler.num_steps={self.timestep_sampler.num_steps}, but the '
                       f'process has {num_steps} steps: set the one to the other')
    self.task.check(self.data)

  def init(self) -> TrainState:
    """The state before the first step, a function of the seed alone."""
    key = jax.random.fold_in(jax.random.key(self.seed), _INIT)
    return jax.jit(lambda key: init_state(
        key, self.task, self.optimizer, self.ema_rates, self.timestep_sampler))(key)


def train(run: Run, config_json: str, workdir: str | pathlib.Path, *,
          progress: Callable[[int, dict], None] | None = None) -> TrainState:
  """Trains until `run.total_steps`, going on from the latest checkpoint in `workdir` if any.

  Args:
    run: what to train.
    config_json: the config that built it, kept in the work directory and in each checkpoint.
    workdir: a folder of its own: `config.json`, `metrics.jsonl`, `checkpoints/`.
    progress: called with (step, metrics of the latest line) after every step; with the restored
      step first.

  Returns:
    The final state.

  Raises:
    UsageError: the work directory holds another config, or a checkpoint that does not fit.
    TrainingStopped: too many steps in a row were not finite.
  """
  workdir = pathlib.Path(workdir).absolute()
  with Checkpoints(workdir, config_json, keep=run.keep, may_change=MAY_CHANGE) as checkpoints:
    write_class_names(workdir, run.data.class_names)
    batches = pipeline.batches(run.data, batch_size=run.batch_size, seed=run.seed,
                               loader=run.loader)
    latest = checkpoints.latest_step()
    if latest is None:
      state = run.init()
    else:
      state = checkpoints.restore(latest, jax.eval_shape(run.init), batches)
    done = latest or 0
    if done > run.total_steps:
      raise UsageError(f'{workdir} is at step {done} already: total_steps={run.total_steps} asks '
                       'for less')
    log = MetricsLog(workdir / 'metrics.jsonl', resume_at=done)
    if progress is not None:
      progress(done, {})

    step = jax.jit(
        train_step(run.task, run.optimizer, run.timestep_sampler, ema_rates=run.ema_rates,
                   ema_warmup=run.ema_warmup, microbatches=run.microbatches),
        donate_argnums=0)
    key = jax.random.fold_in(jax.random.key(run.seed), _STEPS)
    window, line = [], {}
    while done < run.total_steps:
      state, metrics = step(state, next(batches), key)
      window.append(metrics)
      done += 1
      last = done == run.total_steps
      if done % run.log_every == 0 or last:
        line = log.write(done, window)
        window = []
      if last or done % run.log_every == 0 or done % run.max_skipped_in_a_row == 0:
        _stop_if_lost(run, state, checkpoints.latest_step())
      if done % run.save_every == 0 or last:
        checkpoints.save(done, state, batches)
      if progress is not None:
        progress(done, line)
    return state


def _stop_if_lost(run: Run, state: TrainState, saved: int | None) -> None:
  in_a_row = int(state.skipped_in_a_row)
  if in_a_row >= run.max_skipped_in_a_row:
    left = ('no checkpoint was saved yet' if saved is None
            else f'the last checkpoint is of step {saved}')
    raise TrainingStopped(
        f'the loss or its gradient was not finite in the last {in_a_row} steps, up to step '
        f'{int(state.step)}, and none of these changed the weights; {left}; a step before them may '
        'have been too long: lower the learning rate, or set clip_norm, in a new work directory')


class MetricsLog:
  """One JSON object a line, each the mean over the steps since the last; whole lines only."""

  def __init__(self, path: pathlib.Path, resume_at: int):
    """Keeps the lines of `path` up to step `resume_at`: later ones will be written again."""
    self._path = path
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= resume_at]
    with written_whole(path) as part:
      part.write_text(''.join(line + '\n' for line in kept))

  def write(self, step: int, window: list[dict]) -> dict[str, float]:
    """Appends the means over `window`, a list of `steps.Metrics`, and returns them."""
    totals = jax.tree.map(lambda *parts: np.sum(parts, dtype=np.float64), *jax.device_get(window))
    means = {name: float(mean.value) for name, mean in totals.items() if mean.count}
    with open(self._path, 'a') as file:
      file.write(json.dumps({'step': step, **means}) + '\n')
      file.flush()
      os.fsync(file.fileno())
    return means


def _step_of(line: str) -> float:
  """The step of a line; a line that a crash cut short counts as later than all."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return math.inf


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """All lines of a work directory's metrics."""
  text = (pathlib.Path(workdir) / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]
