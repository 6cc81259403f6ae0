"""Configs as text: what a checkpoint keeps, so that no flag is ever typed twice.

JSON in which functions stand by their names. Only functions of this project that can do no harm are
looked up again, and texts of earlier versions are read under the names of today (`_MOVED`).
"""

import importlib
import json
from typing import Any

from adm_jax.config import ConfigDict, name_of
from adm_jax.errors import UsageError

# A stored config may name only these, or what these modules define. Whoever builds one calls what
# it names: the most that any of them does is to read files as images.
_TRUSTED = ('adm_jax.data', 'adm_jax.models', 'adm_jax.networks',
            'adm_jax.process.diffusion',
            'adm_jax.process.losses', 'adm_jax.process.schedules',
            'adm_jax.process.timestep_samplers', 'adm_jax.training.evaluations:Evaluation',
            'adm_jax.training.grids:Grid', 'adm_jax.training.loop:Run',
            'adm_jax.training.state:adamw', 'adm_jax.training.tasks')

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
    'adm_jax.training.state:adamw': {'decay_after_step': False},
    'adm_jax.training.loop:Run': {
        'validation': None, 'validate_every': 0,
        'loader': {'fn': {_NAME: 'adm_jax.data.loading:Loader'}, 'flip': False, 'num_threads': 1,
                   'num_workers': 0, 'max_unreadable': 0.01}},
    'adm_jax.process.diffusion:Diffusion': {
        'mean': {'fn': {_NAME: 'adm_jax.process.diffusion:Eps'}},
        'variance': {'fn': {_NAME: 'adm_jax.process.diffusion:LearnedRange'}}}}


def to_json(config: ConfigDict) -> str:
  """Text that `from_json` turns back into an equal config; the same text for equal configs."""
  return json.dumps({_VERSION: VERSION, **_plain(config)}, indent=1, sort_keys=True)


def from_json(text: str) -> ConfigDict:
  """Reads what `to_json` wrote. Only functions of this project and its libraries are looked up."""
  return _restore(_parsed(text))


def differences(old: str, new: str, ignore: tuple[str, ...] = ()) -> list[str]:
  """What two configs, as JSON, disagree on: 'batch_size: 64 before, 128 now', one key each.

  Keys in `ignore`, and all below them, may differ.

  Names are compared as text and never looked up, so that they may be of anyone's modules.
  """
  before, after = (dict(_flat(_parsed(text))) for text in (old, new))
  keys = sorted(key for key in {*before, *after}
                if not any(f'{key}.'.startswith(f'{ignored}.') for ignored in ignore))
  absent = '(absent)'
  return [f'{key}: {before.get(key, absent)} before, {after.get(key, absent)} now' for key in keys
          if before.get(key, absent) != after.get(key, absent)]


def _parsed(text: str) -> Any:
  """The JSON of a text, brought up to date and without its version."""
  try:
    tree = json.loads(text)
  except ValueError as error:
    raise UsageError(f'the stored config is cut short or no JSON ({error})') from error
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
  return value


def _restore(value: Any) -> Any:
  if isinstance(value, dict):
    if _NAME in value:
      return _look_up(value[_NAME])
    config = ConfigDict(convert_dict=False)
    for key, item in value.items():
      config[key] = _restore(item)
    return config
  if isinstance(value, list):
    return tuple(_restore(item) for item in value)
  return value


def is_trusted(text: str) -> bool:
  """Whether all functions that a stored config names may be looked up again."""
  def names(node):
    if isinstance(node, dict):
      yield from [node[_NAME]] if _NAME in node else (
          name for value in node.values() for name in names(value))
    elif isinstance(node, list):
      yield from (name for value in node for name in names(value))
  return all(map(_may_be_named, names(_parsed(text))))


def _may_be_named(name: str) -> bool:
  return any(name == known or name.startswith((f'{known}:', f'{known}.')) for known in _TRUSTED)


def _look_up(name: str) -> Any:
  module, _, path = name.partition(':')
  value = getattr(importlib.import_module(module), path, None) if _may_be_named(name) else None
  # Defined there, not merely imported there.
  if not callable(value) or getattr(value, '__module__', None) != module:
    raise UsageError(f'the stored config names {name}, which is not one of the functions that a '
                     'stored config may name: give the config that it was made from')
  return value
