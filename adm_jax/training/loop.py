"""The training loop: restore, step, log, save. One for all tasks, devices and processes."""

import contextlib
import dataclasses
import pathlib
from typing import Any, Callable

import jax
import numpy as np
import optax

from adm_jax.data import loading
from adm_jax.data.sources import Source
from adm_jax.devices import allocator, chips, compile_times, hosts, sharding
from adm_jax.devices.profile import Profile
from adm_jax.errors import Preempted, TrainingStopped, UsageError
from adm_jax.io import files
from adm_jax.process.timestep_samplers import TimestepSampler
from adm_jax.training import evaluations, flops, grids, validation
from adm_jax.training.checkpoints import Checkpoints
from adm_jax.training.metrics import Ledger, MetricFiles, Stopwatch, Window
from adm_jax.training.state import TrainState, init_state
from adm_jax.training.steps import train_step
from adm_jax.training.tasks import Task
from adm_jax.weights.folders import write_class_names

# Streams of the run's seed.
_INIT, _STEPS = 0, 1

# Keys of a config that a resumed run may change.
MAY_CHANGE = ('total_steps', 'log_every', 'save_every', 'keep', 'max_skipped_in_a_row',
              'loader.num_threads', 'loader.num_workers', 'loader.max_unreadable',
              'parallel', 'fsdp', 'num_devices', 'microbatches', 'data.data_dir', 'sample_every',
              'grid', 'evaluate_every', 'evaluation', 'validation', 'validate_every',
              *(f'task.network.module.{name}' for name in (
                  'remat', 'unet.remat', 'attention_implementation',
                  'unet.attention_implementation')))


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
    ema_rates: a list of averages of the parameters to keep; () for none.
    ema_warmup: average with min(rate, (1 + step) / (10 + step)), so that a short run's average is
      not mostly its random start.
    microbatches: into how many parts to cut a batch, one after the other, for less memory.
    log_every: steps between lines of metrics, each the mean over these steps.
    save_every: steps between checkpoints, a multiple of `log_every`.
    keep: how many of the latest checkpoints to keep.
    max_skipped_in_a_row: stop after so many steps in a row with a non-finite loss or gradient, as
      seen with each line of metrics.
    loader: how images are read.
    parallel: 'jit', on a mesh of data x fsdp, or 'pmap', with a copy of the state on each device.
    fsdp: how many devices share one copy of the state; each group of so many has one.
    num_devices: how many to use, over all processes; None: all there are.
    sample_every: steps between pictures of samples; 0: none. A run that is stopped at such a step
      has none of it.
    grid: what these show.
    evaluate_every: steps between quick evaluations; 0: none.
    evaluation: what is measured then, an `evaluations.Evaluation`.
    validation: images that are not trained on, of the same classes, or None.
    validate_every: steps between measurements on all of them (`validation.validator`); 0: none. A
      run that is stopped at such a step has none of it. Training is the same with and without.
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
  loader: loading.Loader = loading.Loader()
  parallel: str = 'jit'
  fsdp: int = 1
  num_devices: int | None = None
  sample_every: int = 0
  grid: grids.Grid = grids.Grid()
  evaluate_every: int = 0
  evaluation: evaluations.Evaluation = evaluations.Evaluation()
  validation: Source | None = None
  validate_every: int = 0

  def __post_init__(self):
    for name in ('batch_size', 'total_steps', 'log_every', 'save_every', 'keep', 'microbatches',
                 'max_skipped_in_a_row'):
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
      # Averages are stored under their rates, which are read again as fractions, not as 0 or 1.
      if not isinstance(rate, float) or not 0 < rate < 1:
        raise UsageError(f'ema_rates holds {rate}: give fractions more than 0 and less than 1, as '
                         '0.9999, or ema_rates=() for no average')
    if self.parallel not in sharding.PARALLEL:
      raise UsageError(f'parallel={self.parallel}: give {" or ".join(sharding.PARALLEL)}')
    if self.sample_every < 0:
      raise UsageError(f'sample_every={self.sample_every}: give 0, for none, or more')
    if self.sample_every:
      self.grid.check(self.task.network)
    if self.evaluate_every < 0:
      raise UsageError(f'evaluate_every={self.evaluate_every}: give 0, for none, or more')
    if self.evaluate_every:
      self.evaluation.check(self.task.network)
    if self.validate_every < 0:
      raise UsageError(f'validate_every={self.validate_every}: give 0, for none, or more')
    if self.validate_every and self.validation is None:
      raise UsageError(f'validate_every={self.validate_every}, but there is nothing to validate '
                       'on: give the images as validation, as the data are given, or set '
                       'validate_every to 0')
    if not 0 <= self.seed < 2**32:
      raise UsageError(f'seed={self.seed}: give 0 to {2**32 - 1}')
    num_steps = self.task.network.diffusion.schedule.num_steps
    if self.timestep_sampler.num_steps != num_steps:
      raise UsageError(f'timestep_sampler.num_steps={self.timestep_sampler.num_steps}, but the '
                       f'process has {num_steps} steps: set the one to the other')
    most = getattr(self.optimizer, 'num_updates', None)
    if most is not None and self.total_steps > most:
      raise UsageError(f'total_steps={self.total_steps}, but the learning rate is 0 after {most} '
                       f'updates: give optimizer.linear_decay_steps={self.total_steps} too, or '
                       f'total_steps of at most {most}')
    self.task.check(self.data)
    if self.validation is not None:
      self._check_validation()

  def _check_validation(self):
    self.task.check(self.validation)
    if self.validation.class_names != self.data.class_names:
      raise UsageError(
          f'{self.validation.name}, for validation, has other classes than {self.data.name}, or '
          f'another order of them: {len(self.validation.class_names)} and '
          f'{len(self.data.class_names)}; give images of the same classes')
    if not len(self.validation):
      raise UsageError(f'{self.validation.name}, for validation, is empty: give some images')

  def init(self) -> TrainState:
    """The state before the first step, a function of the seed alone."""
    return jax.jit(self._init)()

  def _init(self) -> TrainState:
    key = jax.random.fold_in(jax.random.key(self.seed), _INIT)
    return init_state(key, self.task, self.optimizer, self.ema_rates, self.timestep_sampler)

  def step_key(self) -> jax.Array:
    """What the steps are called with, a function of the seed alone."""
    return jax.random.fold_in(jax.random.key(self.seed), _STEPS)

  def trainer(self, devices: list[jax.Device] | None = None,
              outline: bool = False) -> sharding.Trainer:
    """The training step for `devices`, by default those that the run asks for.

    Args:
      devices: what to train on.
      outline: what is frozen is not read: its step compiles, and trains nothing.

    Raises:
      UsageError: the batch or the state cannot be shared by so many.
    """
    devices = self._devices() if devices is None else devices
    mesh = sharding.mesh(self.fsdp, devices)
    sharding.check_batch(self.batch_size, mesh.size, self.microbatches)
    read = self.task.load_frozen if not outline else None
    return sharding.trainer(
        self.parallel, mesh, self._init, lambda collectives: train_step(
            self.task, self.optimizer, self.timestep_sampler, ema_rates=self.ema_rates,
            ema_warmup=self.ema_warmup, microbatches=self.microbatches,
            collectives=collectives),
        self.task.frozen if read is None else read())

  def _devices(self) -> list[jax.Device]:
    devices = jax.devices()
    count = len(devices) if self.num_devices is None else self.num_devices
    if not 1 <= count <= len(devices) or (jax.process_count() > 1 and count < len(devices)):
      raise UsageError(f'num_devices={count}, but there are {len(devices)} on '
                       f'{jax.process_count()} processes, each of which must use all of its own: '
                       f'give {len(devices)} or None')
    return devices[:count]


def train(run: Run, config_json: str, workdir: str | pathlib.Path, *,
          progress: Callable[[int, dict], None] | None = None, start: Any = None,
          tensorboard: bool = False, profile: Profile | None = None) -> TrainState:
  """Trains until `run.total_steps`, going on from the latest checkpoint in `workdir` if any.

  All processes of a run call it alike, once they have joined (`hosts.join`).

  Args:
    run: what to train.
    config_json: the config that built it, kept in the work directory and in each checkpoint.
    workdir: a folder of its own, or an address in a bucket, the same for all processes:
      `config.json`, `metrics.jsonl`, `speed.jsonl`, `validation.jsonl`, `samples/`, `checkpoints/`.
    progress: called with (step, metrics and speed of the latest line) after every step; with the
      restored step first; and at the end once more, when it is known what all the time went into
      (`goodput`).
    start: parameters to start from, instead of random ones; a resumed run ignores them.
    tensorboard: write TensorBoard's files too (`metrics.MetricFiles`).
    profile: traces some steps of this start of the run, under their numbers in the whole run.

  Returns:
    The final state.

  Raises:
    UsageError: the work directory holds another config, or a checkpoint that does not fit.
    TrainingStopped: too many steps in a row were not finite, or `workdir` cannot be written to.
    Preempted: SIGTERM was received and the state is saved.
    KeyboardInterrupt: after Ctrl-C, when the state is saved; at once after a second one.
    PeerLost: another process of the run is gone.
  """
  allocator.fill_holes()
  workdir = files.folder(workdir)
  # What a run starts from and learns from may have taken one process much longer than another.
  hosts.meet(f'training in {workdir}')
  trainer = run.trainer()
  with (compile_times.listening() as spans,
        hosts.noticing_lost_peers(),
        Checkpoints(workdir, config_json, keep=run.keep, may_change=MAY_CHANGE) as checkpoints,
        hosts.preemption() as asked,
        profile or Profile(0, 0, workdir) as profile,
        contextlib.closing(loading.batches(
            run.data, batch_size=run.batch_size, seed=run.seed, loader=run.loader,
            process_index=jax.process_index(), process_count=jax.process_count())) as batches):
    ledger = Ledger(spans.seconds)
    saved = checkpoints.latest_step()
    window = Window()
    if saved is None:
      state = trainer.init()
      if start is not None:
        state = started_from(state, start)
    else:
      state, position = checkpoints.restore(saved, trainer.shapes)
      batches.set_state(position['batches'].encode())
      window = Window(position['window'])
    done = saved or 0
    if done > run.total_steps:
      raise UsageError(f'{workdir} is at step {done} already: total_steps={run.total_steps} asks '
                       'for less')
    metric_files = None
    def open_files():
      nonlocal metric_files
      write_class_names(workdir, run.data.class_names)
      metric_files = MetricFiles(workdir, done, tensorboard)
      ledger.went_before(metric_files.spent)
    hosts.by_first(open_files)
    if progress is not None:
      progress(done, {})

    draw = run.sample_every and grids.drawer(run.grid, run.task.network, run.data,
                                            trainer.mesh, run.seed)
    measure = run.evaluate_every and evaluations.measurer(
        run.evaluation, run.task.network, run.data, trainer.mesh, run.seed)
    validate = run.validate_every and validation.validator(
        run.task, run.validation, trainer.mesh, batch_size=run.batch_size, seed=run.seed,
        num_threads=run.loader.num_threads)
    watch = stopwatch(run, trainer.mesh)
    ledger.begin(watch)
    key = run.step_key()
    line, stopping = {}, False
    while done < run.total_steps and not stopping:
      profile.begin(done + 1)
      with watch.waiting():
        batch = next(batches)
      state, metrics = trainer.step(state, trainer.place(batch), key, trainer.frozen)
      profile.end(state)
      del batch  # a traceback would keep it, and with it memory that workers share
      watch.step(metrics['skipped'].total)
      window.add(metrics)
      done += 1
      last, stopping = done == run.total_steps, asked(done)
      if done % run.log_every == 0 or last:
        means = window.close()
        speed = watch.read(done) | ledger.read().fields()
        line = means | speed
        if metric_files is not None:
          with checkpoints.writing():
            metric_files.write(done, means, speed)
        _stop_if_lost(run, state, checkpoints.latest_step())
      # Before the checkpoint, so that no run that goes on from it lacks the line.
      if run.validate_every and done % run.validate_every == 0 and not stopping:
        with ledger.busy('evaluation', state):
          measured = validate(state, trainer.frozen, done)
        if metric_files is not None:
          with checkpoints.writing():
            metric_files.validation(done, measured)
      if done % run.save_every == 0 or last or stopping:
        with ledger.busy('checkpoints', state):
          checkpoints.save(done, state, {'batches': batches.get_state().decode(),
                                         'window': window.stored()})
        if metric_files is not None:
          with checkpoints.writing():
            metric_files.flush()
      # Who sends a SIGTERM does not wait for pictures.
      if run.sample_every and done % run.sample_every == 0 and not stopping:
        with ledger.busy('evaluation', state):
          images, labels = draw(state)
        if metric_files is not None:
          with checkpoints.writing():
            grids.write(workdir, done, images, labels, run.data.class_names)
            metric_files.picture(done, images)
      if run.evaluate_every and done % run.evaluate_every == 0 and not stopping:
        with ledger.busy('evaluation', state):
          measured = measure(state)
        if metric_files is not None:
          with checkpoints.writing():
            metric_files.evaluation(done, measured)
      if progress is not None:
        progress(done, line)
    if done != saved:
      with ledger.busy('checkpoints'):
        checkpoints.finish()
      spent = ledger.read().fields()
      if metric_files is not None:
        with checkpoints.writing():
          metric_files.end(done, spent)
      if progress is not None:
        progress(done, line | spent)
  if stopping and done < run.total_steps:
    raise Preempted(f'stopped by SIGTERM after step {done}, which is saved in {workdir}: the same '
                    'command goes on')
  return state


def started_from(state: TrainState, params: Any) -> TrainState:
  """A first state with other parameters, as arrays in host memory; averages start there, too.

  Files may hold 16 bits; a state stays as wide as it is.
  """
  def place(old, new):
    return jax.make_array_from_callback(
        old.shape, old.sharding, lambda index: np.asarray(new[index], old.dtype))
  return state.replace(
      params=jax.tree.map(place, state.params, params),
      ema={rate: jax.tree.map(place, average, params) for rate, average in state.ema.items()})


def stopwatch(run: Run, mesh: jax.sharding.Mesh) -> Stopwatch:
  """A stopwatch for a run on the devices of `mesh`."""
  peak = chips.peak(mesh.devices.flat[0].device_kind)
  work = 0.0 if peak is None else flops.of_step(run.task, run.batch_size)
  return Stopwatch(run.batch_size, run.total_steps, work, peak and peak * mesh.size)


def _stop_if_lost(run: Run, state: TrainState, saved: int | None) -> None:
  in_a_row = int(state.skipped_in_a_row)
  if in_a_row >= run.max_skipped_in_a_row:
    left = ('no checkpoint was saved yet' if saved is None
            else f'the last checkpoint is of step {saved}')
    raise TrainingStopped(
        f'the loss or its gradient was not finite in the last {in_a_row} steps, up to step '
        f'{int(state.step)}, and none of these changed the weights; {left}; a step before them may '
        'have been too long: lower the learning rate, or set clip_norm, in a new work directory')
