"""What the processes of a job say of themselves, each in a small file of its own.

    FOLDER/hosts/INDEX-of-COUNT.json

A process writes its file again every few seconds. Whoever reads one that is older than `SECONDS`
takes its process to be gone. Clocks of hosts may differ by less than that: where they do not, work
is done twice, and nothing breaks.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import socket
import threading
import time
from typing import Any

from adm_jax.errors import UsageError
from adm_jax.io import files, json_files
from adm_jax.io.files import written_whole
from adm_jax.io.parts import Part

FOLDER = 'hosts'
SECONDS = int(os.environ.get('ADM_HEARTBEAT_SECONDS', 30))
_BEATS = 6  # in that time


@dataclasses.dataclass(frozen=True)
class Beat:
  """What one process said last.

  Attributes:
    index: of its part.
    count: how many parts there were.
    host: the name of its machine.
    process: its id there.
    made: how many images it has made.
    rate: of them per second, since its first batch.
    making: [begin, end) of the images that it is at, or has not stored yet; None: it is at none.
    begun: when it started, in seconds since 1970 by its own clock.
    seen: when it said so.
    ended: whether it was its last word.
  """
  index: int
  count: int
  host: str = ''
  process: int = 0
  made: int = 0
  rate: float = 0.0
  making: tuple[int, int] | None = None
  begun: float = 0.0
  seen: float = 0.0
  ended: bool = False

  @property
  def age(self) -> float:
    """Seconds since it was seen."""
    return max(0.0, time.time() - self.seen)

  @property
  def alive(self) -> bool:
    return not self.ended and self.age < SECONDS


def read(folder: pathlib.Path) -> list[Beat]:
  """What all processes of a job in `folder` said last, by their parts.

  A file that is being written, or that nobody can read, is passed over.
  """
  found = []
  for path in files.listed(folder / FOLDER):
    if not re.fullmatch(r'\d+-of-\d+\.json', path.name):
      continue
    try:
      words: dict[str, Any] = json_files.read(path)
      making = words.pop('making')
      found.append(Beat(**words, making=None if making is None else (int(making[0]),
                                                                    int(making[1]))))
    except (UsageError, OSError, TypeError, KeyError, ValueError, IndexError, AttributeError):
      continue
  return sorted(found, key=lambda beat: (beat.count, beat.index))


class Heart:
  """Says every few seconds what a process of a job is at; use it as a context."""

  def __init__(self, folder: pathlib.Path, part: Part):
    self._folder, self._part = folder, part
    self._path = folder / FOLDER / f'{part.index}-of-{part.count}.json'
    self._beat = Beat(part.index, part.count, socket.gethostname(), os.getpid(), begun=time.time())
    self._first, self._since = 0, time.monotonic()
    self._write_lock, self._stop = threading.Lock(), threading.Event()
    self._others: tuple[float, list[Beat]] = (-float('inf'), [])
    self._finished = False

  def __enter__(self) -> 'Heart':
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._write()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()
    return self

  def __exit__(self, kind, error, traceback) -> None:
    self._stop.set()
    self._thread.join()
    if not self._finished:
      self.say(making=None, ended=True)
      return
    with contextlib.suppress(OSError if files.is_local(self._path) else Exception):
      self._path.unlink()
      if files.is_local(self._path):
        self._path.parent.rmdir()  # unless others are there

  def finished(self) -> None:
    """The job is finished: nothing needs to be said of this process when it ends."""
    self._finished = True

  def say(self, **changes: Any) -> None:
    """Says what has changed; the attributes of a `Beat`."""
    self._beat = dataclasses.replace(self._beat, **changes)
    self._write()

  def made(self, count: int) -> None:
    """So many more images are made; said with the next word."""
    made, now = self._beat.made + count, time.monotonic()
    if not self._beat.made:  # its time was that of compiling
      self._first, self._since = count, now
    rate = (made - self._first) / (now - self._since) if made > self._first else 0.0
    self._beat = dataclasses.replace(self._beat, made=made, rate=rate)

  def others(self, most_age: float = 0.0) -> list[Beat]:
    """What the other processes said, as it was at most so many seconds ago."""
    if time.monotonic() - self._others[0] >= most_age:
      self._others = time.monotonic(), [
          beat for beat in read(self._folder)
          if (beat.index, beat.count) != (self._part.index, self._part.count)]
    return self._others[1]

  def _run(self) -> None:
    while not self._stop.wait(SECONDS / _BEATS):
      self._write()

  def _write(self) -> None:
    # A disk that is full, or a bucket that does not answer, is told by what writes images.
    with self._write_lock:
      self._beat = dataclasses.replace(self._beat, seen=time.time())
      # Of a bucket's errors many are no OSError, and one of them must not end the thread.
      with contextlib.suppress(OSError if files.is_local(self._path) else Exception):
        with written_whole(self._path, sync=False) as part:
          part.write_text(json.dumps(dataclasses.asdict(self._beat)))


def forget(folder: pathlib.Path) -> None:
  """Removes what all have said, once the job is finished."""
  files.remove_tree(folder / FOLDER)
