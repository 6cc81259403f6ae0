"""Configs as text: what a checkpoint keeps, so that no flag is ever typed twice.

JSON in which functions stand by their names. Only functions of this project that can do no harm are
looked up again, and texts of earlier versions are read under the names of today (`_MOVED`).
"""

import contextlib
import importlib
import json
import pathlib
from typing import Any, Iterator

from adm_jax import config as config_lib
from adm_jax.config import ConfigDict, name_of
from adm_jax.errors import UsageError, one_line
from adm_jax.io import json_files

# A stored config may name only these, or what these modules define. Whoever builds one calls what
# it names. A network, which weights from elsewhere bring along, opens no file; the most that the
# rest of a run does is to read files as images, and as the weights of a teacher.
_NETWORK = ('adm_jax.models', 'adm_jax.networks', 'adm_jax.process.diffusion',
            'adm_jax.process.schedules')
_TASK = (*_NETWORK, 'adm_jax.process.losses', 'adm_jax.training.tasks',
         'adm_jax.training.distillation')
_RUN = (*_TASK, 'adm_jax.data', 'adm_jax.process.timestep_samplers',
        'adm_jax.training.evaluations:Evaluation', 'adm_jax.training.grids:Grid',
        'adm_jax.training.loop:Run', 'adm_jax.training.state:adamw')

VERSION = 2  # of what is written; texts of before have none, and are brought up to date
_VERSION, _NAME = '$version', '$name'

# Modules as they were called in version 1 -> as they are now.
_MOVED = {
    'adm_jax.data.pipeline': 'adm_jax.data.loading',
    **{f'adm_jax.{name}': f'adm_jax.process.{name}'
       for name in ('diffusion', 'losses', 'schedules', 'timestep_samplers')}}
# Functions and classes that have another name.
_RENAMED = {'adm_jax.data.images:images': 'adm_jax.data.open:open_source',
            'adm_jax.data.npz:Npz': 'adm_jax.data.npz_file:NpzFile'}
_TASKS, _NETWORKS = 'adm_jax.training.tasks', 'adm_jax.networks'
# Arguments that came later, with the values that were in effect: by function. They are added to
# texts of every version, so that a new one needs no version of its own.
_ADDED: dict[str, dict[str, Any]] = {
    'adm_jax.models.unet:UNet': {'takes_scale': False},
    'adm_jax.networks:Network': {'scales': None, 'steps': None},
    'adm_jax.training.distillation:consistency': {'power': 1.0},
    'adm_jax.training.grids:Grid': {'scale': None},
    'adm_jax.training.state:adamw': {'decay_after_step': False},
    'adm_jax.training.loop:Run': {
        'validation': None, 'validate_every': 0,
        'loader': {'fn': {_NAME: 'adm_jax.data.loading:Loader'}, 'flip': False, 'num_threads': 1,
                   'num_workers': 0, 'max_unreadable': 0.01}},
    'adm_jax.process.diffusion:Diffusion': {
        'mean': {'fn': {_NAME: 'adm_jax.process.diffusion:Eps'}},
        'variance': {'fn': {_NAME: 'adm_jax.process.diffusion:LearnedRange'}}}}


def to_json(config: ConfigDict) -> str:
  """Text that `from_json` turns back into an equal config; the same text for equal configs.

  Paths become text.

  Raises:
    UsageError: it holds what is neither a call, a function, a number nor text.
  """
  return json.dumps({_VERSION: VERSION, **_plain(config)}, indent=1, sort_keys=True,
                    default=_refused)


def from_json(text: str) -> ConfigDict:
  """Reads what `to_json` wrote. Only functions of this project are looked up.

  Raises:
    UsageError: it is damaged, or names other functions.
  """
  with _damage():
    return _restore(_parsed(text), _RUN)


def network(text: str) -> ConfigDict:
  """Reads the part of what `to_json` wrote that describes the network, and nothing else.

  The rest may name functions of anyone's.

  Raises:
    UsageError: it has none, is damaged, or names functions that no network needs.
  """
  with _damage():
    tree = _parsed(text)
    for node in (tree, tree.get('task')):
      if isinstance(node, dict) and 'network' in node:
        return _restore(node['network'], _NETWORK)
  raise UsageError('the config describes no network: it has neither network nor task.network')


def ema_rates(text: str) -> tuple[float, ...]:
  """Reads which averages a run keeps; () of a config that is of no run.

  Raises:
    UsageError: it is damaged.
  """
  rates = _parsed(text).get('ema_rates', [])
  if not isinstance(rates, list) or not all(isinstance(rate, float) for rate in rates):
    raise UsageError(f'ema_rates are fractions, not {one_line(rates, 60)}')
  return tuple(rates)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
  """Turns what looking up a damaged config raises into one line."""
  try:
    yield
  except UsageError:
    raise
  # What is not there, of another kind, nested too deeply, or no key.
  except (ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
    raise UsageError(f'the stored config is damaged ({type(error).__name__}: {one_line(error)})'
                     ) from error


def build(node: Any) -> Any:
  """Does `config.build` of a part of what `from_json` returned.

  Raises:
    UsageError: its functions cannot take its values.
  """
  try:
    return config_lib.build(node)
  except UsageError:
    raise
  except Exception as error:  # whatever a function raises that is given what it is not for
    raise UsageError(f'the stored config cannot be built ({type(error).__name__}: '
                     f'{one_line(error)})') from error


def differences(old: str, new: str, ignore: tuple[str, ...] = ()) -> list[str]:
  """What two configs, as JSON, disagree on: 'batch_size: 64 before, 128 now', one key each.

  Keys in `ignore`, and all below them, may differ.

  Names are compared as text and never looked up, so that they may be of anyone's modules.
  """
  with _damage():
    before, after = (dict(_flat(_parsed(text))) for text in (old, new))
  keys = sorted(key for key in {*before, *after}
                if not any(f'{key}.'.startswith(f'{ignored}.') for ignored in ignore))
  absent = '(absent)'
  return [f'{key}: {before.get(key, absent)} before, {after.get(key, absent)} now' for key in keys
          if before.get(key, absent) != after.get(key, absent)]


def _parsed(text: str) -> Any:
  """The JSON of a text, brought up to date and without its version."""
  tree = json_files.parse(text, 'the stored config')
  if not isinstance(tree, dict):
    raise UsageError(f'the stored config is {type(tree).__name__}, and no object')
  version = tree.pop(_VERSION, 1)
  if version not in (1, VERSION):
    raise UsageError(f'the stored config is of version {version}, and this program reads up to '
                     f'{VERSION}: use a newer one')
  return _with_added(_of_today(tree) if version == 1 else tree)


def _of_today(node: Any) -> Any:
  """A part of a version 1 config as it would be written now."""
  if isinstance(node, list):
    return [_of_today(item) for item in node]
  if not isinstance(node, dict):
    return node
  if _NAME in node:
    return {_NAME: _renamed(node[_NAME])}
  node = {key: _of_today(value) for key, value in node.items()}
  name = _function_of(node)
  if name.startswith(f'{_TASKS}:') and {'model', 'diffusion'} <= node.keys():
    node = _task_of_today(name, node)
  return node


def _with_added(node: Any) -> Any:
  """A part of a config with the arguments that have come since it was written."""
  if isinstance(node, list):
    return [_with_added(item) for item in node]
  if not isinstance(node, dict):
    return node
  node = {key: _with_added(value) for key, value in node.items()}
  return {**_ADDED.get(_function_of(node), {}), **node}


def _function_of(node: dict) -> str:
  """The name of the function whose call a part of a config is, or ''."""
  function = node.get('fn')
  name = function.get(_NAME, '') if isinstance(function, dict) else ''
  return name if isinstance(name, str) else ''


def _renamed(name: Any) -> Any:
  if not isinstance(name, str):
    return name
  if name in _RENAMED:
    return _RENAMED[name]
  module, _, path = name.partition(':')
  return f'{_MOVED.get(module, module)}:{path}'


def _task_of_today(name: str, node: dict) -> dict:
  """A task that held a model and its process, as one that holds a network."""
  kind = name.removeprefix(f'{_TASKS}:')
  node = dict(node)
  network = {'module': node.pop('model'), 'diffusion': node.pop('diffusion')}
  if kind == 'diffusion':
    network |= {'with_null_label': bool(node.get('label_dropout'))}
  elif kind == 'superres':
    network |= {'low_res_size': node.pop('low_res_size')}
    node |= {'label_dropout': 0.0}
  maker = {'diffusion': 'unet', 'superres': 'superres', 'classifier': 'classifier'}.get(kind)
  task = 'classifier' if kind == 'classifier' else 'diffusion'
  return {**node, 'fn': {_NAME: f'{_TASKS}:{task}'},
          'network': {'fn': {_NAME: f'{_NETWORKS}:{maker}'}, **network}}


def _flat(node: dict, prefix: str = ''):
  for key, value in node.items():
    if isinstance(value, dict) and _NAME not in value:
      yield from _flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value[_NAME] if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
  if isinstance(value, ConfigDict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if callable(value):
    return {_NAME: name_of(value)}
  return str(value) if isinstance(value, pathlib.PurePath) else value


def _refused(value: Any) -> None:
  raise UsageError(f'the config holds {one_line(value, 60)}, of the type {type(value).__name__}, '
                   'which cannot be stored: write it as a call, call(FUNCTION, ...), or as numbers '
                   'and text')


def _restore(value: Any, trusted: tuple[str, ...]) -> Any:
  if isinstance(value, dict):
    if _NAME in value:
      return _look_up(value[_NAME], trusted)
    config = ConfigDict(convert_dict=False)
    for key, item in value.items():
      config[key] = _restore(item, _within(key, trusted))
    return config
  if isinstance(value, list):
    return tuple(_restore(item, trusted) for item in value)
  return value


def _within(key: str, trusted: tuple[str, ...]) -> tuple[str, ...]:
  """What the part under a key may name, where all around it may name `trusted`."""
  if key == 'network' or trusted is _NETWORK:
    return _NETWORK
  return _TASK if key == 'task' else trusted


def is_trusted(text: str) -> bool:
  """Whether all functions that a stored config names may be looked up again."""
  def names(node: Any, trusted: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    if isinstance(node, dict) and _NAME in node:
      yield node[_NAME], trusted
    elif isinstance(node, dict):
      for key, value in node.items():
        yield from names(value, _within(key, trusted))
    elif isinstance(node, list):
      for value in node:
        yield from names(value, trusted)
  return all(_may_be_named(name, trusted) for name, trusted in names(_parsed(text), _RUN))


def _may_be_named(name: Any, trusted: tuple[str, ...]) -> bool:
  return (isinstance(name, str) and not name.partition(':')[2].startswith('_')
          and any(name == known or name.startswith((f'{known}:', f'{known}.'))
                  for known in trusted))


def _look_up(name: Any, trusted: tuple[str, ...]) -> Any:
  value = None
  if _may_be_named(name, trusted):
    module, _, path = name.partition(':')
    value = getattr(importlib.import_module(module), path, None)
  # Defined there, not merely imported there.
  if not callable(value) or getattr(value, '__module__', None) != module:
    raise UsageError(f'the stored config names {one_line(name, 100)}, which is not one of the '
                     'functions that a stored config may name there: give the config that it was '
                     'made from')
  return value
