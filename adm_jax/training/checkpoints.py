"""Checkpoints: folders that hold the state, the position in the data, and the config (Orbax)."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import pathlib
from typing import Any, Callable, Iterator

import flax
import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.devices import hosts
from adm_jax.errors import PeerLost, TrainingStopped, UsageError
from adm_jax.io import files
from adm_jax.io.files import folder_written_whole, written_whole
from adm_jax.training.state import TrainState
from adm_jax.training.tasks import Task
from adm_jax.weights import safetensors_files

_STATE, _POSITION, _CONFIG = 'state', 'position', 'config'
_WEIGHTS, _CLASSES, _LOCK = 'weights.safetensors', 'classes.json', '.lock'


def _orbax():
  import orbax.checkpoint as ocp  # a quarter of a second, which importing the package need not pay
  return ocp


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
    self._lock = contextlib.ExitStack()

    def prepare():
      check_workdir(self._workdir, config_json, may_change)
      with _refusals(self._workdir):
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(_locked(self._workdir))
        with written_whole(self._workdir / 'config.json') as part:
          part.write_text(config_json)

    hosts.by_first(prepare)
    ocp = _orbax()
    # A save that fails raises; the log would have a traceback for each array beside that.
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    self._manager = ocp.CheckpointManager(
        self._workdir / 'checkpoints',
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True))

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, error, traceback) -> None:
    with self._lock:
      if isinstance(error, PeerLost) or hosts.is_of_lost_peer(error):
        return  # a save that was under way would wait for the lost one
      with self.writing() if error is None else contextlib.suppress(Exception):
        self._manager.wait_until_finished()
        self._manager.close()

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
    ocp = _orbax()
    with self.writing():
      self._manager.save(step, args=ocp.args.Composite(**{
          _STATE: ocp.args.StandardSave(state), _POSITION: ocp.args.JsonSave(position),
          _CONFIG: ocp.args.JsonSave(json.loads(self._config_json))}))

  def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """(state, position) of `step`, with the shapes and shardings of `like`.

    They need not be those it was saved with: any number of devices and processes reads any other's.

    Raises:
      UsageError: the checkpoint is cut short, or of another architecture.
    """
    ocp = _orbax()
    args = ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(like),
                                 _POSITION: ocp.args.JsonRestore()})
    folder = self._workdir / 'checkpoints' / str(step)
    items = _restoring(folder, like, lambda _: self._manager.restore(step, args=args))
    return items[_STATE], items[_POSITION]

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
      steps = saved_steps(self._workdir)
      left = (f'the checkpoint of step {steps[-1]} is whole' if steps
              else 'there was no checkpoint before')
      raise TrainingStopped(
          f'{self._workdir} cannot be written to ({_reason(error)}); {left}: make room or mend the '
          'storage, and give the same command to go on') from error


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
      changed = (stored_configs.differences(stored.read_text(), config_json, may_change)
                 if saved_steps(workdir) else [])
      if changed:
        raise UsageError(f'{workdir} holds a run with another config ({"; ".join(changed)}): give '
                         'the config it was made with, or another work directory')
    elif workdir.exists() and any(path.name != _LOCK for path in workdir.iterdir()):
      raise UsageError(f'{workdir} is neither empty nor a run of this program: give another work '
                       'directory')


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
    raise UsageError(f'{workdir} cannot be used ({_reason(error)}): check its name and your rights '
                     'to it (gcloud auth application-default login)') from error


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other processes out, where there are locks: on local disks, not in buckets."""
  if not files.is_local(workdir):
    yield
    return
  with open(workdir / _LOCK, 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UsageError(f'another process trains in {workdir}: wait for it, stop it, or give '
                       'another work directory') from error
    except OSError:
      pass  # a file system without locks
    yield


@dataclasses.dataclass(frozen=True)
class Trained:
  """Weights, with what they are weights of.

  Attributes:
    task: the network and its process, built from the config in the work directory.
    params: its parameters.
    weights: which these are: 'params', or the rate of an average.
    step: after how many training steps; 0 where that is unknown.
    class_names: of the data it was trained on, in the order of the labels; None where unknown.
  """
  task: Task
  params: Any
  weights: str
  step: int
  class_names: tuple[str, ...] | None = None


def load(workdir: str | pathlib.Path, *, weights: str | None = None,
         step: int | None = None, config: config_lib.ConfigDict | None = None) -> Trained:
  """Reads one set of weights from a work directory, and nothing else of its state.

  Args:
    workdir: what `train` was given, or a folder of converted weights.
    weights: 'params', or the rate of an average, like '0.9999'; by default the slowest average, or
      'params' where there is none.
    step: which checkpoint; by default the latest.
    config: the config that it was made from; needed only if that names functions of your own, since
      a stored config may not.

  Raises:
    UsageError: no checkpoint, one that is cut short, or one that does not fit its config.
  """
  workdir = files.folder(workdir)
  if (workdir / _WEIGHTS).exists():
    return _load_weights(workdir, weights, step, config)
  ocp = _orbax()
  steps = saved_steps(workdir)
  if not steps or (step is not None and step not in steps):
    have = f'it has steps {steps}' if steps else 'train one there, or give another folder'
    raise UsageError(f'{workdir} has no checkpoint{"" if step is None else f" of step {step}"}: '
                     f'{have}')
  step = steps[-1] if step is None else step
  config = config or stored_configs.from_json((workdir / 'config.json').read_text())
  task = config_lib.build(config.task)
  if weights is None:
    weights = str(max(config.ema_rates)) if config.ema_rates else 'params'
  elif weights != 'params' and weights not in map(str, config.ema_rates):
    raise UsageError(f'{workdir} has no weights {weights!r}: give params'
                     + ''.join(f' or {rate}' for rate in config.ema_rates))
  shapes = jax.eval_shape(lambda: task.init(jax.random.key(0)))
  like = {'params': shapes} if weights == 'params' else {'ema': {weights: shapes}}

  def restore(folder):
    target = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    return ocp.PyTreeCheckpointer().restore(folder / _STATE, args=ocp.args.PyTreeRestore(
        item=like, restore_args=target, partial_restore=True))

  restored = _restoring(workdir / 'checkpoints' / str(step), like, restore, partial=True)
  params = restored['params'] if weights == 'params' else restored['ema'][weights]
  return Trained(task, params, weights, step, _class_names(workdir))


def write_class_names(workdir: pathlib.Path, names: tuple[str, ...]) -> None:
  """Stores the names of a run's classes, so that samples can be asked for by name."""
  with written_whole(workdir / _CLASSES) as part:
    part.write_text(json.dumps(names, indent=1, ensure_ascii=False))


def _class_names(workdir: pathlib.Path) -> tuple[str, ...] | None:
  path = workdir / _CLASSES
  return tuple(json.loads(path.read_text())) or None if path.exists() else None


def _load_weights(workdir: pathlib.Path, weights: str | None, step: int | None,
                  config: config_lib.ConfigDict | None) -> Trained:
  """`load`, of a folder that `save_weights` made."""
  if weights not in (None, 'params') or step not in (None, 0):
    raise UsageError(f'{workdir} holds one set of weights, converted from elsewhere: leave '
                     f'out weights and step')
  config = config or stored_configs.from_json((workdir / 'config.json').read_text())
  task = config_lib.build(config.task)
  flat = safetensors_files.read(workdir / _WEIGHTS)
  params = flax.traverse_util.unflatten_dict(flat, sep='/')
  _check_shapes(workdir, _shapes(params), _shapes(jax.eval_shape(
      lambda: task.init(jax.random.key(0)))))
  return Trained(task, jax.tree.map(np.asarray, params), 'params', 0)


def save_weights(workdir: str | pathlib.Path, task_config: config_lib.ConfigDict,
                 params: Any) -> None:
  """Makes a folder that `load` reads, of weights that were trained elsewhere.

  Not by Orbax, which holds all of them twice while it saves: `Deferred` parameters pass one by one
  into a safetensors file.

  Args:
    workdir: it must not exist; it appears when it is whole.
    task_config: a call to one of `tasks`, the network's.
    params: its parameters, arrays or `Deferred`.

  Raises:
    UsageError: `workdir` exists.
  """
  workdir = pathlib.Path(workdir).absolute()
  if workdir.exists():
    raise UsageError(f'{workdir} exists: give the name of a new folder')
  config = config_lib.ConfigDict({'ema_rates': ()}, convert_dict=False)
  config.task = task_config
  with folder_written_whole(workdir) as part:
    safetensors_files.write(part / _WEIGHTS, flax.traverse_util.flatten_dict(params, sep='/'))
    (part / 'config.json').write_text(stored_configs.to_json(config))


def saved_steps(workdir: str | pathlib.Path) -> list[int]:
  """The steps of the whole checkpoints of a work directory, rising."""
  folder = files.folder(workdir) / 'checkpoints'
  if not folder.is_dir():
    return []
  return sorted(_orbax().utils.checkpoint_steps(folder))


def _restoring(folder: pathlib.Path, like: Any, restore: Callable[[pathlib.Path], Any],
               partial: bool = False) -> Any:
  """Calls `restore` on a folder whose tensors are those of `like`; failures become one line.

  With `partial`, the folder may hold more.
  """
  ocp = _orbax()
  try:
    with _without_warnings():
      tree = ocp.StandardCheckpointer().metadata(folder / _STATE).item_metadata.tree
    found = _shapes(tree)
  except Exception as error:
    raise UsageError(_damaged(folder, error)) from error
  wanted = _shapes(like)
  _check_shapes(folder, {name: found[name] for name in found if name in wanted or not partial},
                wanted)
  try:
    with _without_warnings():
      return restore(folder)
  except Exception as error:
    raise UsageError(_damaged(folder, error)) from error


def _check_shapes(folder: pathlib.Path, found: dict[str, tuple], wanted: dict[str, tuple]) -> None:
  lines = [f'{name}: {found.get(name, "absent")} in the checkpoint, '
           f'{wanted.get(name, "absent")} in the network'
           for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
  if lines:
    more = f'; and {len(lines) - 6} more' if len(lines) > 6 else ''
    raise UsageError(f'the checkpoint {folder} is of another architecture: '
                     f'{"; ".join(lines[:6])}{more}')


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """Orbax misses the whole checkpoint's description whenever one item of it is read alone."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, 'shape'))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
          for path, leaf in leaves}


def _damaged(folder: pathlib.Path, error: Exception) -> str:
  missing = isinstance(error, AttributeError)  # Orbax's way to say that a description is absent
  reason = 'a file is missing' if missing else _reason(error)
  return (f'the checkpoint {folder} cannot be read ({reason}): if it was cut short, move it away '
          'and the run goes on from the one before')


def _reason(error: Exception) -> str:
  return ' '.join(str(error).split())[:200]
