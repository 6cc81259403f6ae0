"""Graph files: what an encoder of a few lines writes is read back; what is not whole is refused."""

import graph_files
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.evaluation import graph_def

RNG = np.random.default_rng(0)


def test_constants_come_back_exactly(tmp_path):
  wanted = {'a/b': RNG.normal(size=(2, 3, 4, 5)).astype(np.float32),
            'scalar': np.float32(1.5), 'shape': np.array([1, -1, 2 ** 31 - 1], np.int32),
            'empty': np.zeros((0, 3), np.float32)}
  path = tmp_path / 'graph.pb'
  path.write_bytes(b''.join(graph_files.constant(*item) for item in wanted.items())
                   + graph_files.node('add', 'Add'))
  got = graph_def.read_constants(path)
  assert got.keys() == wanted.keys()
  for name, array in wanted.items():
    np.testing.assert_array_equal(got[name], array)
    assert got[name].dtype == array.dtype


@pytest.mark.parametrize('packed', [True, False])
def test_lists_of_values_are_read_and_the_last_one_repeats(tmp_path, packed):
  path = tmp_path / 'graph.pb'
  path.write_bytes(graph_files.listed('f', [1.5, -2.0], (4,), np.float32, packed)
                   + graph_files.listed('i', [-1, 300], (2,), np.int32, packed))
  got = graph_def.read_constants(path)
  np.testing.assert_array_equal(got['f'], np.float32([1.5, -2, -2, -2]))
  np.testing.assert_array_equal(got['i'], np.int32([-1, 300]))


def test_a_file_that_is_cut_or_another_is_one_line(tmp_path):
  path = tmp_path / 'graph.pb'
  whole = graph_files.constant('weights', np.arange(8, dtype=np.float32))
  for content in [whole[:n] for n in range(len(whole))] + [
      b'<html>not found</html>', bytes(100), bytes([255]) * 100, RNG.bytes(1000)]:
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
      graph_def.read_constants(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(UsageError, match='there is no file'):
    graph_def.read_constants(tmp_path / 'absent.pb')
