"""The convolution, with gradients that are fast inside a scan on every platform.

XLA for CPUs brings convolutions into the layout of its fast kernels in a program's entry only. The
gradient that JAX derives has another layout, so that in the body of a `lax.scan` (guided sampling,
microbatches) it falls back to plain loops, 65 times slower (32 channels, 3 x 3, JAX 0.10 and 0.12).
Here CPUs get the same gradient as a convolution in the forward layout and as matrix products, which
take half the time of XLA's gradient by the kernel even outside of scans; other platforms get JAX's
own. The price is that only reverse-mode derivatives exist.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Precision = Any  # JAX's, or None

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def _plain(x: Array, kernel: Array, precision: Precision) -> Array:
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=_LAYOUT,
                                      precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, kernel: Array, precision: Precision = None) -> Array:
  """x [B H W I], kernel [K K I O], K odd -> [B H W O]: stride 1, K // 2 zeros on every side.

  `precision` is JAX's, of the gradients too.
  """
  return _plain(x, kernel, precision)


def _forward(x, kernel, precision):
  return _plain(x, kernel, precision), (x, kernel)


def _backward(precision, residuals, gradient):
  for_cpus, derived = (functools.partial(way, precision=precision) for way in (_for_cpus, _derived))
  return jax.lax.platform_dependent(*residuals, gradient, cpu=for_cpus, default=derived)


convolve.defvjp(_forward, _backward)


def _derived(x: Array, kernel: Array, gradient: Array,
             precision: Precision = None) -> tuple[Array, Array]:
  """What JAX makes of `_plain`, which is linear in each."""
  by_x, = jax.linear_transpose(lambda x: _plain(x, kernel, precision), x)(gradient)
  by_kernel, = jax.linear_transpose(lambda kernel: _plain(x, kernel, precision), kernel)(gradient)
  return by_x, by_kernel


def _for_cpus(x: Array, kernel: Array, gradient: Array,
              precision: Precision = None) -> tuple[Array, Array]:
  """The gradient by x as a convolution in the forward layout, that by the kernel as products."""
  turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)  # [K K O I]
  return (_plain(gradient, turned, precision),
          _by_kernel(x, gradient, kernel.shape[0], precision))


def _by_kernel(x: Array, gradient: Array, size: int, precision: Precision) -> Array:
  """The gradient by the kernel as matrix products over the batch and all pixels.

  kernel'[a b i o] = sum_n,h,w x[n, h, w + b - p, i] gradient[n, h - a + p, w, o], where p is the
  padding: the columns of x are shifted, the rows of the gradient. Columns are shifted where all
  pixels lie in one line, which is one fast copy, and zeroed where the line broke.
  """
  (batch, height, width, inputs), outputs = x.shape, gradient.shape[-1]
  pixels = batch * height * width
  # The barrier keeps the transposition a fast copy of its own.
  line = jax.lax.optimization_barrier(x.transpose(3, 0, 1, 2).reshape(inputs, pixels))
  place = jnp.arange(pixels) % width
  columns = []
  for shift in _shifts(size):
    moved = jax.lax.pad(line, jnp.zeros((), x.dtype), [(0, 0, 0), (-shift, shift, 0)])
    columns.append(jnp.where((place + shift >= 0) & (place + shift < width), moved, 0))
  columns = jnp.concatenate(columns)  # [K I, B H W]
  rows = [jax.lax.pad(gradient, jnp.zeros((), x.dtype),
                      [(0, 0, 0), (shift, -shift, 0), (0, 0, 0), (0, 0, 0)])
          for shift in _shifts(size)]
  products = [jnp.matmul(columns, row.reshape(pixels, outputs), precision=precision)
              for row in rows]
  return jnp.stack(products).reshape(size, size, inputs, outputs)


def _shifts(size: int) -> range:
  """Of a kernel's taps from its center."""
  return range(-(size // 2), size // 2 + 1)


def conv_general_dilated(lhs: Array, rhs: Array, window_strides, padding, *, lhs_dilation=None,
                         rhs_dilation=None, dimension_numbers=None, feature_group_count=1,
                         precision: Precision = None, **kwargs) -> Array:
  """For `nn.Conv(conv_general_dilated=...)`: `convolve` where it applies, else JAX's function."""
  height, width = rhs.shape[:2]
  same = height == width and height % 2 and all(
      tuple(pair) == (height // 2, height // 2) for pair in padding)
  if (same and tuple(window_strides) == (1, 1) and feature_group_count == 1
      and set(lhs_dilation or (1,)) | set(rhs_dilation or (1,)) == {1}
      and not any(value is not None for value in kwargs.values())):
    return convolve(lhs, rhs, precision)
  return jax.lax.conv_general_dilated(
      lhs, rhs, window_strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
      dimension_numbers=dimension_numbers, feature_group_count=feature_group_count,
      precision=precision, **kwargs)
