"""Graph files: what an encoder of a few lines writes is read back; what is not whole is refused."""

import tracemalloc

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


def _mutated(whole: bytes, rng: np.random.Generator) -> bytes:
  """A few bytes are other ones, or gone, or there twice, or the file is cut."""
  data = bytearray(whole)
  for _ in range(rng.integers(1, 4)):
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 12))
    kind = rng.integers(4)
    if kind == 0:
      data[at] = rng.choice([0, 1, 0x7f, 0x80, 0xff, rng.integers(256)])
    elif kind == 1:
      del data[at:at + length]
    elif kind == 2:
      data[at:at] = data[at:at + length]
    else:
      data[at:at + length] = graph_files.varint(int(rng.integers(2**63)))
  return bytes(data) or b'\0'


def test_mutations_give_constants_or_one_line(tmp_path):
  """2,500 others were tried by hand."""
  rng, path, refused = np.random.default_rng(1), tmp_path / 'graph.pb', 0
  whole = (graph_files.constant('a', RNG.normal(size=(2, 3)).astype(np.float32))
           + graph_files.listed('b', [1.5, -2.0], (4,), np.float32, True)
           + graph_files.listed('c', [-1, 300], (2,), np.int32, False))
  for _ in range(500):
    path.write_bytes(_mutated(whole, rng))
    try:
      graph_def.read_constants(path)
    except UsageError as error:
      assert str(path) in str(error) and '\n' not in str(error)
      refused += 1
  assert refused > 200


def _tensor(*dims: int, values: bytes = b'') -> bytes:
  shape = b''.join(graph_files.message(2, graph_files.number(1, dim)) for dim in dims)
  return graph_files.number(1, 3) + graph_files.message(2, shape) + values


@pytest.mark.parametrize('content', [
    graph_files.node('a', 'Const', _tensor(2**40, values=graph_files.number(7, 1))),
    graph_files.node('a', 'Const', _tensor(2**10, 2**10, 2**10, values=graph_files.number(7, 1))),
    graph_files.node('a', 'Const', _tensor(-1, -1, values=graph_files.number(7, 1))),
    graph_files.node('a', 'Const', _tensor(-1, values=graph_files.message(4, bytes(4)))),
    graph_files.node('a', 'Const', _tensor(1, values=graph_files.number(7, 2**40))),
    graph_files.node('a', 'Const', _tensor(2, values=graph_files.message(7, bytes(10**7)))),
    graph_files.node('a', 'Const', _tensor(2**19, values=graph_files.number(7, 1))) * 5,
    graph_files.message(1, graph_files.number(3, 0) * 300_000),
    graph_files.message(1, b'') * 300_000,
    graph_files.message(1, graph_files.number(1, 2**40) + graph_files.message(2, b'Const')
                        + graph_files.message(5, graph_files.message(1, b'value')
                                              + graph_files.message(2, graph_files.message(
                                                  8, _tensor(1, values=graph_files.number(7, 1))))))
    ], ids=['count', 'volume', 'negative', 'negative-bytes', 'large', 'list', 'sum', 'fields',
            'nodes', 'name'])
def test_a_graph_of_any_claim_costs_little(tmp_path, content):
  path = tmp_path / 'graph.pb'
  path.write_bytes(content)
  tracemalloc.start(1)
  with pytest.raises(UsageError) as error:
    graph_def.read_constants(path)
  assert tracemalloc.get_traced_memory()[1] < 300e6
  tracemalloc.stop()
  assert str(path) in str(error.value) and '\n' not in str(error.value)
