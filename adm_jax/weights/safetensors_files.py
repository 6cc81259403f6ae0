"""Weights on disk: safetensors files, written and read tensor by tensor.

The safetensors library would hold all tensors at once to write them; the format is a line of JSON
and the raw bytes behind it.
"""

import json
import pathlib
import struct
from typing import Mapping

import ml_dtypes
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io.files import written_whole
from adm_jax.weights.lazy_arrays import LazyArray, raw_bytes

_DTYPES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16,
           'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U8': np.uint8,
           'BOOL': np.bool_}
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
  try:
    with safetensors.safe_open(path, 'np'):
      pass
  except safetensors.SafetensorError as error:
    raise UsageError(f'{path} is not a whole safetensors file ({error}): fetch it again') from error
  header, start = _header(path)
  header.pop(_NOTES, None)
  unknown = [entry['dtype'] for entry in header.values() if entry['dtype'] not in _DTYPES]
  if unknown:
    raise UsageError(f'{path} holds {unknown[0]} numbers: convert them to one of '
                     f'{", ".join(_DTYPES)}')

  def tensor(entry):
    shape, dtype = tuple(entry['shape']), np.dtype(_DTYPES[entry['dtype']])
    begin, end = entry['data_offsets']
    return LazyArray(shape, dtype, lambda: np.fromfile(
        path, dtype, (end - begin) // dtype.itemsize, offset=start + begin).reshape(shape))
  return {name: tensor(entry) for name, entry in header.items()}


def read_notes(path: pathlib.Path) -> dict[str, str]:
  """The texts beside the tensors of a file that `read` has read."""
  return _header(path)[0].get(_NOTES, {})


def _header(path: pathlib.Path) -> tuple[dict, int]:
  """(what a file says of its tensors, where their bytes begin)."""
  with open(path, 'rb') as file:
    (length,) = struct.unpack('<Q', file.read(8))
    return json.loads(file.read(length)), 8 + length
