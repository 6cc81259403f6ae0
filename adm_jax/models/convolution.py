"""The convolution, with gradients that are fast inside a scan on every platform.

XLA for CPUs brings convolutions into the layout of its fast kernels in a program's entry only. The
gradient that JAX derives has another layout, so that in the body of a `lax.scan` (guided sampling,
microbatches) it falls back to plain loops, 65 times slower (32 channels, 3 x 3, JAX 0.10 and 0.12).
Here CPUs get the same gradient as convolutions in the forward layout, on operands transposed
beforehand; other platforms get JAX's own. The price is that only reverse-mode derivatives exist.
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def _plain(x: Array, kernel: Array, padding: int) -> Array:
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(padding, padding)] * 2,
                                      dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, kernel: Array, padding: int) -> Array:
  """x [B H W I], kernel [K K I O] -> [B H' W' O]: stride 1, `padding` zeros on every side."""
  return _plain(x, kernel, padding)


def _forward(x, kernel, padding):
  return _plain(x, kernel, padding), (x, kernel)


def _backward(padding, residuals, gradient):
  return jax.lax.platform_dependent(
      *residuals, gradient, cpu=functools.partial(transposed_first, padding=padding),
      default=functools.partial(_derived, padding=padding))


convolve.defvjp(_forward, _backward)


def _derived(x: Array, kernel: Array, gradient: Array, padding: int) -> tuple[Array, Array]:
  """What JAX makes of `_plain`."""
  return jax.vjp(functools.partial(_plain, padding=padding), x, kernel)[1](gradient)


def transposed_first(x: Array, kernel: Array, gradient: Array,
                     padding: int) -> tuple[Array, Array]:
  """The gradients by x and by the kernel, as convolutions in the forward layout."""
  size = kernel.shape[0]
  turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)  # [K K O I]
  by_x = _plain(gradient, turned, size - 1 - padding)
  # Every entry of the kernel's gradient is a correlation over the batch and all pixels.
  by_kernel = _plain(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), padding)  # [I K K O]
  return by_x, by_kernel.transpose(1, 2, 0, 3)


def conv_general_dilated(lhs: Array, rhs: Array, window_strides, padding, *, lhs_dilation=None,
                         rhs_dilation=None, dimension_numbers=None, feature_group_count=1,
                         **kwargs) -> Array:
  """For `nn.Conv(conv_general_dilated=...)`: `convolve` where it applies, else JAX's function."""
  sides = {side for pair in padding for side in pair}
  square = rhs.shape[0] == rhs.shape[1]
  if (tuple(window_strides) == (1, 1) and len(sides) == 1 and square and feature_group_count == 1
      and set(lhs_dilation or (1,)) | set(rhs_dilation or (1,)) == {1}
      and not any(value is not None for value in kwargs.values())):
    return convolve(lhs, rhs, sides.pop())
  return jax.lax.conv_general_dilated(
      lhs, rhs, window_strides, padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
      dimension_numbers=dimension_numbers, feature_group_count=feature_group_count, **kwargs)
