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
_TRUSTED = ('adm_jax.data', 'adm_jax.models', 'adm_jax.process.diffusion',
            'adm_jax.process.losses', 'adm_jax.process.schedules',
            'adm_jax.process.timestep_samplers', 'adm_jax.training.evaluations:Evaluation',
            'adm_jax.training.grids:Grid', 'adm_jax.training.loop:Run',
            'adm_jax.training.state:adamw', 'adm_jax.training.tasks')

# Modules as they were called before 0.2 -> as they are now.
_MOVED = {
    'adm_jax.data.images': 'adm_jax.data.open', 'adm_jax.data.pipeline': 'adm_jax.data.loading',
    **{f'adm_jax.{name}': f'adm_jax.process.{name}'
       for name in ('diffusion', 'losses', 'schedules', 'timestep_samplers')}}


def to_json(config: ConfigDict) -> str:
  """Text that `from_json` turns back into an equal config; the same text for equal configs."""
  return json.dumps(_plain(config), indent=1, sort_keys=True)


def from_json(text: str) -> ConfigDict:
  """Reads what `to_json` wrote. Only functions of this project and its libraries are looked up."""
  return _restore(_parsed(text))


def differences(old: str, new: str, ignore: tuple[str, ...] = ()) -> list[str]:
  """What two configs, as JSON, disagree on: 'batch_size: 64 before, 128 now', a key each.

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
  """The JSON of a text, names brought up to date."""
  try:
    return json.loads(text, object_hook=_renamed)
  except ValueError as error:
    raise UsageError(f'the stored config is cut short or no JSON ({error})') from error


def _renamed(node: dict) -> dict:
  if not isinstance(node.get('$name'), str):
    return node
  module, _, path = node['$name'].partition(':')
  return {'$name': f'{_MOVED.get(module, module)}:{path}'}


def _flat(node: dict, prefix: str = ''):
  for key, value in node.items():
    if isinstance(value, dict) and '$name' not in value:
      yield from _flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value['$name'] if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
  if isinstance(value, ConfigDict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if callable(value):
    return {'$name': name_of(value)}
  return value


def _restore(value: Any) -> Any:
  if isinstance(value, dict):
    if '$name' in value:
      return _look_up(value['$name'])
    config = ConfigDict(convert_dict=False)
    for key, item in value.items():
      config[key] = _restore(item)
    return config
  if isinstance(value, list):
    return tuple(_restore(item) for item in value)
  return value


def _look_up(name: str) -> Any:
  module, _, path = name.partition(':')
  trusted = any(name == known or name.startswith((f'{known}:', f'{known}.')) for known in _TRUSTED)
  value = getattr(importlib.import_module(module), path, None) if trusted else None
  # Defined there, not merely imported there.
  if not callable(value) or getattr(value, '__module__', None) != module:
    raise UsageError(f'the stored config names {name}, which is not one of the functions that a '
                     'stored config may name: give the config that it was made from')
  return value
