"""Show a config: every override that `adm train --config NAME` takes, with its value, explained.

`adm config` alone lists the configs that come with the package.

examples:
  adm config folder
  adm config folder --config.size=tiny
  adm config my_config.py
"""

import argparse
import ast
import importlib
import inspect
import pathlib
import re
import shutil
import textwrap
from typing import Any, Callable, Iterator

_INDENT = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('name', nargs='?', metavar='NAME|FILE.py', help='of which config')


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
  from adm_jax import config as config_lib
  from adm_jax.errors import UsageError

  if arguments.name is None:
    if overrides:
      raise UsageError(f'{overrides[0]} is of one config: give its name')
    _list(config_lib.packaged())
    return 0
  config = config_lib.load(arguments.name, overrides)
  get_config = config_lib.function(arguments.name)
  explained_calls = list(explanations(config))  # or a mistake, before anything is printed
  print(f'{_summary(config_lib.find(arguments.name))}\n\n'
        f'adm train --config {arguments.name} --workdir DIR, and what is to be otherwise of:')
  given = {word.removeprefix('--config.').partition('=')[0]: word.partition('=')[2]
           for word in overrides}
  explained = arguments_of(get_config)
  for name, default in config_lib.choices_of(get_config).items():
    _show(name, given.get(name, default), explained.get(name, ''))
  for key, value, text in explained_calls:
    _show(key, value, text) if text is not None else print(f'\n{key or "run"}: {value}')
  return 0


def explanations(config: Any, prefix: str = '') -> Iterator[tuple[str, Any, str | None]]:
  """Yields (key, value, what it is) of every override of a config, from its functions' docstrings.

  Before those of a call, (key of the call, name of the function, None).
  """
  from adm_jax import config as config_lib

  config_lib.function_parameters(config)  # of what says no function there is nothing to explain
  function = config[config_lib.FN]
  explained, calls = arguments_of(function), []
  yield prefix.removesuffix('.'), config_lib.name_of(function), None
  for name, value in config.items():
    if isinstance(value, config_lib.ConfigDict):
      calls.append((name, value))
    elif name != config_lib.FN:
      yield f'{prefix}{name}', value, explained.get(name, '')
  for name, value in calls:
    yield from explanations(value, f'{prefix}{name}.')


def arguments_of(function: Callable) -> dict[str, str]:
  """Reads {argument: what it is} off the docstring of a function or a class.

  Its sections Args and Attributes count; an entry `others: as in `MODULE.NAME`` means those of a
  class of a module beside it.
  """
  found, names = {}, []
  inside = False
  for line in (inspect.getdoc(function) or '').splitlines():
    if re.fullmatch('(Args|Attributes):', line):
      inside = True
    elif line and not line.startswith(' '):
      inside = False
    elif entry := inside and re.match(r'  (\w[\w, ]*): (.*)', line):
      names = entry[1].split(', ')
      found |= dict.fromkeys(names, entry[2])
    elif inside and line:
      found |= {name: f'{found[name]} {line.strip()}' for name in names}
  others = re.match(r'as in `(\w+)\.(\w+)`', found.pop('others', ''))
  if others:
    room = function.__module__.rpartition('.')[0]
    other = getattr(importlib.import_module(f'{room}.{others[1]}'), others[2])
    found = {**arguments_of(other), **found}
  return found


def _list(packaged: dict[str, pathlib.Path]) -> None:
  for name, path in packaged.items():
    print(f'{name:<26}{_summary(path)}')


def _summary(path: pathlib.Path) -> str:
  """The first line of a file's docstring."""
  return (ast.get_docstring(ast.parse(path.read_text())) or '').partition('\n')[0]


def _show(key: str, value: Any, text: str) -> None:
  if callable(value):
    from adm_jax.config import name_of
    print(f'{key}: {name_of(value)} (another function: in a config file of your own)')
    return
  words = f'{value:g}' if isinstance(value, float) else f'{value}' if value != '' else "''"
  print(f'--config.{key}={words}')
  if text:
    print(textwrap.fill(text, min(shutil.get_terminal_size().columns, 100),
                        initial_indent=' ' * _INDENT, subsequent_indent=' ' * _INDENT))
