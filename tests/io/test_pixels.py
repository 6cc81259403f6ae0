"""Pixels between 8 bits and [-1, 1]."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.io.pixels import shrink, to_float, to_uint8


def test_to_uint8_cuts_off():
  """Like the reference's cast, ((x + 1) 127.5) clamped: 3.99 is 3, and nothing wraps around."""
  level = np.arange(256)
  for inside in (0.01, 0.5, 0.99):
    x = np.minimum((level + inside) / 127.5 - 1, 1)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(x, jnp.float32)), level)
  np.testing.assert_array_equal(to_uint8(jnp.array([-1e9, -1.1, -1.0, 1.0, 1.1, 1e9])),
                                [0, 0, 0, 255, 255, 255])


def test_to_float_spans_minus_1_to_1():
  """0 and 255 are the ends, and levels are 2 / 255 apart."""
  got = to_float(np.arange(256, dtype=np.uint8))
  np.testing.assert_allclose(got, np.linspace(-1, 1, 256), atol=1e-6)


@pytest.mark.parametrize('height, width', [(8, 12), (4, 6), (2, 3), (1, 1), (8, 3)])
def test_shrinking_averages_areas(height, width):
  """Every small pixel is the mean of its own rectangle, and of nothing else."""
  x = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
  h, w = 8 // height, 12 // width
  want = np.stack([np.stack([x[:, i * h:(i + 1) * h, j * w:(j + 1) * w].mean(axis=(1, 2))
                             for j in range(width)], axis=1) for i in range(height)], axis=1)
  np.testing.assert_allclose(shrink(x, height, width), want, atol=1e-6)


@pytest.mark.parametrize('height, width', [(3, 4), (5, 7), (8, 5), (7, 11), (9, 12)])
def test_areas_of_sides_that_do_not_divide_share_their_borders(height, width):
  """PyTorch's area interpolation: window i is floor(i H / h) .. ceil((i + 1) H / h)."""
  x = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
  def window(i, large, small):
    return slice(math.floor(i * large / small), math.ceil((i + 1) * large / small))
  want = np.stack([np.stack([x[:, window(i, 8, height), window(j, 12, width)].mean(axis=(1, 2))
                             for j in range(width)], axis=1) for i in range(height)], axis=1)
  np.testing.assert_allclose(shrink(x, height, width), want, atol=1e-6)
