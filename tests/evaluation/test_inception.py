"""Inception: golden features, both kinds of weights, and TensorFlow 1's resize."""

import gzip
import json

import golden_files
import graph_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from adm_jax.errors import UsageError
from adm_jax.evaluation import graph_def, inception, inception_weights

BOUND, OF_SOFTMAX = 5e-5, 1e-3  # of the root mean square; 1.1e-5 and 3.1e-4 are reached


@pytest.fixture(scope='module')
def names():
  return json.loads(gzip.decompress(golden_files.find('inception_names.json.gz').read_bytes()))


@pytest.fixture(scope='module')
def state_dict(names):
  """The port's, by the rule of the golden features."""
  return golden_files.rule_weights({t['torch']: t['torch_shape'] for t in names['tensors']},
                                   seed=77, gain=1.6)


@pytest.fixture(scope='module')
def params(state_dict):
  return inception_weights.from_torch(state_dict)


@pytest.fixture(scope='module')
def features():
  """Of images of any size, one compilation for all: images of 299 x 299 stay as they are."""
  network = jax.jit(lambda params, x: inception.Inception().apply({'params': params}, x))
  return lambda params, x: network(params, 128 + 128 * inception.prepare(jnp.asarray(x)))


@pytest.mark.parametrize('size', [32, 64, 256])
def test_features_are_golden(size, params, features):
  _, golden = golden_files.load(golden_files.find('inception_features.npz'))
  got = features(params, golden[f'image_{size}'])
  assert golden_files.relative_error(got.pool, golden[f'pool_{size}']) < BOUND
  assert golden_files.relative_error(got.spatial, golden[f'spatial_{size}']) < BOUND
  softmax = jax.nn.softmax(got.logits)
  assert golden_files.relative_error(softmax, golden[f'softmax_{size}']) < OF_SOFTMAX


def test_every_published_name_has_its_place(names, params):
  for tensor in names['tensors']:
    assert inception_weights.graph_name(tensor['torch']) == tensor['graph']
  graph = {tensor['graph'] for tensor in names['tensors']}
  # The evaluator's logits have no bias.
  assert set(traverse_util.flatten_dict(params, sep='/')) == graph - {'softmax/biases'}
  assert inception_weights.GRAPH_BYTES == names['bytes']
  assert inception_weights.GRAPH_SHA256 == names['sha256']
  for other in ('AuxLogits.conv0.conv.weight', 'Mixed_5b.branch1x1.bn.num_batches_tracked',
                'Mixed_9z.branch1x1.conv.weight', 'Mixed_5b.branch9x9.conv.weight'):
    assert inception_weights.graph_name(other) is None


def test_a_graph_file_gives_exactly_the_same_parameters(names, state_dict, params, tmp_path):
  def in_graph(tensor):
    array = state_dict[tensor['torch']]
    return array.transpose(2, 3, 1, 0) if tensor['graph_layout'] == 'HWIO' else array.T
  path = tmp_path / 'graph.pb'
  path.write_bytes(b''.join(graph_files.constant(tensor['graph'], in_graph(tensor))
                            for tensor in names['tensors']))
  got = inception_weights.from_graph(graph_def.read_constants(path))
  jax.tree.map(np.testing.assert_array_equal, got, params)
  assert inception_weights.fingerprint(got) == inception_weights.fingerprint(params)
  with pytest.raises(UsageError, match='is not the published Inception graph') as error:
    inception_weights.load(path, bar=None)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['Conv2d_1a_3x3.conv.weight', 'Mixed_7c.branch_pool.bn.bias'])
def test_weights_of_another_network_are_refused(state_dict, name):
  for other in ({name: np.zeros((3, 2, 1, 1), np.float32)}, {}):
    rest = {key: array for key, array in state_dict.items() if key != name}
    with pytest.raises(UsageError, match='not the weights of the 2015 Inception network'):
      inception_weights.from_torch(rest | other)


def test_the_fingerprint_sees_every_weight(params):
  flat = traverse_util.flatten_dict(params)
  path = ('mixed_10', 'tower_1', 'mixed', 'conv_1', 'batchnorm', 'beta')
  changed = traverse_util.unflatten_dict(flat | {path: flat[path] + np.float32(1e-6)})
  assert inception_weights.fingerprint(changed) != inception_weights.fingerprint(params)


def test_gray_images_are_seen_as_rgb():
  gray = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
  np.testing.assert_array_equal(inception.prepare(gray),
                                inception.prepare(gray.repeat(3, axis=-1)))


def test_resizing_samples_at_i_times_the_scale_and_holds_the_edge():
  """A ramp has a closed form: min(i H / height, H - 1). Half-pixel centers would shift it."""
  ramp = jnp.arange(6.0)[None, :, None, None] + 10 * jnp.arange(4.0)[None, None, :, None]
  got = inception.resize(ramp, 9, 7)[0, :, :, 0]
  rows, columns = (np.minimum(np.arange(n) * have / n, have - 1) for n, have in ((9, 6), (7, 4)))
  np.testing.assert_allclose(got, rows[:, None] + 10 * columns[None], atol=1e-5)


def test_resizing_to_the_same_size_changes_nothing():
  x = jax.random.normal(jax.random.key(0), (1, 5, 7, 3))
  np.testing.assert_array_equal(inception.resize(x, 5, 7), x)
