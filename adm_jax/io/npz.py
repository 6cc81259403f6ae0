"""Arrays in .npz files, larger than memory: written in pieces, read in pieces or through a map.

The file is what `np.savez` writes and `np.load` reads; pickled arrays are neither.
"""

import contextlib
import errno
import functools
import io
import math
import pathlib
import struct
import tokenize
import zipfile
import zlib
from typing import IO, Iterable, Iterator, Mapping, NamedTuple

import numpy as np

from adm_jax.errors import UsageError, one_line
from adm_jax.io import digests
from adm_jax.io.files import is_local, written_whole


class Pieces(NamedTuple):
  """An array that comes in pieces along its first axis."""
  shape: tuple[int, ...]
  dtype: np.dtype
  pieces: Iterable[np.ndarray]


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray | Pieces] |
          Iterable[tuple[str, np.ndarray | Pieces]], writer: str = '') -> None:
  """Writes {name: array}, uncompressed; equal arrays make equal bytes, however they are cut.

  As pairs, an array may come to be while the pieces of those before it are taken. `writer` as
  `files.written_whole`.
  """
  with written_whole(path, writer=writer) as part, _file(part) as file, \
      zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
    for name, array in arrays.items() if isinstance(arrays, Mapping) else arrays:
      if not isinstance(array, Pieces):
        array = Pieces(array.shape, array.dtype, [array])
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {
            'descr': np.lib.format.dtype_to_descr(np.dtype(array.dtype)), 'fortran_order': False,
            'shape': tuple(array.shape)})
        for piece in array.pieces:
          member.write(np.ascontiguousarray(piece, array.dtype).data)


@contextlib.contextmanager
def _file(path: pathlib.Path) -> Iterator[pathlib.Path | IO[bytes]]:
  """What `zipfile` writes to: a path, or an open object of a bucket."""
  if is_local(path):
    yield path
    return
  try:
    with path.open('wb') as file:
      yield file
  except BaseException:  # half of it may have arrived
    path.unlink(missing_ok=True)
    raise


def names(path: str | pathlib.Path) -> list[str]:
  """The names of the arrays of a file."""
  with _archive(path) as archive:
    return [name.removesuffix('.npy') for name in archive.namelist()]


def checksum(path: str | pathlib.Path) -> str:
  """Tells the contents of files apart: of the CRCs in the zip's directory, so it reads no array."""
  with _archive(path) as archive:
    crcs = [f'{info.filename} {info.file_size} {info.CRC}' for info in archive.infolist()]
  return digests.short('\n'.join(crcs))


def read(path: str | pathlib.Path, name: str) -> np.ndarray:
  """An array of a file, read-only, mapped into memory and read as it is touched.

  A compressed array cannot be mapped, and is read into memory: see `rows`. A mapped one of up to
  1 GB is compared with its checksum, once for each process and file: 0.2 s from memory.
  Larger ones are not, since whoever maps them may need few rows; `read_pieces` compares any.

  Raises:
    UsageError: no such file or array, a pickled array, or a file that is not whole.
  """
  path = pathlib.Path(path)
  with _archive(path) as archive:
    info = _member(archive, path, name)
    with _damage(path, name), archive.open(info) as member:
      shape, dtype, start = _header(member, info, path, name)
      if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(member.read(), dtype).reshape(shape)
  if info.file_size <= _CHECKED_WHEN_MAPPED:
    status = path.stat()
    _check(path, name, (status.st_size, status.st_mtime_ns))
  return _map(path, name, _start(path, info) + start, dtype, shape)


def rows(path: str | pathlib.Path, name: str) -> 'np.ndarray | Unpacked':
  """An array whose rows are read as they are indexed, in memory that does not grow with it.

  Raises:
    UsageError: as `read`.
  """
  with _archive(path) as archive:
    stored = _member(archive, pathlib.Path(path), name).compress_type == zipfile.ZIP_STORED
  return read(path, name) if stored else Unpacked(pathlib.Path(path), name)


class Unpacked:
  """The rows of a compressed array, for those who ask in rising order: rows[i64[B]].

  An earlier row than the last time's first starts again from the file's beginning.
  """

  def __init__(self, path: pathlib.Path, name: str):
    self._path, self._name = path, name
    self.shape, self.dtype, _ = read_pieces(path, name, 1)
    self.ndim = len(self.shape)
    self._restart()

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: np.ndarray) -> np.ndarray:
    index = np.asarray(index)
    if index.min() < self._first:
      self._restart()
    while self._end <= index.max():
      piece = next(self._pieces)
      self._kept.append(piece)
      self._end += len(piece)
      # What lies before the rows asked for is not needed any more.
      while self._kept and self._first + len(self._kept[0]) <= index.min():
        self._first += len(self._kept.pop(0))
    return np.concatenate(self._kept)[index - self._first]

  def _restart(self) -> None:
    self._pieces = iter(read_pieces(self._path, self._name, 64).pieces)
    self._kept, self._first, self._end = [], 0, 0


def read_pieces(path: str | pathlib.Path, name: str, size: int) -> Pieces:
  """An array of a file, stored or compressed, in pieces of `size` along its first axis.

  Nothing is kept of a piece, and no page of the file mapped, so that memory stays that of a piece.

  Raises:
    UsageError: as `read`; of numbers that are cut short or damaged, when their piece is taken.
  """
  path = pathlib.Path(path)
  with _archive(path) as archive:
    info = _member(archive, path, name)
    with _damage(path, name), archive.open(info) as member:
      shape, dtype, start = _header(member, info, path, name)
  if not shape:
    raise UsageError(f'{path}: {name} is a single number, and no array of rows')

  def pieces():
    with _archive(path) as archive:
      with _damage(path, name):
        member = archive.open(f'{name}.npy')
      with member:
        with _damage(path, name):
          member.read(start)
        for i in range(0, shape[0], size):
          count = min(size, shape[0] - i)
          with _damage(path, name):
            content = member.read(math.prod((count, *shape[1:])) * dtype.itemsize)
            piece = np.frombuffer(content, dtype).reshape(count, *shape[1:])
          yield piece
  return Pieces(shape, dtype, pieces())


# What reading damaged bytes raises, at any of zipfile, zlib and numpy. RuntimeError: what claims to
# be encrypted, and NotImplementedError of a later kind of zip.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, KeyError, IndexError,
           OverflowError, RuntimeError, SyntaxError, tokenize.TokenError, struct.error)
_CHECKED_WHEN_MAPPED = 1 << 30  # bytes
_MOST_HEADER = 10_000  # bytes of a .npy file's; numpy's own limit
_MOST_PACKED = 1032  # bytes that one of a deflated stream can become


@contextlib.contextmanager
def _damage(path: pathlib.Path, name: str = '') -> Iterator[None]:
  """Turns what reading damaged bytes raises into one line."""
  try:
    yield
  except UsageError:
    raise
  except (*_DAMAGE, OSError) as error:
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file
      raise
    what = f'{path}: {name} is cut short or damaged' if name else f'{path} is not a whole .npz file'
    raise UsageError(f'{what} ({one_line(error, 120)}): make it again') from error


def _archive(path: str | pathlib.Path) -> zipfile.ZipFile:
  if not pathlib.Path(path).is_file():
    raise UsageError(f'there is no file {path}')
  with _damage(path):
    return zipfile.ZipFile(path)


def _member(archive: zipfile.ZipFile, path: pathlib.Path, name: str) -> zipfile.ZipInfo:
  try:
    info = archive.getinfo(f'{name}.npy')
  except KeyError:
    have = ', '.join(archive.namelist()[:10]) or 'nothing'
    raise UsageError(f'{path} has no array {name}, only {have}: images are stored as arr_0'
                     ) from None
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise UsageError(f'{path}: {name} is packed in a way that numpy does not write: make it again '
                     'with np.savez')
  return info


def _header(member, info: zipfile.ZipInfo, path: pathlib.Path,
            name: str) -> tuple[tuple[int, ...], np.dtype, int]:
  """(shape, dtype, bytes before the numbers) of a .npy file, read up to there.

  Its numbers are as many bytes as the archive says, so that nothing else is ever made room for.
  """
  magic = member.read(8)
  try:
    width, read_header = {(1, 0): (2, np.lib.format.read_array_header_1_0),
                          (2, 0): (4, np.lib.format.read_array_header_2_0)}[
                              np.lib.format.read_magic(io.BytesIO(magic))]
    length = member.read(width)
    size = int.from_bytes(length, 'little')
    if size > _MOST_HEADER:
      raise ValueError(f'its header has {size} bytes')
    shape, fortran_order, dtype = read_header(io.BytesIO(length + member.read(size)))
  except _DAMAGE as error:
    raise UsageError(f'{path}: {name} is no array ({one_line(error, 120)})') from error
  if dtype.hasobject:
    raise UsageError(f'{path}: {name} is pickled, and unpickling can run any code: save it as '
                     'numbers')
  if dtype.kind not in 'biufSU' or not dtype.itemsize:
    raise UsageError(f'{path}: {name} holds {one_line(dtype, 60)}: save it as numbers')
  if fortran_order:
    raise UsageError(f'{path}: {name} is stored column by column: save a copy in C order')
  if not all(type(side) is int and side >= 0 for side in shape) or 0 in shape[1:]:
    raise UsageError(f'{path}: {name} has the shape {one_line(shape, 60)}: sides are 1 or more')
  start = len(magic) + width + size
  wanted = start + math.prod(shape) * dtype.itemsize
  if wanted != info.file_size or wanted > _MOST_PACKED * info.compress_size:
    raise UsageError(f'{path}: {name} is cut short or damaged ({dtype}{list(shape)} would be '
                     f'{wanted} bytes, and it has {info.file_size}): make it again')
  return shape, dtype, start


@functools.lru_cache(maxsize=256)
def _check(path: pathlib.Path, name: str, stamp: tuple[int, int]) -> None:
  """Reads an array once and compares it with its checksum; `stamp` tells versions of a file apart.
  """
  del stamp
  with _archive(path) as archive, _damage(path, name), archive.open(f'{name}.npy') as member:
    while member.read(1 << 20):
      pass


def _start(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
  """Where a member's bytes begin; the local header's length is written only there."""
  with open(path, 'rb') as file:
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack('<HH', file.read(4))
  return info.header_offset + 30 + name_length + extra_length


def _map(path: pathlib.Path, name: str, offset: int, dtype: np.dtype,
         shape: tuple[int, ...]) -> np.ndarray:
  with _damage(path, name):
    return np.memmap(path, dtype, 'r', offset, shape) if 0 not in shape else np.zeros(shape, dtype)
