"""Configs: calls to make later, written as data.

A config holds the thing itself, not its name: `call(schedules.cosine, num_steps=1000)` is a
`ConfigDict` that `build` turns into `schedules.cosine(num_steps=1000)`. Every argument can be
overridden on the command line (`--config.optimizer.learning_rate=3e-4`), and the whole is stored
with every checkpoint as JSON, functions by their names.
"""

import ast
import difflib
import functools
import importlib
import inspect
import json
import pathlib
import runpy
from typing import Any, Callable, get_args

import ml_collections

from adm_jax.errors import UsageError

ConfigDict = ml_collections.ConfigDict
_FN = 'fn'
# A stored config may name only these, or what these modules define. Whoever builds one calls what
# it names: the most that any of them does is to read files as images.
_TRUSTED = ('adm_jax.data', 'adm_jax.diffusion', 'adm_jax.losses', 'adm_jax.models',
            'adm_jax.schedules', 'adm_jax.timestep_samplers', 'adm_jax.training.grids:Grid',
            'adm_jax.training.evaluations:Evaluation',
            'adm_jax.training.loop:Run',
            'adm_jax.training.state:adamw', 'adm_jax.training.tasks')


def call(fn: Callable, **kwargs: Any) -> ConfigDict:
  """A call to make later: `build(call(f, a=1))` is `f(a=1)`.

  Arguments that are not given are filled in with `fn`'s own defaults, so that they are visible,
  overridable and part of what a checkpoint stores.

  Raises:
    UsageError: `fn` has no such argument.
  """
  parameters = inspect.signature(fn).parameters
  for name in kwargs:
    if name not in parameters:
      raise UsageError(f'{_name(fn)} has no argument {name!r}{_near(name, parameters)}')
  defaults = {name: parameter.default for name, parameter in parameters.items()
              if parameter.default is not inspect.Parameter.empty and _storable(parameter.default)
              and name not in ('parent', 'name')}  # linen's own
  config = ConfigDict(convert_dict=False)
  for name, value in {_FN: fn, **defaults, **kwargs}.items():
    config[name] = value
  return config


def build(node: Any) -> Any:
  """Makes the calls of a config, innermost first."""
  if isinstance(node, (list, tuple)):
    return type(node)(build(value) for value in node)
  if not isinstance(node, ConfigDict):
    return node
  kwargs = {name: build(value) for name, value in node.items()}
  return kwargs.pop(_FN)(**kwargs)


def load(path: str | pathlib.Path) -> ConfigDict:
  """The config that the Python file at `path` returns from `get_config()`."""
  if not pathlib.Path(path).is_file():
    raise UsageError(f'there is no config file {path}: give the path of a file like '
                     'configs/digits_unet.py')
  try:
    namespace = runpy.run_path(str(path))
    config = namespace['get_config']() if 'get_config' in namespace else None
  except UsageError:
    raise
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise UsageError(f'{path} cannot be run: {type(error).__name__}: {reason}') from error
  if not isinstance(config, ConfigDict):
    raise UsageError(f'{path} defines no get_config() that returns a config: see '
                     'configs/digits_unet.py')
  return config


def override(config: ConfigDict, arguments: list[str]) -> ConfigDict:
  """Applies `--config.x.y=value` words, and returns the changed copy.

  Values are Python literals (`3`, `(1, 2)`, `None`, bare words for text), of the type of what they
  replace; whole numbers pass for fractions, and a key that is or defaults to None takes any.

  Raises:
    UsageError: an unknown key, with the nearest one, or a value of the wrong type.
  """
  config = config.copy_and_resolve_references()
  known = dict(_leaves(config))
  for word in arguments:
    key, equals, text = word.removeprefix('--config.').partition('=')
    if not word.startswith('--config.') or not equals:
      raise UsageError(f'{word!r} is not understood: overrides are written --config.key=value')
    if key not in known:
      raise UsageError(f'the config has no {key!r}{_near(key, known)}')
    *path, name = key.split('.')
    node = functools.reduce(ConfigDict.__getitem__, path, config)
    with node.ignore_type():
      node[name] = _parse(text, node, name)
  return config


def _parse(text: str, node: ConfigDict, name: str) -> Any:
  """The value that `text` means for the key `name` of a call."""
  old, parameter = node[name], inspect.signature(node[_FN]).parameters[name]
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = {'true': True, 'false': False}.get(text.lower(), text)
  if isinstance(old, float) and type(value) is int:
    value = float(value)
  if isinstance(old, tuple) and isinstance(value, (int, float)):
    value = (value,)
  may_be_none = type(None) in get_args(parameter.annotation)
  if old is None or parameter.default is None or (value is None and may_be_none):
    if _fits(value, parameter.annotation):
      return value
  elif type(value) is type(old) and not (
      isinstance(value, tuple) and any(isinstance(item, str) for item in value)):
    return value
  kind = (parameter.annotation if old is None else type(old).__name__)
  raise UsageError(f'{name}={text} is not of the right type, {kind}: it replaces {old!r}')


def _fits(value: Any, annotation: Any) -> bool:
  """Whether a value may stand where the annotation does; what cannot be checked may."""
  if value is not None and annotation == float | None and type(value) is int:
    return True
  try:
    return isinstance(value, annotation) and not isinstance(value, bool)
  except TypeError:
    return True


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
  try:
    return json.loads(text)
  except ValueError as error:
    raise UsageError(f'the stored config is cut short or no JSON ({error})') from error


def _flat(node: dict, prefix: str = ''):
  for key, value in node.items():
    if isinstance(value, dict) and '$name' not in value:
      yield from _flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value['$name'] if isinstance(value, dict) else value


def _near(name: str, known: Any) -> str:
  matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
  return f': did you mean {matches[0]!r}?' if matches else f': it has {", ".join(sorted(known))}'


def _name(value: Any) -> str:
  return f'{value.__module__}:{value.__qualname__}'


def _storable(value: Any) -> bool:
  return (value is None or isinstance(value, (bool, int, float, str, tuple))
          or inspect.isfunction(value))


def _leaves(config: ConfigDict, prefix: str = ''):
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _leaves(value, f'{prefix}{key}.')
    elif key != _FN:
      yield f'{prefix}{key}', value


def _plain(value: Any) -> Any:
  if isinstance(value, ConfigDict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if callable(value):
    return {'$name': _name(value)}
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
