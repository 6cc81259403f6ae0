"""Locks between processes."""

import contextlib
import fcntl
import logging
import pathlib
from typing import Iterator

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: pathlib.Path, waiting: str) -> Iterator[None]:
  """Holds the lock of the file `path`, which is made where it is absent, and stays.

  The system frees the lock when the process ends, however it ends. Whoever finds it taken says
  `waiting`, and waits.
  """
  with open(path, 'ab') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      _log.warning(waiting)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
