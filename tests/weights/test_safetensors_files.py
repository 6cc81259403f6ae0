"""Safetensors files: whole ones, read tensor by tensor; anything else is refused in a line."""

import json
import struct

import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.weights import safetensors_files


def _file(path, header: bytes | dict, numbers: bytes = b''):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + numbers)
  return path


def _entry(shape, end, dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': [0, end]}


def test_there_and_back(tmp_path):
  state = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.zeros((0, 3), np.int64)}
  safetensors_files.write(tmp_path / 'x.safetensors', state)
  found = safetensors_files.read(tmp_path / 'x.safetensors')
  assert list(found) == list(state)
  for name in state:
    np.testing.assert_array_equal(np.asarray(found[name]), state[name])


_TWINS = b'{"a": %s, "a": %s}' % (json.dumps(_entry([1], 4)).encode(),
                                 json.dumps(_entry([1], 4, 'I32')).encode())


@pytest.mark.parametrize('header, size, match', [
    ({'a': _entry([0, 2**62], 0)}, 0, 'no array has the shape'),
    ({'a': _entry([0, 2**63 + 5], 0)}, 0, 'no array has the shape'),
    ({'a': _entry([1] * 100, 4)}, 4, 'no array has the shape'), (_TWINS, 4, 'a is there twice'),
    ({'a\x1b[2J\n': _entry([1] * 40, 4)}, 4, r'of a\\x1b\[2J\\n'),
    ({'a': _entry([4], 4, 'F8_E4M3')}, 4, 'holds F8_E4M3 numbers'),
    (b'{"a":' * 200, 0, 'not a whole'), ({'a': _entry([2], 4)}, 4, 'not a whole'),
    ({'a': _entry([1], 8)}, 4, 'not a whole'), ({'a': []}, 0, 'not a whole'),
    (b'\xff', 0, 'not a whole'), (b'', 0, 'not a whole')])
def test_a_header_that_does_not_describe_the_numbers_is_refused(tmp_path, header, size, match):
  path = _file(tmp_path / 'x.safetensors', header, bytes(size))
  with pytest.raises(UsageError, match=match) as error:
    safetensors_files.read(path)
  assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_a_header_of_many_megabytes_is_not_read(tmp_path):
  path = _file(tmp_path / 'x.safetensors', b'{}' + b' ' * (17 << 20), b'1234')
  with pytest.raises(UsageError, match='a header of 17,825,794 bytes'):
    safetensors_files.read(path)
