"""Configs: calls to make later, written as data.

A config holds the thing itself, not its name: `call(schedules.cosine, num_steps=1000)` is a
`ConfigDict` that `build` turns into `schedules.cosine(num_steps=1000)`. Every argument can be
overridden on the command line (`--config.optimizer.learning_rate=3e-4`); `stored_configs` keeps the
whole with every checkpoint.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import importlib.resources
import inspect
import pathlib
import runpy
from typing import Any, Callable, Iterator, Mapping, Sequence, get_args

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
  """Makes the calls of a config, innermost first.

  Raises:
    UsageError: a part of it says no function, not all that its function needs, or more.
  """
  if isinstance(node, (list, tuple)):
    return type(node)(build(value) for value in node)
  if not isinstance(node, ConfigDict):
    return node
  parameters = function_parameters(node)
  for name in node:
    if name != FN and name not in parameters:
      raise UsageError(f'{name_of(node[FN])} has no argument {name!r}{_near(name, parameters)}')
  missing = [name for name, parameter in parameters.items()
             if parameter.default is parameter.empty and name not in node
             and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]
  if missing:
    raise UsageError(f'{name_of(node[FN])} cannot be built without {", ".join(missing)}: give '
                     f'{"it" if len(missing) == 1 else "them"} to its call in the config')
  kwargs = {name: build(value) for name, value in node.items()}
  return kwargs.pop(FN)(**kwargs)


def function_parameters(node: ConfigDict) -> Mapping[str, inspect.Parameter]:
  """Returns the parameters of the function that a part of a config calls.

  Raises:
    UsageError: it says no function.
  """
  if FN not in node:
    words = ', '.join(['FUNCTION', *(f'{name}=...' for name in node)])
    raise UsageError('a part of the config cannot be built, for it says no function: write '
                     f'call({words})')
  return inspect.signature(node[FN]).parameters


def load(name: str | pathlib.Path, arguments: Sequence[str] = ()) -> ConfigDict:
  """The config that a Python file returns from `get_config()`, with overrides applied.

  Args:
    name: the path of the file, or the name of a config of this package (`packaged`).
    arguments: overrides, see `override`. Those of what `get_config` itself takes are passed to it:
      `--config.size=tiny` is `get_config(size='tiny')`.

  Raises:
    UsageError: no such config, one that cannot be run, or an override that does not fit.
  """
  get_config = function(name)
  choices = choices_of(get_config)
  own = [word for word in arguments if _key(word) in choices]
  given = {_key(word): _parsed_choice(word, choices) for word in own}
  with _running(name):
    config = get_config(**given)
  if not isinstance(config, ConfigDict):
    raise UsageError(_no_config(name))
  return override(config, [word for word in arguments if word not in own], choices)


def function(name: str | pathlib.Path) -> Callable[..., ConfigDict]:
  """Returns the `get_config` of a config; `name` as in `load`."""
  path = find(name)
  with _running(name):
    get_config = runpy.run_path(str(path)).get('get_config')
  if not callable(get_config):
    raise UsageError(_no_config(name))
  return get_config


def find(name: str | pathlib.Path) -> pathlib.Path:
  """Returns the path of a config file that is given by its path, or by its name if it is packaged.

  Raises:
    UsageError: there is none, with the nearest names.
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  known = packaged()
  if str(name) in known:
    return known[str(name)]
  if path.stem in known:  # a path that is right in a clone only
    raise UsageError(f'there is no config file {path}: the one of this package is called '
                     f'{path.stem}')
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  raise UsageError(f'there is no config {name}: give the path of a file, or a name of adm config'
                   + (f', as {" or ".join(near)}' if near else ''))


def packaged() -> dict[str, pathlib.Path]:
  """{name: path} of the configs that come with this package."""
  folder = pathlib.Path(str(importlib.resources.files('adm_jax.configs')))
  return {path.stem: path for path in sorted(folder.glob('*.py')) if path.stem != '__init__'}


def choices_of(get_config: Callable) -> dict[str, Any]:
  """{name: default} of what a `get_config` takes itself."""
  return {parameter.name: parameter.default
          for parameter in inspect.signature(get_config).parameters.values()
          if parameter.default is not parameter.empty}


@contextlib.contextmanager
def _running(name: str | pathlib.Path) -> Iterator[None]:
  """Turns what a user's file raises into one line."""
  try:
    yield
  except UsageError:
    raise
  except Exception as error:
    reason = one_line(error)
    raise UsageError(f'{name} cannot be run: {type(error).__name__}: {reason}') from error


def _no_config(name: str | pathlib.Path) -> str:
  return (f'{name} defines no get_config() that returns a config: adm config digits_unet shows one '
          'that does')


def _key(word: str) -> str:
  return word.removeprefix('--config.').partition('=')[0] if word.startswith('--config.') else ''


def _parsed_choice(word: str, choices: dict[str, Any]) -> Any:
  text, default = word.partition('=')[2], choices[_key(word)]
  value = _literal(text)
  if isinstance(default, float) and type(value) is int:
    value = float(value)
  if isinstance(default, str):
    value = text
  if default is not None and type(value) is not type(default):
    raise UsageError(f'{_key(word)}={text} is not of the right type, {type(default).__name__}')
  return value


def override(config: ConfigDict, arguments: Sequence[str],
             choices: Sequence[str] = ()) -> ConfigDict:
  """Applies `--config.x.y=value` words, and returns the changed copy.

  Values are Python literals (`3`, `(1, 2)`, `None`, bare words for text), of the type of what they
  replace; whole numbers pass for fractions, and a key that is or defaults to None takes any.

  Args:
    config: it stays as it is.
    arguments: the words.
    choices: other keys, which the one who wrote a word wrong may have meant.

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
      raise UsageError(f'the config has no {key!r}{_near(key, [*known, *choices])}')
    *path, name = key.split('.')
    node = functools.reduce(ConfigDict.__getitem__, path, config)
    with node.ignore_type():
      node[name] = _parse(text, node, name)
  return config


def _parse(text: str, node: ConfigDict, name: str) -> Any:
  """The value that `text` means for the key `name` of a call."""
  old, parameter = node[name], function_parameters(node)[name]
  value = _literal(text)
  if isinstance(old, float) and type(value) is int:
    value = float(value)
  if isinstance(old, str) and value is not None and not isinstance(value, str):
    value = text  # a respacing of 25 or of 10,10 is text
  if isinstance(old, pathlib.PurePath):
    value = type(old)(text)
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


def _literal(text: str) -> Any:
  """A Python literal, or bare words."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return {'true': True, 'false': False}.get(text.lower(), text)


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
