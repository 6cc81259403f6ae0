"""Constants of a TensorFlow graph file (`GraphDef`, .pb), read without TensorFlow.

A protocol buffer is a list of (field number, wire type, value). Of a graph's fields these matter:

    GraphDef.node = 1 -> NodeDef.name = 1, .op = 2, .attr = 5 -> entry.key = 1, .value = 2
    AttrValue.tensor = 8 -> TensorProto.dtype = 1, .tensor_shape = 2, .tensor_content = 4,
                            .float_val = 5, .int_val = 7
    TensorShapeProto.dim = 2 -> Dim.size = 1
"""

import itertools
import math
import mmap
import pathlib
import struct
from typing import Iterator

import numpy as np

from adm_jax.errors import UsageError, one_line

Field = tuple[int, int | memoryview]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MOST_ITEMS = 1 << 18  # the Inception graph has some ten thousand
# DataType: (dtype, the field with one value each, where it is not all in tensor_content).
_DTYPES = {1: (np.dtype('<f4'), 5), 3: (np.dtype('<i4'), 7)}


class _Budget:
  """How much may still be made of a file: a field of two bytes becomes a hundred in memory."""

  def __init__(self, items: int):
    self._left = items

  def take(self, items: int = 1) -> None:
    self._left -= items
    if self._left < 0:
      raise ValueError(f'more than {_MOST_ITEMS:,} fields and values in lists')


def read_constants(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The float32 and int32 constants of a graph, {node name: array}, read-only.

  Large ones are mapped from the file, which costs nothing until they are used.

  Raises:
    UsageError: no such file, or one that is no whole graph.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UsageError(f'there is no file {path}')
  try:
    with open(path, 'rb') as file:
      content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    constants = dict(_constants(content, _Budget(_MOST_ITEMS)))
  except (OSError, ValueError, IndexError, struct.error, TypeError, OverflowError) as error:
    raise UsageError(f'{path} is cut short or no TensorFlow graph ({one_line(error)}): fetch it '
                     'again') from error
  if not constants:
    raise UsageError(f'{path} is no TensorFlow graph with constants: fetch it again')
  return constants


def _constants(graph: memoryview, budget: _Budget) -> Iterator[tuple[str, np.ndarray]]:
  for number, node in _fields(graph, budget):
    if number != 1:
      continue
    fields = list(_fields(node, budget))
    if _last(fields, 2, b'') != b'Const':
      continue
    for number, entry in fields:
      if number == 5:
        pair = list(_fields(entry, budget))
        tensor = _last(list(_fields(_last(pair, 2, b''), budget)), 8, None)
        if _last(pair, 1, b'') == b'value' and tensor is not None:
          value = _array(list(_fields(tensor, budget)), budget)
          if value is not None:
            yield _message(_last(fields, 1, b'')).tobytes().decode(), value


def _array(tensor: list[Field], budget: _Budget) -> np.ndarray | None:
  """The array of a TensorProto, or None if its type is not needed here."""
  dtype, values_field = _DTYPES.get(_last(tensor, 1, 0), (None, None))
  if dtype is None:
    return None
  dims = [dim for number, dim in _fields(_last(tensor, 2, b''), budget) if number == 2]
  shape = tuple(_last(list(_fields(dim, budget)), 1, 0) for dim in dims)
  content = _last(tensor, 4, b'')
  if len(content):
    return np.frombuffer(content, dtype).reshape(shape)
  count = math.prod(shape)
  budget.take(count)
  values = list(itertools.islice(
      (_value(value, dtype) for number, field in tensor if number == values_field
       for value in _unpacked(field, dtype)), count + 1))
  # A list that is too short repeats its last value.
  if len(values) > count or (count and not values):
    raise ValueError(f'{len(values)} values for the shape {shape}')
  filled = values + values[-1:] * (count - len(values))
  return np.array(filled, dtype).reshape(shape)


def _unpacked(field: int | memoryview, dtype: np.dtype) -> Iterator[int | memoryview]:
  """The values of one occurrence of a repeated number: a single one, or many packed together."""
  if isinstance(field, int) or (dtype.kind == 'f' and len(field) == 4):
    yield field
  elif dtype.kind == 'f':
    yield from (field[i:i + 4] for i in range(0, len(field), 4))
  else:
    at = 0
    while at < len(field):
      value, at = _varint(field, at)
      yield value


def _value(raw: int | memoryview, dtype: np.dtype) -> float | int:
  if dtype.kind == 'f':
    return struct.unpack('<f', raw)[0]
  return raw - (1 << 64) if raw >> 63 else raw  # a negative int32 is sent as 64 bits


def _last(fields: list[Field], number: int, default):
  """The value of a field that occurs once; the last one counts if it does not."""
  return next((value for key, value in reversed(fields) if key == number), default)


def _message(value: int | memoryview | bytes) -> memoryview:
  if isinstance(value, int):
    raise ValueError('a number where a message should be')
  return memoryview(value)


def _fields(message: memoryview | bytes, budget: _Budget) -> Iterator[Field]:
  """(field number, value) of a message: an int for a varint, else its bytes.

  Raises:
    ValueError: the message breaks off, or has a wire type that no graph uses.
  """
  message, at = _message(message), 0
  while at < len(message):
    budget.take()
    key, at = _varint(message, at)
    number, wire = key >> 3, key & 7
    if wire == _VARINT:
      value, at = _varint(message, at)
      yield number, value
      continue
    if wire == _BYTES:
      size, at = _varint(message, at)
    elif wire in _FIXED_SIZES:
      size = _FIXED_SIZES[wire]
    else:
      raise ValueError(f'wire type {wire}')
    if number == 0 or at + size > len(message):
      raise ValueError('a field reaches beyond its message')
    yield number, message[at:at + size]
    at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
  """(value, where the next field begins)."""
  value = shift = 0
  while shift < 70:
    byte = message[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at
  raise ValueError('a number of more than 64 bits')
