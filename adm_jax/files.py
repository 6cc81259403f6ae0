"""Files that are whole or absent."""

import contextlib
import os
import pathlib
from typing import Iterator


def folder(path: str | pathlib.Path) -> pathlib.Path:
  """A folder by its path, made absolute, or by an address in a bucket, 'gs://NAME/...'."""
  if '://' not in str(path):
    return pathlib.Path(path).absolute()
  from etils import epath  # Orbax's own paths, which work like pathlib's
  return epath.Path(path)


def is_local(path: pathlib.Path) -> bool:
  return isinstance(path, pathlib.Path) and '://' not in os.fspath(path)


@contextlib.contextmanager
def written_whole(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary path beside `path`; moves it there if the block succeeds.

  Whoever finds `path` finds all of it, whenever the program was killed. An object of a bucket is
  written in place: it appears when it is complete.
  """
  path = pathlib.Path(path) if isinstance(path, str) else path
  if not is_local(path):
    yield path
    return
  temporary = path.with_name(f'.{path.stem}.part{path.suffix}')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
