"""Arrays in .npz files, larger than memory: written in pieces, read in pieces or through a map.

The file is what `np.savez` writes and `np.load` reads; pickled arrays are neither.
"""

import contextlib
import math
import pathlib
import struct
import zipfile
import zlib
from typing import Iterable, Iterator, Mapping, NamedTuple

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io import digests
from adm_jax.io.files import written_whole


class Pieces(NamedTuple):
  """An array that comes in pieces along its first axis."""
  shape: tuple[int, ...]
  dtype: np.dtype
  pieces: Iterable[np.ndarray]


def write(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray | Pieces] |
          Iterable[tuple[str, np.ndarray | Pieces]]) -> None:
  """Writes {name: array}, uncompressed; equal arrays make equal bytes, however they are cut.

  As pairs, an array may come to be while the pieces of those before it are taken.
  """
  with written_whole(path) as part, zipfile.ZipFile(part, 'w', zipfile.ZIP_STORED) as archive:
    for name, array in arrays.items() if isinstance(arrays, Mapping) else arrays:
      if not isinstance(array, Pieces):
        array = Pieces(array.shape, array.dtype, [array])
      with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, {
            'descr': np.lib.format.dtype_to_descr(np.dtype(array.dtype)), 'fortran_order': False,
            'shape': tuple(array.shape)})
        for piece in array.pieces:
          member.write(np.ascontiguousarray(piece, array.dtype).data)


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

  A compressed array cannot be mapped, and is read into memory: see `rows`.

  Raises:
    UsageError: no such file or array, a pickled array, or a file that is not whole.
  """
  path = pathlib.Path(path)
  with _archive(path) as archive:
    info = _member(archive, path, name)
    with archive.open(info) as member:
      shape, dtype, start = _header(member, path, name)
      if info.compress_type != zipfile.ZIP_STORED:
        with _damage(path, name):
          return np.frombuffer(member.read(), dtype).reshape(shape)
  return _map(path, _start(path, info) + start, dtype, shape)


def rows(path: str | pathlib.Path, name: str) -> 'np.ndarray | Unpacked':
  """An array whose rows are read as they are indexed, in memory that does not grow with it.

  Raises:
    UsageError: as `read`.
  """
  with _archive(path) as archive:
    stored = _member(archive, path, name).compress_type == zipfile.ZIP_STORED
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
  with _archive(path) as archive, archive.open(_member(archive, path, name)) as member:
    shape, dtype, start = _header(member, path, name)

  def pieces():
    with _archive(path) as archive, archive.open(f'{name}.npy') as member:
      member.read(start)
      for i in range(0, shape[0], size):
        count = min(size, shape[0] - i)
        with _damage(path, name):
          content = member.read(math.prod((count, *shape[1:])) * dtype.itemsize)
          piece = np.frombuffer(content, dtype).reshape(count, *shape[1:])
        yield piece
  return Pieces(shape, dtype, pieces())


@contextlib.contextmanager
def _damage(path: pathlib.Path, name: str) -> Iterator[None]:
  """Turns what reading damaged bytes raises into one line."""
  try:
    yield
  except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
    raise UsageError(f'{path}: {name} is cut short or damaged: make it again') from error


def _archive(path: str | pathlib.Path) -> zipfile.ZipFile:
  if not pathlib.Path(path).is_file():
    raise UsageError(f'there is no file {path}')
  try:
    return zipfile.ZipFile(path)
  except zipfile.BadZipFile as error:
    raise UsageError(f'{path} is not a whole .npz file ({error})') from error


def _member(archive: zipfile.ZipFile, path, name: str) -> zipfile.ZipInfo:
  try:
    return archive.getinfo(f'{name}.npy')
  except KeyError:
    have = ', '.join(archive.namelist()) or 'nothing'
    raise UsageError(f'{path} has no array {name}, only {have}: images are stored as arr_0'
                     ) from None


def _header(member, path, name: str) -> tuple[tuple[int, ...], np.dtype, int]:
  """(shape, dtype, bytes before the numbers) of a .npy file, read up to there."""
  try:
    read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                   (2, 0): np.lib.format.read_array_header_2_0}[np.lib.format.read_magic(member)]
    shape, fortran_order, dtype = read_header(member)
  except (ValueError, KeyError) as error:
    raise UsageError(f'{path}: {name} is no array ({error})') from error
  if dtype.hasobject:
    raise UsageError(f'{path}: {name} is pickled, and unpickling can run any code: save it as '
                     'numbers')
  if fortran_order:
    raise UsageError(f'{path}: {name} is stored column by column: save a copy in C order')
  return shape, dtype, member.tell()


def _start(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
  """Where a member's bytes begin; the local header's length is written only there."""
  with open(path, 'rb') as file:
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack('<HH', file.read(4))
  return info.header_offset + 30 + name_length + extra_length


def _map(path: pathlib.Path, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
  if 0 in shape:
    return np.zeros(shape, dtype)
  try:
    return np.memmap(path, dtype, 'r', offset, shape)
  except ValueError as error:
    raise UsageError(f'{path} is shorter than its arrays: fetch it again') from error
