"""Functions that are chosen by name: some that are offered, or somebody's own.

Their options are their parameters that have defaults.
"""

import difflib
import functools
import inspect
from typing import Any, Callable, Mapping

from adm_jax.errors import UsageError
from adm_jax.io import functions

Offered = Mapping[str, Callable]  # by name


def find(kind: str, name: str, offered: Offered) -> Callable:
  """Finds the function called `name`, which is one of `offered` or FILE.py:FUNCTION.

  Raises:
    UsageError: there is none; with the nearest names, and all of them.
  """
  if functions.is_own(name):
    return functions.guarded(functions.load(name), name)
  if name not in offered:
    near = difflib.get_close_matches(name, offered, n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(near)}? ' if near else ''
    raise UsageError(f'there is no {kind} {name!r}: {hint}give {", ".join(offered)} or '
                     'FILE.py:FUNCTION')
  return offered[name]


def chosen(kind: str, name: str, offered: Offered, given: Mapping[str, Any]) -> Callable:
  """Finds a function as `find` does, and binds the options `given`.

  Raises:
    UsageError: also if it has no such option; with those that have it.
  """
  function = find(kind, name, offered)
  for option in given:
    if option not in options(function):
      owners = having(option, offered)
      raise UsageError(f'{option} belongs to {" and ".join(owners)}, not to {name}' if owners
                       else f'{kind} {name} has no option {option}')
  return functools.partial(function, **given) if given else function


def options(function: Callable) -> list[str]:
  """Names a function's options."""
  parameters = inspect.signature(function).parameters.values()
  return [parameter.name for parameter in parameters
          if parameter.default is not inspect.Parameter.empty]


def having(option: str, offered: Offered) -> list[str]:
  """Names those that have an option."""
  return [name for name, function in offered.items() if option in options(function)]
