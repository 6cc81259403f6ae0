"""One calculation on several processes, which tell each other their parts through a folder.

    with meeting(folder, part, words) as together:
      results = together.map('squares', lambda number: {'square': np.square(number)}, numbers)

No connection between hosts is needed, only a folder that all of them see; a bucket's will do. All
processes do the same calls in the same order. FOLDER/meeting/ holds what they say, and goes with
them.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import time
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from adm_jax.errors import PeerLost, UsageError, one_line
from adm_jax.io import files, heartbeats, json_files, npz
from adm_jax.io.files import written_whole
from adm_jax.io.parts import Part, share

FOLDER = 'meeting'
# How long the others are waited for at the beginning: schedulers start hosts one by one.
SECONDS = int(os.environ.get('ADM_MEETING_SECONDS', 600))
_PAUSE = 0.2  # seconds between looks

Arrays = dict[str, np.ndarray]


class Meeting:
  """Processes that calculate together; made by `meeting`. By default there is one, and no folder.

  Attributes:
    part: which of them this is.
  """

  def __init__(self, folder: pathlib.Path | None = None, part: Part = Part()):
    self.part, self._folder = part, folder

  def gather(self, name: str, arrays: Arrays, *, everyone: bool = True) -> list[Arrays]:
    """What all processes give under this name, in their order.

    Args:
      name: of a file; each is given once.
      arrays: of this process.
      everyone: whether all are to have it; else only the first gets more than [].

    Raises:
      PeerLost: another process has gone.
      UsageError: another process has failed.
    """
    if self.part.whole:
      return [arrays]
    self.give(name, arrays)
    if not everyone and not self.part.first:
      return []
    return [arrays if index == self.part.index else self.take(name, index)
            for index in range(self.part.count)]

  def give(self, name: str, arrays: Arrays) -> None:
    """Gives what another process may `take`, under a name that it has not used."""
    npz.write(self._path(name, self.part.index), arrays)

  def take(self, name: str, index: int) -> Arrays:
    """What process `index` has given, or will give, under this name; raises as `gather`."""
    path = self._path(name, index)
    _wait(path.exists, lambda: _check(self._folder, self.part, index))
    with path.open('rb') as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as found:
      return dict(found)

  def in_order(self, name: str, function: Callable[[Any], Arrays],
               items: Sequence[Any]) -> Iterator[Arrays]:
    """Yields function(item) of all items to the first process, one at a time; as `map`.

    Other processes make their share, and have nothing yielded.
    """
    if not self.part.first:
      for i in self.part.of(len(items)):
        self.give(f'{name}.{i}', function(items[i]))
      return
    for index in range(self.part.count):
      for i in share(len(items), index, self.part.count):
        yield function(items[i]) if index == 0 else self.take(f'{name}.{i}', index)

  def map(self, name: str, function: Callable[[Any], Arrays], items: Sequence[Any], *,
          everyone: bool = True) -> list[Arrays]:
    """[function(item) for item in items], of which each process makes a share; as `gather`."""
    own = self.part.of(len(items))
    made = [function(items[i]) for i in own]
    if self.part.whole:
      return made
    given = {f'{i}.{key}': array for i, found in zip(own, made) for key, array in found.items()}
    results: list[Arrays] = [{} for _ in items]
    parts = self.gather(name, given, everyone=everyone)
    for part in parts:
      for path, array in part.items():
        place, key = path.split('.', 1)
        results[int(place)][key] = array
    return results if parts else []

  def leave(self) -> None:
    """Waits, in the first process, until nobody needs the folder any more, and removes it."""
    if self.part.whole:
      return
    with contextlib.suppress(UsageError, PeerLost, OSError):
      self.gather('left', {}, everyone=False)
      if self.part.first:
        files.remove_tree(self._folder)

  def fail(self, error: BaseException) -> None:
    """Tells the others that this process goes no further."""
    if not self.part.whole and not isinstance(error, PeerLost):
      with contextlib.suppress(OSError), written_whole(
          self._folder / f'failed.{self.part.index}', sync=False) as part:
        part.write_text(one_line(error))

  def _path(self, name: str, index: int) -> pathlib.Path:
    return self._folder / f'{name}.{index}.npz'


ALONE = Meeting()


@contextlib.contextmanager
def meeting(folder: str | pathlib.Path, part: Part, words: Any) -> Iterator[Meeting]:
  """Meets the other processes; use it as a context.

  Args:
    folder: which all share.
    part: which process this is.
    words: JSON values that all have to agree on: what is calculated of what.

  Raises:
    PeerLost: the others do not come.
    UsageError: they calculate something else.
  """
  if part.whole:
    yield ALONE
    return
  folder = files.folder(folder) / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  run = _agreed(folder, part, json.dumps(words, sort_keys=True))
  if part.first:  # what failed before has left its files
    for other in files.listed(folder):
      if re.fullmatch('[0-9a-f]{16}', other.name) and other.name != run.name:
        files.remove_tree(other)
  with heartbeats.Heart(run, part) as heart:
    together = Meeting(run, part)
    try:
      yield together
    except BaseException as error:
      together.fail(error)
      raise
    together.leave()
    heart.finished()


def _agreed(folder: pathlib.Path, part: Part, words: str) -> pathlib.Path:
  """The folder of this run, once all processes of it are there.

  What a run of before has left must not be taken for this one's. Each says hello with a number of
  its own; the first lists them; each agrees to the list that has its number, and begins once the
  first has seen all agree to it.
  """
  own = {'number': os.urandom(8).hex(), 'words': words}
  _say(folder / f'hello.{part.index}', own)
  seen: dict[str, Any] = {}

  def numbers(kind):
    return [_said(folder / f'{kind}.{index}').get('number') for index in range(part.count)]

  def first_begins():
    listed = numbers('hello')
    if None in listed:
      return False
    if listed != seen.get('listed'):
      seen['listed'] = listed
      _say(folder / 'list', {'numbers': listed, 'words': words})
    if numbers('agreed')[1:] == listed[1:] and all(
        _said(folder / f'agreed.{i}').get('numbers') == listed for i in range(1, part.count)):
      _say(folder / 'begin', {'numbers': listed})
      return True
    return False

  def other_begins():
    found = _said(folder / 'list')
    listed = found.get('numbers')
    if listed is None or len(listed) != part.count or listed[part.index] != own['number']:
      return False
    if found.get('words') != words:
      raise UsageError('the first process calculates something else: start all of them with the '
                       'same command')
    if listed != seen.get('listed'):
      seen['listed'] = listed
      _say(folder / f'agreed.{part.index}', {'number': own['number'], 'numbers': listed})
    return _said(folder / 'begin').get('numbers') == listed

  began = time.monotonic()
  def patience():
    files.refresh(folder)
    if time.monotonic() - began > SECONDS:
      raise PeerLost(f'{part.count} processes were to meet in {folder}, and not all came in '
                     f'{SECONDS} s: start all of them with the same command')
  _wait(first_begins if part.first else other_begins, patience)
  run = folder / seen['listed'][0]
  run.mkdir(parents=True, exist_ok=True)
  return run


def _say(path: pathlib.Path, words: dict[str, Any]) -> None:
  with written_whole(path, sync=False) as part:
    part.write_text(json.dumps(words))


def _said(path: pathlib.Path) -> dict[str, Any]:
  try:
    found = json_files.read(path)
  except (UsageError, OSError):
    return {}
  return found if isinstance(found, dict) else {}


def _check(folder: pathlib.Path, part: Part, index: int) -> None:
  """Raises what is to be raised if process `index`, which is waited for, will not come."""
  for path in files.listed(folder):
    if path.name.startswith('failed.'):
      raise UsageError(f'process {path.name.split(".")[1]} refused to go on: its message says why')
  beat = next((beat for beat in heartbeats.read(folder) if beat.index == index), None)
  # One that has ended has left what it had to say, but for the order in which a disk shows it.
  if beat is not None and beat.age > 2 * heartbeats.SECONDS:
    raise PeerLost(f'process {index} of {part.count} is gone: start all of them again with the '
                   'same command')


def _wait(there: Callable[[], bool], check: Callable[[], None]) -> None:
  while not there():
    check()
    time.sleep(_PAUSE)
