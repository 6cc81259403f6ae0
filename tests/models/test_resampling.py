"""Resampling in the forms of TPUs against the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.devices.target import Target, tracing_for
from adm_jax.models import blocks, resampling


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def on(platform, function, *arrays):
  with tracing_for(Target(platform)):
    return function(*arrays)


def rms(x):
  return np.sqrt((np.asarray(x, np.float64) ** 2).mean())


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_averages_by_windows_are_the_same_bits(dtype):
  """Of pixels whose sums are exact, so that no order of adding them shows; gradients too."""
  x = jnp.round(normal(0, 2, 6, 8, 32) * 64).astype(dtype)

  def both(x):
    y, pull = jax.vjp(resampling.downsample, x)
    return y, *pull(jnp.round(normal(1, *y.shape) * 64).astype(dtype))
  for a, b in zip(on('tpu', both, x), on('cpu', both, x), strict=True):
    assert a.dtype == b.dtype == dtype
    np.testing.assert_array_equal(a, b)


def test_averages_by_windows_are_close_for_any_pixels():
  x = normal(0, 2, 6, 8, 32)
  np.testing.assert_allclose(on('tpu', resampling.downsample, x),
                             on('cpu', resampling.downsample, x), atol=1e-6)


def block(dtype):
  return blocks.ResBlock(32, resample=blocks.upsample, num_groups=4, dtype=dtype)


def values_and_gradients(platform, dtype):
  """A block that doubles its image, with all of its gradients."""
  x, e = normal(0, 2, 5, 6, 32), normal(1, 2, 16)
  params = block('float32').init(jax.random.key(2), x, e)
  params = jax.tree.map(lambda leaf: leaf + 0.1 * normal(3, *leaf.shape), params)

  def loss(params, x):
    y = block(dtype).apply(params, x, e)
    return (y.astype(jnp.float32) * normal(4, *y.shape)).sum(), y
  (_, y), gradients = on(platform, jax.value_and_grad(loss, (0, 1), has_aux=True), params,
                         x.astype(dtype))
  return [y, *jax.tree.leaves(gradients)]


def test_a_convolution_of_zeros_between_pixels_is_that_of_their_copies():
  for a, b in zip(values_and_gradients('tpu', 'float32'), values_and_gradients('cpu', 'float32'),
                  strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_in_16_bits_summed_taps_cost_no_precision_that_shows():
  """The taps' sums are rounded once more than the taps: a little of what the rest rounds."""
  exact = values_and_gradients('cpu', 'float32')
  plain, summed = (values_and_gradients(platform, 'bfloat16') for platform in ('cpu', 'tpu'))
  for a, b, c in zip(plain, summed, exact, strict=True):
    assert rms(b - c) <= 1.2 * rms(a - c) + 1e-3 * rms(c)
