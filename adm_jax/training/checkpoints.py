"""Checkpoints: folders that hold the state, the position in the data, and the config (Orbax)."""

import contextlib
import json
import os
import pathlib
import re
import threading
import time
from typing import Any, Iterator

from adm_jax import stored_configs
from adm_jax.devices import hosts
from adm_jax.errors import PeerLost, TrainingStopped, UsageError, of_file, one_line
from adm_jax.io import files, json_files, locks
from adm_jax.io.files import written_whole
from adm_jax.training.quiet_saves import quiet_saves
from adm_jax.training.state import TrainState
from adm_jax.weights import checkpoint_files
from adm_jax.weights.checkpoint_files import STATE, restoring, saved_steps

_POSITION, _CONFIG, _LOCK = 'position', 'config', '.lock'
# How long a save may go on where another write has failed.
_SECONDS_AFTER_FAILURE = 5
# The last file and the number of the error in what TensorStore says.
_OF_SYSTEM = re.compile(r'''.*"(.+?)".*\[os_error_code='(\d+)'\]''', re.DOTALL)


class Checkpoints:
  """The checkpoints of one work directory, written in the background by all processes of a run.

  Use as a context: leaving it waits for the last save. The directory must be one that all processes
  share; while it is open, no other run can open it.
  """

  def __init__(self, workdir: pathlib.Path, config_json: str, *, keep: int = 2,
               may_change: tuple[str, ...] = ()):
    """Opens `workdir` for the run of `config_json`; a new one gets its `config.json`.

    Raises:
      UsageError: the directory belongs to a run with another config, or is not a run's at all, or
        another process works in it, or a bucket refuses. Keys in `may_change` may differ. Nothing
        is written in that case.
    """
    self._config_json = config_json
    self._workdir = files.folder(workdir)
    self._lock, self._failed = contextlib.ExitStack(), False

    def prepare():
      check_workdir(self._workdir, config_json, may_change)
      with _refusals(self._workdir):
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(_locked(self._workdir))
        with written_whole(self._workdir / 'config.json') as part:
          part.write_text(config_json)

    hosts.by_first(prepare)
    ocp = checkpoint_files.orbax()
    self._failures = quiet_saves()
    self._manager = ocp.CheckpointManager(
        self._workdir / 'checkpoints',
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True,
            # In the background, one that fails has the other threads of the save wait 20 minutes.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False)))

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, error, traceback) -> None:
    with self._lock:
      if isinstance(error, PeerLost) or hosts.is_of_lost_peer(error):
        return  # a save that was under way would wait for the lost one
      # Where writing has failed already, the process ends whether or not this save does.
      with self.writing() if error is None else contextlib.suppress(Exception):
        self._wait(_SECONDS_AFTER_FAILURE if self._failed else None)
        self._manager.close()

  def _wait(self, most: float | None = None) -> None:
    """Waits until nothing is being saved, for at most so many seconds.

    In a run of several processes Orbax waits for all of them, and longest where this one's part has
    failed: that is raised here.
    """
    errors = []

    def wait():
      try:
        self._manager.wait_until_finished()
      except Exception as error:
        errors.append(error)
    waiting, began = threading.Thread(target=wait, daemon=True), time.monotonic()
    waiting.start()
    while waiting.is_alive():
      waiting.join(0.1)
      now = time.monotonic()
      if most is not None and now - began > most:
        raise TimeoutError(f'not saved after {most} s')
      if self._failures.first and now - self._failures.seconds > _SECONDS_AFTER_FAILURE:
        raise self._failures.first
    if errors:
      raise errors[0]

  def latest_step(self) -> int | None:
    """The step of the newest whole checkpoint."""
    return self._manager.latest_step()

  def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
    """Starts to save; the state may be donated afterwards.

    Args:
      step: of the state.
      state: arrays over all processes.
      position: JSON values: where the run is beside its state.

    Raises:
      TrainingStopped: it cannot be written, or the one before could not; what was there stays.
    """
    ocp = checkpoint_files.orbax()
    with self.writing():
      self._wait()  # for the one before
      self._manager.save(step, args=ocp.args.Composite(**{
          STATE: ocp.args.StandardSave(state), _POSITION: ocp.args.JsonSave(position),
          _CONFIG: ocp.args.JsonSave(json.loads(self._config_json))}))

  def finish(self) -> None:
    """Waits until what is being saved is whole.

    Raises:
      TrainingStopped: it cannot be written; what was there stays.
    """
    with self.writing():
      self._wait()

  def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """(state, position) of `step`, with the shapes and shardings of `like`.

    They need not be those it was saved with: any number of devices and processes reads any other's.

    Raises:
      UsageError: the checkpoint is cut short, or of another architecture.
    """
    ocp = checkpoint_files.orbax()
    args = ocp.args.Composite(**{STATE: ocp.args.StandardRestore(like),
                                 _POSITION: ocp.args.JsonRestore()})
    folder = self._workdir / 'checkpoints' / str(step)
    items = restoring(folder, like, lambda _: self._manager.restore(step, args=args))
    return items[STATE], items[_POSITION]

  @contextlib.contextmanager
  def writing(self) -> Iterator[None]:
    """For whatever writes to the work directory: says in one line that it cannot, and what is left.

    Raises:
      TrainingStopped: the disk is full, or a bucket refuses.
    """
    try:
      yield
    except Exception as error:
      if hosts.is_of_lost_peer(error):  # processes wait for each other when they save
        raise
      self._failed = True
      steps = saved_steps(self._workdir)
      left = (f'the checkpoint of step {steps[-1]} is whole' if steps
              else 'there was no checkpoint before')
      raise TrainingStopped(
          f'{self._workdir} cannot be written to ({_reason(error)}); {left}: make room or mend '
          'the storage, and give the same command to go on') from error


def _reason(error: Exception) -> str:
  """What the system said and of which file, also where Orbax wraps it in more than a line."""
  found = _OF_SYSTEM.match(str(error))
  if found:
    return f'{os.strerror(int(found[2]))}: {found[1]}'
  return files.reason(error) if isinstance(error, OSError) else one_line(error)


def check_workdir(workdir: pathlib.Path, config_json: str,
                  may_change: tuple[str, ...] = ()) -> None:
  """Raises UsageError unless a run of this config may start or go on in `workdir`.

  A run without a checkpoint has nothing to lose: it may start anew with another config.
  """
  stored = workdir / 'config.json'
  with _refusals(workdir):
    if workdir.exists() and not workdir.is_dir():
      raise UsageError(f'{workdir} is a file: give a folder as work directory')
    if stored.exists():
      with of_file(stored):
        changed = (stored_configs.differences(json_files.read_text(stored), config_json, may_change)
                   if saved_steps(workdir) else [])
      if changed:
        raise UsageError(f'{workdir} holds a run with another config ({"; ".join(changed)}): give '
                         'the config it was made with, or another work directory')
    elif workdir.exists() and any(_is_foreign(path.name) for path in workdir.iterdir()):
      raise UsageError(f'{workdir} is neither empty nor a run of this program: give another work '
                       'directory')


def _is_foreign(name: str) -> bool:
  """Whether a file is none that another process of a run that begins writes before all others."""
  return name not in (_LOCK, 'config.json') and not (name.startswith('.') and '.part' in name)


@contextlib.contextmanager
def _refusals(workdir: pathlib.Path) -> Iterator[None]:
  """Says in one line that a bucket refuses; a local disk's errors are clear as they are."""
  try:
    yield
  except UsageError:
    raise
  except Exception as error:
    if files.is_local(workdir):
      raise
    raise UsageError(f'{workdir} cannot be used ({one_line(error)}): check its name and your '
                     'rights to it (gcloud auth application-default login)') from error


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other processes out, where there are locks: on local disks, not in buckets."""
  if not files.is_local(workdir):
    yield
    return
  with open(workdir / _LOCK, 'w') as lock:
    locks.take(lock, f'another process trains in {workdir}: wait for it, stop it, or give another '
                     'work directory')
    yield
