"""Locks between processes, which the system frees when one ends, however it ends."""

import contextlib
import fcntl
import logging
import pathlib
from typing import IO, Iterator

from adm_jax.errors import UsageError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: pathlib.Path, waiting: str) -> Iterator[None]:
  """Holds the lock of the file `path`, which is made where it is absent, and stays.

  Whoever finds it taken says `waiting`, and waits.
  """
  with open(path, 'ab') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      _log.warning(waiting)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def take(file: IO | int, refusal: str, shared: bool = False) -> None:
  """Takes the lock of an open file or folder, which is freed when that is closed.

  On a file system without locks nothing is taken. A `shared` lock keeps out only those who want it
  for themselves.

  Raises:
    UsageError: `refusal`; another process has it.
  """
  try:
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise UsageError(refusal) from error
  except OSError:
    pass
