"""Functions of somebody's own, which are named FILE.py:FUNCTION."""

import functools
import pathlib
import runpy
from typing import Callable

from adm_jax.errors import UsageError, one_line
from adm_jax.io import digests


def is_own(name: str) -> bool:
  """Says whether `name` has the form FILE.py:FUNCTION."""
  return _parts(name)[0].suffix == '.py'


def load(name: str) -> Callable:
  """Runs the file, and returns the function that FILE.py:FUNCTION names.

  Raises:
    UsageError: there is no such file or function, or the file cannot be run.
  """
  path, function = _parts(name)
  if not path.is_file():
    raise UsageError(f'there is no file {path}: give FILE.py:FUNCTION')
  try:
    found = runpy.run_path(str(path)).get(function)
  except Exception as error:
    raise UsageError(f'{path} cannot be run: {type(error).__name__}: {one_line(error)}') from error
  if not callable(found):
    raise UsageError(f'{path} has no function {function!r}')
  return found


def guarded(function: Callable, name: str) -> Callable:
  """Wraps a function of a user's, so that what it raises is a UsageError that says `name`."""
  @functools.wraps(function)
  def call(*args, **kwargs):
    try:
      return function(*args, **kwargs)
    except UsageError:
      raise
    except Exception as error:
      raise UsageError(f'{name} fails: {type(error).__name__}: {one_line(error)}') from error
  return call


def fingerprint(name: str) -> str:
  """Returns a checksum of the file that FILE.py:FUNCTION names."""
  return digests.short(_parts(name)[0].read_bytes())


def described(name: str) -> str:
  """Returns `name`, with a checksum if it is somebody's own, so that a changed file is another."""
  if not is_own(name):
    return name
  return f'{pathlib.Path(name).name} {fingerprint(name)}'


def _parts(name: str) -> tuple[pathlib.Path, str]:
  file, _, function = name.rpartition(':')
  return pathlib.Path(file), function
