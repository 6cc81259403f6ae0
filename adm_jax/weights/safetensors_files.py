"""Weights on disk: safetensors files, written and read tensor by tensor.

The safetensors library would hold all tensors at once to write them; the format is a line of JSON
and the raw bytes behind it.
"""

import json
import pathlib
import struct
from typing import Any, Mapping

import ml_dtypes
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io.files import written_whole
from adm_jax.weights.lazy_arrays import LazyArray, is_possible, raw_bytes

_DTYPES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16,
           'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U8': np.uint8,
           'BOOL': np.bool_}
_MOST_HEADER = 16 << 20  # bytes; a thousand tensors take 100,000
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_NOTES = '__metadata__'  # the header's entry for texts


def write(path: str | pathlib.Path, tensors: Mapping[str, np.ndarray | LazyArray],
          notes: Mapping[str, str] | None = None) -> None:
  """Writes {name: array} and texts; of `LazyArray` arrays, one at a time is in memory."""
  header, end = {} if not notes else {_NOTES: dict(notes)}, 0
  for name, array in tensors.items():
    dtype = np.dtype(array.dtype)
    if dtype not in _NAMES:
      raise UsageError(f'{name} is {dtype}, which safetensors files do not know')
    begin, end = end, end + array.size * dtype.itemsize
    header[name] = {'dtype': _NAMES[dtype], 'shape': list(array.shape),
                    'data_offsets': [begin, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)  # tensors begin at a multiple of 8
  with written_whole(path) as part, open(part, 'wb') as file:
    file.write(struct.pack('<Q', len(text)) + text)
    for array in tensors.values():
      file.write(raw_bytes(array))


def read(path: str | pathlib.Path) -> dict[str, LazyArray]:
  """The tensors of a file, {name: array}, each read when it is asked for.

  Raises:
    UsageError: no such file, or one that is not whole.
  """
  import safetensors  # checks the header against the file's length

  path = pathlib.Path(path)
  if not path.is_file():
    raise UsageError(f'there is no file {path}')
  with open(path, 'rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    if _MOST_HEADER < length < path.stat().st_size:
      raise UsageError(f'{path} has a header of {length:,} bytes, and this program reads up to '
                       f'{_MOST_HEADER:,}')
    try:
      with safetensors.safe_open(path, 'np'):
        pass
      header = json.loads(file.read(length), object_pairs_hook=_without_twins)
    except (safetensors.SafetensorError, ValueError) as error:
      raise UsageError(f'{path} is not a whole safetensors file ({error}): fetch it again'
                       ) from error
  header.pop(_NOTES, None)
  impossible = [name for name, entry in header.items() if not is_possible(tuple(entry['shape']))]
  if impossible:
    raise UsageError(f'{path}: no array has the shape that it tells of {impossible[0]}: fetch it '
                     'again')
  unknown = [entry['dtype'] for entry in header.values() if entry['dtype'] not in _DTYPES]
  if unknown:
    raise UsageError(f'{path} holds {unknown[0]} numbers: convert them to one of '
                     f'{", ".join(_DTYPES)}')

  def tensor(entry):
    shape, dtype = tuple(entry['shape']), np.dtype(_DTYPES[entry['dtype']])
    begin, end = entry['data_offsets']
    return LazyArray(shape, dtype, lambda: np.fromfile(
        path, dtype, (end - begin) // dtype.itemsize, offset=8 + length + begin).reshape(shape))
  return {name: tensor(entry) for name, entry in header.items()}


def read_notes(path: pathlib.Path) -> dict[str, str]:
  """The texts beside the tensors of a file that `read` has read."""
  with open(path, 'rb') as file:
    (length,) = struct.unpack('<Q', file.read(8))
    return json.loads(file.read(length)).get(_NOTES, {})


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A JSON object; readers disagree on which of two equal names is meant."""
  found = dict(pairs)
  if len(found) < len(pairs):
    names = [name for name, _ in pairs]
    raise ValueError(f'{next(name for name in found if names.count(name) > 1)} is there twice')
  return found
