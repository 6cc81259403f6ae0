"""Configs: calls to make later, written as data.

A config holds the thing itself, not its name: `call(schedules.cosine, num_steps=1000)` is a
`ConfigDict` that `build` turns into `schedules.cosine(num_steps=1000)`. Every argument can be
overridden on the command line (`--config.optimizer.learning_rate=3e-4`); `stored_configs` keeps the
whole with every checkpoint.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import pathlib
import runpy
from typing import Any, Callable, get_args

import ml_collections

from adm_jax.errors import UsageError, one_line

ConfigDict = ml_collections.ConfigDict
FN = 'fn'  # the key of the function among its arguments


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
      raise UsageError(f'{name_of(fn)} has no argument {name!r}{_near(name, parameters)}')
  defaults = {name: _stored_default(parameter.default) for name, parameter in parameters.items()
              if _storable(parameter.default) and name not in ('parent', 'name')}  # linen's own
  config = ConfigDict(convert_dict=False)
  for name, value in {FN: fn, **defaults, **kwargs}.items():
    config[name] = value
  return config


def build(node: Any) -> Any:
  """Makes the calls of a config, innermost first."""
  if isinstance(node, (list, tuple)):
    return type(node)(build(value) for value in node)
  if not isinstance(node, ConfigDict):
    return node
  kwargs = {name: build(value) for name, value in node.items()}
  return kwargs.pop(FN)(**kwargs)


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
    reason = one_line(error)
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
  old, parameter = node[name], inspect.signature(node[FN]).parameters[name]
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


def _near(name: str, known: Any) -> str:
  matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
  return f': did you mean {matches[0]!r}?' if matches else f': it has {", ".join(sorted(known))}'


def name_of(value: Any) -> str:
  """'MODULE:NAME' of a function or class."""
  return f'{value.__module__}:{value.__qualname__}'


def _storable(value: Any) -> bool:
  return (value is None or isinstance(value, (bool, int, float, str, tuple))
          or inspect.isfunction(value) or _is_settings(value))


def _is_settings(value: Any) -> bool:
  """Whether this is a frozen dataclass, which a call with its fields makes again."""
  return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _stored_default(value: Any) -> Any:
  if not _is_settings(value):
    return value
  return call(type(value), **{field.name: _stored_default(getattr(value, field.name))
                              for field in dataclasses.fields(value)})


def _leaves(config: ConfigDict, prefix: str = ''):
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _leaves(value, f'{prefix}{key}.')
    elif key != FN:
      yield f'{prefix}{key}', value
