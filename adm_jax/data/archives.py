"""Files in a folder, or in a zip without unpacking it: names, and bytes by name."""

import heapq
import logging
import os
import pathlib
import posixpath
import stat
import zipfile
import zlib
from typing import Callable, NamedTuple, Protocol

from adm_jax.data import limits
from adm_jax.errors import UsageError, one_line, printable

_log = logging.getLogger(__name__)

_RESCUED = 'lost+found'  # a file system's own, which only root may list
_LOCAL_HEADER = 30  # bytes before the name of a zip's member


class Files(Protocol):
  """Named files. Copies that travel to another process open what they need there."""
  path: pathlib.Path

  def names(self, wanted: Callable[[str], bool]) -> list[str]:
    """Those of the wanted paths relative to `path`, with slashes, that are there; sorted."""

  def read(self, name: str) -> bytes:
    """May be called from many threads at once.

    Raises:
      TooLarge: beyond `limits.MOST_BYTES`.
      Exception: it is damaged, or gone.
    """

  def stamp(self, name: str) -> tuple[int, ...]:
    """Changes when the file does."""


def open_files(path: str | pathlib.Path) -> Files:
  """The files of a folder or of a .zip.

  Raises:
    UsageError: `path` is neither, or a damaged .zip.
  """
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    return FolderFiles(path)
  if not path.exists():
    raise UsageError(f'there is no {path}: give a folder or a .zip of images')
  if not path.is_file() or (path.suffix != '.zip' and not zipfile.is_zipfile(path)):
    raise UsageError(f'{path} is neither a folder nor a .zip: give one of them')
  return ZipFiles(path)


class FolderFiles:
  """All files below a folder, each once, but those of hidden folders.

  Links are followed. A file or a folder that is there in its own right, or by another link, is not
  listed by a link again, so that links may go round in circles. Two hard links are two files.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path

  def names(self, wanted: Callable[[str], bool]) -> list[str]:
    """As `Files.names`. Pipes, sockets and devices are passed over, since they may never end.

    Raises:
      UsageError: a folder cannot be listed.
    """
    # os.scandir, not rglob, which builds a Path a file: a million of them is a minute.
    found, links, others, seen = [], [], [], set()
    folders, linked_folders = [''], []  # relative, with a slash at the end; the second is a heap
    while folders or linked_folders:
      folder = folders.pop() if folders else heapq.heappop(linked_folders)
      for entry in self._entries(folder, seen):
        name, is_link = folder + entry.name, entry.is_symlink()
        if _is(entry.is_dir):
          if not entry.name.startswith('.') and entry.name != _RESCUED:
            if is_link:
              heapq.heappush(linked_folders, f'{name}/')
            else:
              folders.append(f'{name}/')
        elif wanted(name):
          # What a broken link leads to is for `read` to miss.
          kind = links if is_link else found if _is(entry.is_file) else others
          kind.append(name)
    if others:
      _log.warning('%s, and %d more of %s: no regular file, passed over', printable(min(others)),
                   len(others) - 1, self.path)
    return sorted(found + self._not_among(found, links))

  def _entries(self, folder: str, seen: set) -> list[os.DirEntry]:
    path = os.path.join(self.path, folder)
    try:
      status = os.stat(path)
      if (status.st_dev, status.st_ino) in seen:
        return []
      seen.add((status.st_dev, status.st_ino))
      with os.scandir(path) as entries:
        return list(entries)
    except OSError as error:
      raise UsageError(f'{path} cannot be listed ({error.strerror}): make it readable, or '
                       f'move it out of {self.path}') from error

  def _not_among(self, found: list[str], links: list[str]) -> list[str]:
    """The links to files that are not `found`, one each; those to pipes and devices are none."""
    seen = {self._identity(name) for name in found} if links else set()
    kept = []
    for name in sorted(links):
      identity = self._identity(name)
      if identity is None or (stat.S_ISREG(identity[0]) and identity not in seen):
        kept.append(name)
        seen.add(identity)
    return kept

  def _identity(self, name: str) -> tuple[int, ...] | None:
    """(mode, device, inode) of a file, or of what a link leads to; None if it leads nowhere."""
    try:
      status = os.stat(os.path.join(self.path, name))
    except OSError:
      return None
    return status.st_mode, status.st_dev, status.st_ino

  def read(self, name: str) -> bytes:
    # Without waiting: it may have become a pipe since it was listed.
    descriptor = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, 'rb') as file:
      status = os.fstat(descriptor)
      if not stat.S_ISREG(status.st_mode):
        raise OSError('it is no regular file')
      limits.check_bytes(status.st_size)
      return file.read()

  def stamp(self, name: str) -> tuple[int, ...]:
    try:
      status = os.stat(os.path.join(self.path, name))
    except OSError:  # a link that leads nowhere, which `read` says
      return ()
    return status.st_size, status.st_mtime_ns


def _is(kind: Callable[[], bool]) -> bool:
  """An `os.DirEntry`'s is_dir or is_file; a link into what cannot be entered is neither."""
  try:
    return kind()
  except OSError:
    return False


class _Member(NamedTuple):
  """What a zip's directory says of a file."""
  start: int  # of its header
  packed: int  # bytes in the zip
  size: int  # bytes unpacked
  method: int
  crc: int
  encrypted: bool
  raw_name: str


class ZipFiles:
  """The members of a zip.

  They are read by position (`pread`): unlike `zipfile`'s, such reads share neither a file position
  nor a lock, so that threads and processes do not wait for each other. Nothing is unpacked beyond
  the size that the zip states, and that has a limit. Of several members with one name the last
  counts, as when they are unpacked, and names stay below the zip: '/a' and '../a' are 'a'.
  """

  def __init__(self, path: pathlib.Path):
    """Reads the directory of the zip.

    Raises:
      UsageError: it cannot be read.
    """
    self.path = path
    try:
      with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
    except Exception as error:  # of a damaged directory zipfile raises anything
      raise UsageError(f'{path} is no whole .zip ({one_line(error)}): copy it or make it '
                       'again') from error
    self._members = {
        _below(member.filename): _Member(member.header_offset, member.compress_size,
                                         member.file_size, member.compress_type, member.CRC,
                                         bool(member.flag_bits & 1), member.filename)
        for member in members}
    if len(self._members) < len(members):
      _log.warning('%s has %d names more than once: of each, the last file counts', path,
                   len(members) - len(self._members))
    self._open()

  def _open(self) -> None:
    self._file = open(self.path, 'rb')

  def __getstate__(self):
    return {'path': self.path, '_members': self._members}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._open()

  def names(self, wanted: Callable[[str], bool]) -> list[str]:
    """As `Files.names`.

    Raises:
      UsageError: a wanted file is encrypted.
    """
    names = sorted(filter(wanted, self._members))
    locked = next((name for name in names if self._members[name].encrypted), None)
    if locked is not None:
      raise UsageError(f'{self.path} is encrypted ({locked}): unpack it, and give the '
                       'folder')
    return names

  def read(self, name: str) -> bytes:
    member = self._members[name]
    limits.check_bytes(max(member.size, member.packed))
    # The local header repeats the name and has its own extra field; a guess at both mostly
    # spares a second read.
    guess = _LOCAL_HEADER + len(name) + 64
    data = os.pread(self._file.fileno(), guess + member.packed, member.start)
    skipped = (_LOCAL_HEADER + int.from_bytes(data[26:28], 'little')
               + int.from_bytes(data[28:30], 'little'))
    packed = (data[skipped:skipped + member.packed] if skipped <= guess
              else os.pread(self._file.fileno(), member.packed, member.start + skipped))
    content = self._unpacked(member, packed)
    if len(content) != member.size or zlib.crc32(content) != member.crc:
      raise zipfile.BadZipFile('it is not what the directory of its zip says: another size, or '
                               'checksum')
    return content

  def _unpacked(self, member: _Member, packed: bytes) -> bytes:
    """At most one byte more than there should be."""
    if member.method == zipfile.ZIP_STORED:
      return packed
    if member.method == zipfile.ZIP_DEFLATED:
      return zlib.decompressobj(-15).decompress(packed, member.size + 1)
    with zipfile.ZipFile(self.path) as archive, archive.open(member.raw_name) as file:
      return file.read(member.size + 1)  # the rare methods

  def stamp(self, name: str) -> tuple[int, ...]:
    status = os.fstat(self._file.fileno())
    return (*self._members[name][:2], status.st_size, status.st_mtime_ns)


def _below(name: str) -> str:
  """A member's name as a path below the zip."""
  below = posixpath.normpath(f'/{name}').lstrip('/')
  return name if below == name else below  # one text, not two, of a million names
