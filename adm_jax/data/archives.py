"""Files in a folder, or in a zip without unpacking it: names, and bytes by name."""

import os
import pathlib
import zipfile
import zlib
from typing import Protocol

from adm_jax.errors import UsageError

_LOCAL_HEADER = 30  # bytes before the name of a zip's member


class Files(Protocol):
  """Named files. Copies that travel to another process open what they need there."""
  path: pathlib.Path

  def names(self) -> list[str]:
    """Paths relative to `path`, with slashes, sorted."""

  def read(self, name: str) -> bytes:
    """May be called from many threads at once."""

  def stamp(self, name: str) -> tuple[int, ...]:
    """Changes when the file does."""


def open_files(path: str | pathlib.Path) -> Files:
  """The files of a folder or of a .zip.

  Raises:
    UsageError: `path` is neither.
  """
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    return FolderFiles(path)
  if not path.exists():
    raise UsageError(f'there is no {path}: give a folder or a .zip of images')
  if not zipfile.is_zipfile(path):
    raise UsageError(f'{path} is neither a folder nor a .zip: give one of them')
  return ZipFiles(path)


class FolderFiles:
  """All files below a folder; links to folders are followed."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def names(self) -> list[str]:
    # os.walk, not rglob, which builds a Path a file: a million of them is a minute.
    prefix = len(str(self.path)) + 1
    return sorted(os.path.join(folder, name)[prefix:].replace(os.sep, '/')
                  for folder, _, names in os.walk(self.path, followlinks=True) for name in names)

  def read(self, name: str) -> bytes:
    with open(os.path.join(self.path, name), 'rb') as file:
      return file.read()

  def stamp(self, name: str) -> tuple[int, ...]:
    status = os.stat(os.path.join(self.path, name))
    return status.st_size, status.st_mtime_ns


class ZipFiles:
  """The members of a zip.

  They are read by position (`pread`): unlike `zipfile`'s, such reads share neither a file position
  nor a lock, so that threads and processes do not wait for each other.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    with zipfile.ZipFile(path) as archive:
      # name -> (where its header starts, bytes in the file, is it deflated)
      self._members = {
          member.filename: (member.header_offset, member.compress_size, member.compress_type)
          for member in archive.infolist() if not member.is_dir()}
    self._open()

  def _open(self) -> None:
    self._file = open(self.path, 'rb')

  def __getstate__(self):
    return {'path': self.path, '_members': self._members}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._open()

  def names(self) -> list[str]:
    return sorted(self._members)

  def read(self, name: str) -> bytes:
    start, length, method = self._members[name]
    # The local header repeats the name and has its own extra field; a guess at both mostly
    # spares a second read.
    guess = _LOCAL_HEADER + len(name) + 64
    data = os.pread(self._file.fileno(), guess + length, start)
    skipped = (_LOCAL_HEADER + int.from_bytes(data[26:28], 'little')
               + int.from_bytes(data[28:30], 'little'))
    packed = (data[skipped:skipped + length] if skipped <= guess
              else os.pread(self._file.fileno(), length, start + skipped))
    if method == zipfile.ZIP_STORED:
      return packed
    if method == zipfile.ZIP_DEFLATED:
      return zlib.decompress(packed, -15)
    with zipfile.ZipFile(self.path) as archive:  # the rare methods
      return archive.read(name)

  def stamp(self, name: str) -> tuple[int, ...]:
    status = os.fstat(self._file.fileno())
    return (*self._members[name][:2], status.st_size, status.st_mtime_ns)
