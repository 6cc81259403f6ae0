"""Writes TensorFlow graph files, field by field: (number << 3 | wire type), then the value."""

import struct

import numpy as np

_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int32): 3}


def varint(value: int) -> bytes:
  value &= 2 ** 64 - 1
  parts = []
  while value > 127:
    parts.append(value & 127 | 128)
    value >>= 7
  return bytes([*parts, value])


def number(field: int, value: int) -> bytes:
  return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
  return varint(field << 3 | 2) + varint(len(content)) + content


def node(name: str, op: str, tensor: bytes = b'') -> bytes:
  attribute = message(5, message(1, b'value') + message(2, message(8, tensor))) if tensor else b''
  return message(1, message(1, name.encode()) + message(2, op.encode()) + attribute)


def _head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
  dims = b''.join(message(2, number(1, side)) for side in shape)
  return number(1, _TYPES[np.dtype(dtype)]) + message(2, dims)


def constant(name: str, array: np.ndarray) -> bytes:
  """A node whose values are one run of bytes."""
  array = np.asarray(array)
  return node(name, 'Const', _head(array.dtype, array.shape) + message(4, array.tobytes()))


def listed(name: str, values: list, shape: tuple[int, ...], dtype: type, packed: bool) -> bytes:
  """A node whose values are a list, in one field or in one each."""
  field, wire = (5, 5) if dtype is np.float32 else (7, 0)
  encoded = [struct.pack('<f', v) if dtype is np.float32 else varint(v) for v in values]
  content = (message(field, b''.join(encoded)) if packed else
             b''.join(varint(field << 3 | wire) + v for v in encoded))
  return node(name, 'Const', _head(dtype, shape) + content)
