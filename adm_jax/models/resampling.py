"""Halving and doubling images, in the form that a device does well."""

from typing import Any

import jax
import jax.numpy as jnp

from adm_jax.devices import target
from adm_jax.models import convolution

Array = jax.Array


def upsample(x: Array) -> Array:
  """Nearest neighbor: [B H W C] -> [B 2H 2W C]."""
  batch, height, width, channels = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
  return x.reshape(batch, 2 * height, 2 * width, channels)


def downsample(x: Array) -> Array:
  """Average over 2 x 2: [B H W C] -> [B H/2 W/2 C]."""
  if target.current().platform == 'tpu':
    return _downsample_by_windows(x)
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _downsample_by_windows(x: Array) -> Array:
  """The same sums without an array of six dimensions, which TPUs would lay out anew."""
  windows = jax.lax.reduce_window(x.astype(jnp.float32), 0.0, jax.lax.add, (1, 2, 2, 1),
                                  (1, 2, 2, 1), 'VALID')
  return (windows / 4).astype(x.dtype)


def conv_upsampled(lhs: Array, rhs: Array, window_strides: Any, padding: Any,
                   **kwargs: Any) -> Array:
  """For `nn.Conv(conv_general_dilated=...)`: the convolution of 3 x 3 of `upsample(lhs)`."""
  if target.current().platform == 'tpu' and rhs.shape[:2] == (3, 3):
    return _conv_of_zeros_between(lhs, rhs, kwargs.get('precision'))
  return convolution.conv_general_dilated(upsample(lhs), rhs, window_strides, padding, **kwargs)


def _conv_of_zeros_between(x: Array, kernel: Array, precision: Any) -> Array:
  """x [B H W I], kernel [3 3 I O] -> [B 2H 2W O], with zeros instead of copies between pixels.

  A pixel's four copies are sums of that image over 2 x 2, so the kernel's taps are summed instead,
  in float32: 4 x 4 of them, of which a pixel meets four that are not beside a zero, instead of 9.
  """
  taps = jax.lax.pad(kernel.astype(jnp.float32), jnp.float32(0),
                     [(1, 1, 0), (1, 1, 0), (0, 0, 0), (0, 0, 0)])
  for axis in (0, 1):
    first, second = (jax.lax.slice_in_dim(taps, i, i + 4, axis=axis) for i in (0, 1))
    taps = first + second
  return jax.lax.conv_general_dilated(
      x, taps.astype(kernel.dtype), (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=precision)
