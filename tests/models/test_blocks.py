"""The parts of the networks against their textbook formulas, and how they start."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.models import blocks


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


# ---------------------------------------------------------------------------------------------
# Time.


@pytest.mark.parametrize('t', [[0, 1, 999], [0.0, 2.5, 997.5]], ids=['integer', 'float'])
@pytest.mark.parametrize('dim', [8, 128, 9])
def test_timestep_embedding_is_cosines_then_sines(t, dim):
  """Of t exp(-ln(10000) i / half), i < half; an odd width ends in a zero."""
  got = blocks.timestep_embedding(jnp.array(t), dim)
  half = dim // 2
  angles = np.array(t, np.float64)[:, None] * 10000.0 ** (-np.arange(half) / half)
  want = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((3, dim % 2))], axis=1)
  # An angle of 999 is rounded to 6e-5 in float32.
  np.testing.assert_allclose(got, want, atol=2e-4)


def test_embeddings_of_equal_distances_are_alike():
  """<e(s), e(t)> depends on s - t alone: cos a cos b + sin a sin b = cos(a - b)."""
  t = jnp.array([0.0, 7.5, 100.0])
  first, second = blocks.timestep_embedding(t, 64), blocks.timestep_embedding(t + 3.25, 64)
  products = (first * second).sum(axis=1)
  np.testing.assert_allclose(products, products[0], rtol=1e-4)


def test_a_float_timestep_lies_between_its_neighbors():
  """t is not cut to an integer on the way."""
  e = blocks.timestep_embedding(jnp.array([10.0, 10.5, 11.0]), 32)
  assert jnp.abs(e[1] - e[0]).max() > 0.1 and jnp.abs(e[1] - e[2]).max() > 0.1


# ---------------------------------------------------------------------------------------------
# Normalization.


def group_norm(x, num_groups, gamma, beta):
  """In float64, as the paper writes it; over space and the channels of a group."""
  x = np.asarray(x, np.float64)
  groups = x.reshape(x.shape[0], -1, num_groups, x.shape[-1] // num_groups)
  mean = groups.mean(axis=(1, 3), keepdims=True)
  variance = ((groups - mean) ** 2).mean(axis=(1, 3), keepdims=True)
  return ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * gamma + beta


def silu(x):
  return x / (1 + np.exp(-x))


@pytest.mark.parametrize('mean, atol', [(0.0, 1e-5), (3.0, 1e-5), (1000.0, 5e-4)])
@pytest.mark.parametrize('shape', [(2, 5, 3, 64), (3, 7, 32), (2, 2048)])
def test_norm_is_group_normalization(shape, mean, atol):
  """On images, tokens and vectors, also where the mean is a thousand standard deviations: only the
  rounding of the input is left, 6e-5 of 1."""
  gamma, beta = np.asarray(normal(1, shape[-1])), np.asarray(normal(2, shape[-1]))
  x = mean + normal(0, *shape)
  got = blocks.Norm(silu=False).apply({'params': {'scale': gamma, 'bias': beta}}, x)
  np.testing.assert_allclose(got, group_norm(x, 32, gamma, beta), atol=atol)


def test_norm_scales_and_shifts_before_the_silu():
  """silu(norm(x) (1 + scale) + shift), each [B C]: adaptive normalization in one pass."""
  x, scale, shift = normal(0, 2, 4, 6, 64), normal(1, 2, 64), normal(2, 2, 64)
  gamma, beta = np.asarray(normal(3, 64)), np.asarray(normal(4, 64))
  got = blocks.Norm().apply({'params': {'scale': gamma, 'bias': beta}}, x, scale, shift)
  want = group_norm(x, 32, gamma, beta) * (1 + scale[:, None, None]) + shift[:, None, None]
  np.testing.assert_allclose(got, silu(want), atol=2e-5)


def test_norm_takes_statistics_in_float32():
  """Of a bfloat16 input; only the result is rounded to it."""
  x = (8 + normal(0, 2, 4, 4, 32)).astype(jnp.bfloat16)
  norm = blocks.Norm(silu=False, dtype=jnp.bfloat16)
  got = norm.apply({'params': {'scale': jnp.ones(32), 'bias': jnp.zeros(32)}}, x)
  assert got.dtype == jnp.bfloat16
  want = group_norm(x.astype(jnp.float32), 32, 1.0, 0.0)
  np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2 ** -8, atol=1e-4)


def test_norm_refuses_channels_that_its_groups_do_not_divide():
  with pytest.raises(UsageError, match='48 channels .* 32 groups'):
    blocks.Norm().init(jax.random.key(0), jnp.zeros((1, 2, 2, 48)))


# ---------------------------------------------------------------------------------------------
# Resampling.


def test_down_undoes_up():
  """Nearest neighbor repeats a pixel four times; the average of four equal pixels is one."""
  x = normal(0, 2, 3, 5, 4)
  large = blocks.upsample(x)
  assert large.shape == (2, 6, 10, 4)
  np.testing.assert_array_equal(large, np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
  np.testing.assert_allclose(blocks.downsample(large), x, rtol=1e-6)


def test_down_keeps_the_mean():
  x = normal(0, 2, 6, 4, 3)
  np.testing.assert_allclose(blocks.downsample(x).mean(axis=(1, 2)), x.mean(axis=(1, 2)), atol=1e-6)


@pytest.mark.parametrize('up', [False, True])
def test_resampling_without_weights_is_pooling_or_repetition(up):
  """`learned` adds a convolution, in the lower case instead of the pooling."""
  x = normal(0, 1, 4, 6, 32)
  plain, fixed = blocks.Resample(up, learned=False).init_with_output(jax.random.key(0), x)
  np.testing.assert_array_equal(plain, (blocks.upsample if up else blocks.downsample)(x))
  assert not fixed
  learned, variables = blocks.Resample(up).init_with_output(jax.random.key(0), x)
  assert learned.shape == plain.shape
  # An identity kernel: the convolution reads the enlarged image, or every second pixel.
  kernel = jnp.zeros((3, 3, 32, 32)).at[1, 1].set(jnp.eye(32))
  params = {'conv': {'kernel': kernel, 'bias': jnp.zeros(32)}}
  assert jax.tree.map(jnp.shape, variables['params']) == jax.tree.map(jnp.shape, params)
  got = blocks.Resample(up).apply({'params': params}, x)
  np.testing.assert_allclose(got, plain if up else x[:, ::2, ::2], atol=1e-6)


@pytest.mark.parametrize('resample', [None, blocks.upsample, blocks.downsample])
@pytest.mark.parametrize('scale_shift', [False, True])
def test_a_fresh_block_is_its_skip(resample, scale_shift):
  """Its last convolution starts at zero: what comes out is the resampled input."""
  block = blocks.ResBlock(32, resample=resample, scale_shift=scale_shift)
  x = normal(0, 2, 4, 6, 32)
  got, _ = block.init_with_output(jax.random.key(0), x, normal(1, 2, 128))
  np.testing.assert_array_equal(got, (resample or (lambda x: x))(x))


@pytest.mark.parametrize('scale_shift', [False, True])
def test_a_block_is_its_formula(scale_shift):
  """conv(silu(norm(.))) twice; the embedding is added before the second norm, or scales and shifts
  it."""
  block = blocks.ResBlock(64, scale_shift=scale_shift)
  x, e = np.asarray(normal(0, 2, 4, 6, 32)), np.asarray(normal(1, 2, 128))
  shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, e))['params']
  leaves, tree = jax.tree.flatten(shapes)
  params = jax.tree.unflatten(tree, [
      np.asarray(0.2 * normal(i, *leaf.shape)) for i, leaf in enumerate(leaves)])

  def conv(name, x):
    kernel = params[name]['kernel']
    x = jax.lax.conv_general_dilated(jnp.asarray(x, jnp.float32), kernel, (1, 1), 'SAME',
                                     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return np.asarray(x) + params[name]['bias']

  def norm(name, x):
    return group_norm(x, 32, params[name]['scale'], params[name]['bias'])

  h = conv('conv_0', silu(norm('norm_0', x)))
  embedded = (e @ params['embed']['kernel'] + params['embed']['bias'])[:, None, None]
  if scale_shift:
    h = norm('norm_1', h) * (1 + embedded[..., :64]) + embedded[..., 64:]
  else:
    h = norm('norm_1', h + embedded)
  want = conv('conv_1', silu(h)) + conv('skip', x)
  got = block.apply({'params': params}, x, e)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# Attention.


def attention(qkv_first=False, heads=4):
  """(module, params without zeros, x [2 3 4 32])."""
  module, x = blocks.Attention(heads, qkv_first), normal(0, 2, 3, 4, 32)
  params = module.init(jax.random.key(0), x)['params']
  params['out']['kernel'] = normal(1, 32, 32)
  return module, params, x


def test_the_two_orders_differ_by_a_permutation_of_weights():
  """Column (head, q k v, d) of one is column (q k v, head, d) of the other; unpermuted, the same
  weights mean another network."""
  heads, width = 4, 8
  module, params, x = attention()
  other, _, _ = attention(qkv_first=True)
  want = module.apply({'params': params}, x)
  assert jnp.abs(other.apply({'params': params}, x) - want).max() > 0.1
  column = np.arange(96).reshape(heads, 3, width).swapaxes(0, 1).ravel()
  params['qkv'] = jax.tree.map(lambda leaf: leaf[..., column], params['qkv'])
  np.testing.assert_allclose(other.apply({'params': params}, x), want, atol=1e-5)


def test_attention_does_not_know_where_pixels_are():
  """A permutation of the pixels goes through it unchanged."""
  module, params, x = attention()
  place = np.random.default_rng(0).permutation(12)

  def permute(x):
    return x.reshape(2, 12, 32)[:, place].reshape(x.shape)

  got = module.apply({'params': params}, permute(x))
  np.testing.assert_allclose(got, permute(module.apply({'params': params}, x)), atol=1e-5)


def test_fresh_attention_is_the_identity():
  """Its last map starts at zero."""
  x = normal(0, 2, 3, 4, 32)
  got, _ = blocks.Attention(2).init_with_output(jax.random.key(0), x)
  np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize('channels, count, width, heads', [
    (64, 4, None, 4), (64, 4, 16, 4), (64, 1, 64, 1), (192, 4, 64, 3)])
def test_heads_are_given_by_number_or_by_width(channels, count, width, heads):
  """A width, where there is one, decides."""
  assert blocks.num_heads(channels, count, width) == heads


@pytest.mark.parametrize('count, width, words', [
    (3, None, '64 channels .* by 3 attention heads'), (4, 48, '64 channels .* heads of 48')])
def test_heads_that_do_not_divide_are_refused(count, width, words):
  with pytest.raises(UsageError, match=words):
    blocks.num_heads(64, count, width)


# ---------------------------------------------------------------------------------------------
# Initialization.


def layers():
  kwargs = dict(dtype=jnp.float32, param_dtype=jnp.float32, name='layer')
  return {'conv_3': (lambda: blocks.conv(64, 3, 48, **kwargs), (1, 4, 4, 48), 9 * 48),
          'conv_1': (lambda: blocks.conv(128, 1, 64, **kwargs), (1, 4, 4, 64), 64),
          'dense': (lambda: blocks.dense(256, 100, **kwargs), (1, 100), 100)}


class One(nn.Module):
  """A single layer that the functions under test make."""
  make: object

  @nn.compact
  def __call__(self, x):
    return self.make()(x)


@pytest.mark.parametrize('name', ['conv_3', 'conv_1', 'dense'])
def test_kernels_and_biases_start_uniform_within_torch_s_bound(name):
  """U(-1, 1) / sqrt(fan_in): the bound is reached and not passed, the variance is a third of its
  square."""
  make, shape, fan_in = layers()[name]
  params = One(make).init(jax.random.key(0), jnp.zeros(shape))['params']['layer']
  bound = 1 / np.sqrt(fan_in)
  kernel, bias = np.asarray(params['kernel']), np.asarray(params['bias'])
  assert 0.99 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
  np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
  assert 0.9 * bound < np.abs(bias).max() <= bound
  assert abs(kernel.mean()) < 0.05 * bound and len(np.unique(bias)) == bias.size
