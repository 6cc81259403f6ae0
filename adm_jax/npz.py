"""Arrays in .npz files, larger than memory: written in pieces, read in pieces or through a map.

The file is what `np.savez` writes and `np.load` reads; pickled arrays are neither.
"""

import contextlib
import math
import pathlib
import shutil
import struct
import zipfile
import zlib
from typing import Iterable, Iterator, Mapping, NamedTuple

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.files import written_whole


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


def read(path: str | pathlib.Path, name: str, scratch: pathlib.Path | None = None) -> np.ndarray:
  """An array of a file, read-only, mapped into memory and read as it is touched.

  Args:
    path: of the .npz file.
    name: of the array.
    scratch: a compressed array, which cannot be mapped, is unpacked into this file, unless it is
      there, and that is mapped; None reads it into memory.

  Raises:
    UsageError: no such file or array, a pickled array, or a file that is not whole.
  """
  path = pathlib.Path(path)
  with _archive(path) as archive:
    try:
      info = archive.getinfo(f'{name}.npy')
    except KeyError:
      raise UsageError(f'{path} has no array {name}, only {", ".join(names(path)) or "nothing"}: '
                       'samples are stored as arr_0') from None
    with archive.open(info) as member:
      shape, dtype, start = _header(member, path, name)
      if info.compress_type != zipfile.ZIP_STORED and scratch is None:
        with _damage(path, name):
          return np.frombuffer(member.read(), dtype).reshape(shape)
    if info.compress_type == zipfile.ZIP_STORED:
      return _map(path, _start(path, info) + start, dtype, shape)
    if not scratch.exists():
      with written_whole(scratch) as part, archive.open(info) as member, open(part, 'wb') as file:
        shutil.copyfileobj(member, file, 1 << 20)
  return _map(scratch, start, dtype, shape)


def read_pieces(path: str | pathlib.Path, name: str, size: int) -> Pieces:
  """An array of a file, stored or compressed, in pieces of `size` along its first axis.

  Nothing is kept of a piece, and no page of the file mapped, so that memory stays that of a piece.

  Raises:
    UsageError: as `read`; of numbers that are cut short or damaged, when their piece is taken.
  """
  path = pathlib.Path(path)
  if name not in names(path):
    raise UsageError(f'{path} has no array {name}, only {", ".join(names(path)) or "nothing"}: '
                     'images are stored as arr_0')
  with _archive(path) as archive, archive.open(f'{name}.npy') as member:
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
