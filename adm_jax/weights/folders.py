"""Networks with their weights in folders: work directories of training, and converted weights."""

import dataclasses
import json
import pathlib
from typing import Any

import flax
import jax
import numpy as np

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.config import ConfigDict
from adm_jax.errors import UsageError, of_file, one_line
from adm_jax.io import files, json_files
from adm_jax.io.files import folder_written_whole, written_whole
from adm_jax.networks import Network
from adm_jax.weights import checkpoint_files, safetensors_files

_WEIGHTS, _CLASSES, _CONFIG = 'weights.safetensors', 'classes.json', 'config.json'
_MOST_DEPTH = 32  # of modules in modules


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
  """A network with its weights.

  Attributes:
    network: the module and its process, built from the config in the folder.
    params: its parameters.
    weights: which these are: 'params', or the rate of an average.
    step: after how many training steps; 0 where that is unknown.
    class_names: of the data it was trained on, in the order of the labels; None where unknown.
  """
  network: Network
  params: Any
  weights: str = 'params'
  step: int = 0
  class_names: tuple[str, ...] | None = None


def load(folder: str | pathlib.Path, *, weights: str | None = None, step: int | None = None,
         config: ConfigDict | None = None) -> Trained:
  """Reads one set of weights from a folder, and nothing else of a run's state.

  Args:
    folder: a work directory that `train` was given, or a folder of converted weights.
    weights: 'params', or the rate of an average, like '0.9999'; by default the slowest average, or
      'params' where there is none.
    step: which checkpoint; by default the latest.
    config: the config that it was made from; needed only if that names functions of your own, since
      a stored config may not.

  Raises:
    UsageError: no checkpoint, one that is cut short, or one that does not fit its config.
  """
  folder = files.folder(folder)
  if (folder / _WEIGHTS).exists():
    return _load_converted(folder, weights, step, config)
  steps = checkpoint_files.saved_steps(folder)
  if not steps or (step is not None and step not in steps):
    have = f'it has steps {steps}' if steps else _inside(folder)
    raise UsageError(f'{folder} has no checkpoint{"" if step is None else f" of step {step}"}: '
                     f'{have}')
  step = steps[-1] if step is None else step
  network, shapes = described(folder / _CONFIG, config)
  rates = tuple(config.ema_rates) if config else _averages(folder / _CONFIG)
  if weights is None:
    weights = str(max(rates)) if rates else 'params'
  elif weights != 'params' and weights not in map(str, rates):
    raise UsageError(f'{folder} has no weights {weights!r}: give params'
                     + ''.join(f' or {rate}' for rate in rates))
  like = {'params': shapes} if weights == 'params' else {'ema': {weights: shapes}}
  ocp = checkpoint_files.orbax()

  def restore(folder):
    target = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    return ocp.PyTreeCheckpointer().restore(
        folder / checkpoint_files.STATE, args=ocp.args.PyTreeRestore(
            item=like, restore_args=target, partial_restore=True))

  restored = checkpoint_files.restoring(folder / 'checkpoints' / str(step), like, restore,
                                        partial=True)
  params = restored['params'] if weights == 'params' else restored['ema'][weights]
  return Trained(network, params, weights, step, read_class_names(folder / _CLASSES))


def described(path: pathlib.Path, config: ConfigDict | None = None) -> tuple[Network, Any]:
  """A stored config's network and the shapes of its parameters; nothing else of it is built.

  Args:
    path: the config.
    config: the one to take instead, where it is given.

  Raises:
    UsageError: it is damaged, describes no network, or names functions that no network needs.
  """
  if config is not None:
    network = config_lib.build(network_config(config))
    return network, network.abstract_params()
  with of_file(path):
    return made(stored_configs.network(json_files.read_text(path)))


def made(config: ConfigDict) -> tuple[Network, Any]:
  """Builds the network that a stored config describes, with the shapes of its parameters.

  Raises:
    UsageError: it is none, or one that cannot be.
  """
  network = stored_configs.build(config)
  if not isinstance(network, Network):
    raise UsageError(f'the config describes no network, but a {type(network).__name__}')
  try:
    return network, network.abstract_params()
  except (ValueError, TypeError, ArithmeticError) as error:  # numbers that no array can have
    raise UsageError(f'the config describes no network that can be made ({one_line(error)})'
                     ) from error


def _averages(path: pathlib.Path) -> tuple[float, ...]:
  """The rates of a run's averages."""
  with of_file(path):
    return stored_configs.ema_rates(json_files.read_text(path))


def _inside(folder: pathlib.Path) -> str:
  """What to do about a folder that is no model: perhaps it holds some."""
  found = sorted(str(path) for path in folder.iterdir() if (path / _CONFIG).exists()) if (
      folder.is_dir()) else []
  return f'give {" or ".join(found)}' if found else 'train one there, or give another folder'


def network_config(config: ConfigDict) -> ConfigDict:
  """Returns the part of a stored config that describes the network.

  Raises:
    UsageError: it has none.
  """
  for node in (config, config.get('task')):
    if isinstance(node, ConfigDict) and 'network' in node:
      return node.network
  raise UsageError('the config describes no network: it has neither network nor task.network')


def stored_network(folder: str | pathlib.Path) -> ConfigDict:
  """Returns the config of the network in a folder, which `save` takes.

  Raises:
    UsageError: its config names functions that a stored one may not.
  """
  path = files.folder(folder) / _CONFIG
  with of_file(path):
    return stored_configs.network(json_files.read_text(path))


def save(folder: str | pathlib.Path, network: ConfigDict, params: Any,
         class_names: tuple[str, ...] | None = None) -> None:
  """Makes a folder that `load` reads, of weights that were trained elsewhere.

  Not by Orbax, which holds all of them twice while it saves: `LazyArray` parameters pass one by one
  into a safetensors file.

  Args:
    folder: it must not exist; it appears when it is whole.
    network: the config of a `Network`.
    params: its parameters, arrays or `LazyArray`.
    class_names: in the order of the labels; None where unknown.

  Raises:
    UsageError: `folder` exists.
  """
  folder = pathlib.Path(folder).absolute()
  if folder.exists():
    raise UsageError(f'{folder} exists: give the name of a new folder')
  with folder_written_whole(folder) as part:
    safetensors_files.write(part / _WEIGHTS, flax.traverse_util.flatten_dict(params, sep='/'))
    (part / _CONFIG).write_text(network_text(network))
    if class_names is not None:
      write_class_names(part, class_names)


def network_text(network: ConfigDict) -> str:
  """Returns the config of a network as the text that a folder of converted weights keeps."""
  config = ConfigDict(convert_dict=False)
  config.network = network
  return stored_configs.to_json(config)


def write_class_names(folder: pathlib.Path, names: tuple[str, ...]) -> None:
  """Stores the names of a run's classes, so that samples can be asked for by name."""
  with written_whole(folder / _CLASSES) as part:
    part.write_text(json.dumps(names, indent=1, ensure_ascii=False))


def read_class_names(path: pathlib.Path) -> tuple[str, ...] | None:
  """What `write_class_names` wrote; None where there are none, or no file.

  Raises:
    UsageError: it holds anything but a list of texts.
  """
  if not path.exists():
    return None
  with of_file(path):
    return class_names_of(json_files.read_text(path))


def class_names_of(text: str) -> tuple[str, ...] | None:
  """The names of classes in a text of JSON; None where there are none.

  Raises:
    UsageError: it holds anything but a list of texts.
  """
  names = json_files.parse(text)
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise UsageError('it holds no list of names of classes: write ["name", ...]')
  return tuple(names) or None


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
  """{'a/b': x} as {'a': {'b': x}}."""
  for name in flat:
    *above, _ = name.split('/', _MOST_DEPTH + 1)
    if len(above) > _MOST_DEPTH or any('/'.join(above[:i + 1]) in flat for i in range(len(above))):
      raise UsageError(f'{name} is no name of a tensor beside the others: fetch it again')
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def _load_converted(folder: pathlib.Path, weights: str | None, step: int | None,
                    config: ConfigDict | None) -> Trained:
  """Does `load` of a folder that `save` made."""
  if weights not in (None, 'params') or step not in (None, 0):
    raise UsageError(f'{folder} holds one set of weights, converted from elsewhere: leave '
                     f'out weights and step')
  network, shapes = described(folder / _CONFIG, config)
  flat = safetensors_files.read(folder / _WEIGHTS)
  with of_file(folder / _WEIGHTS):
    params = _nested(flat)
    shapes_of = checkpoint_files.shapes_of
    checkpoint_files.check_shapes(folder, shapes_of(params), shapes_of(shapes))
  return Trained(network, jax.tree.map(np.asarray, params),
                 class_names=read_class_names(folder / _CLASSES))
