"""Attention: queries, keys and values by a product each, and the kernel that a device is best at.

Letters: B batch, L tokens, C channels, N heads, D head width.
"""

import contextlib
import math
from typing import Any, Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.devices import sharding, target
from adm_jax.devices.target import Target
from adm_jax.errors import UsageError

Array = jax.Array
Dtype = Any
# Of JAX's flash kernel: logits [_BLOCK _BLOCK] of one head are what it holds at once.
_BLOCK = 1024
_NARROW_BLOCK = 128


class QueriesKeysValues(nn.Module):
  """A linear map to q, k and v, of one kernel [C 3C] and bias [3C] as in the reference.

  Attributes:
    num_heads: N, which divides C.
    qkv_first: how the 3C channels are cut: (q k v, N, D) if True, else (N, q k v, D).
    promote: (x, kernel, bias, dtype=...) -> the same in `dtype`.
    kernel_init, bias_init: of the parameters.
    precision: of the products.
  """
  num_heads: int
  qkv_first: bool
  promote: Callable
  kernel_init: Callable
  bias_init: Callable
  precision: Any
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array, Array]:
    """[B L C] -> three of [B L N D]."""
    channels = x.shape[-1]
    kernel = self.param('kernel', self.kernel_init, (channels, 3 * channels), self.param_dtype)
    bias = self.param('bias', self.bias_init, (3 * channels,), self.param_dtype)
    settings = self.num_heads, self.qkv_first, self.precision
    return self._product(x)(settings, *self.promote(x, kernel, bias, dtype=self.dtype))

  def _product(self, x: Array) -> Callable:
    """The form that pays on the device that is traced for."""
    device = target.current()
    if device.platform == 'tpu':
      return _apart
    # Where no fused kernel wants them whole, what follows reads q, k and v where they lie.
    fused = attention_implementation(self.dtype, x.shape[1], x.shape[2] // self.num_heads, device)
    return _together if fused == 'xla' else _apart_but_for_gradients


# num_heads, qkv_first and precision of a `QueriesKeysValues`.
Settings = tuple[int, bool, Any]


def _together(settings: Settings, x: Array, kernel: Array, bias: Array) -> tuple[Array, ...]:
  """One product, which is cut: on CPUs the fastest."""
  return _cut(settings, _product(settings, x, kernel) + bias[None, None])


def _apart(settings: Settings, x: Array, kernel: Array, bias: Array) -> tuple[Array, ...]:
  """A product each, with its columns of the kernel, so that no result has to be copied out.

  At 32 x 32 the copies took as long as cuDNN's kernel; of TPUs' kernel they were the larger part.
  """
  channels = x.shape[-1]
  kernels = (part.reshape(channels, channels) for part in _cut(settings, kernel))
  # Behind a barrier, or XLA for GPUs adds what it still has to cut by a kernel of its own.
  biases = jax.lax.optimization_barrier(
      tuple(part.reshape(channels) for part in _cut(settings, bias)))
  shape = *x.shape[:2], settings[0], channels // settings[0]
  return tuple((_product(settings, x, kernel) + bias[None, None]).reshape(shape)
               for kernel, bias in zip(kernels, biases, strict=True))


# GPUs read x three times for the gradients of three products, which costs more than the copies.
_apart_but_for_gradients = jax.custom_vjp(_apart, nondiff_argnums=(0,))
_apart_but_for_gradients.defvjp(
    lambda settings, *arrays: jax.vjp(lambda *arrays: _together(settings, *arrays), *arrays),
    lambda settings, pull, gradients: pull(gradients))


def _product(settings: Settings, x: Array, kernel: Array) -> Array:
  return jax.lax.dot_general(x, kernel, (((2,), (0,)), ((), ())), precision=settings[2])


def _cut(settings: Settings, array: Array) -> tuple[Array, Array, Array]:
  """[... 3C] -> three of [... N D]."""
  num_heads, qkv_first, _ = settings
  parts = (3, num_heads) if qkv_first else (num_heads, 3)
  array = array.reshape(*array.shape[:-1], *parts, array.shape[-1] // 3 // num_heads)
  return tuple(array[..., i, :, :] if qkv_first else array[..., i, :] for i in range(3))


def attend(q: Array, k: Array, v: Array, implementation: str | None = None) -> Array:
  """softmax(q k / sqrt(D)) v, of [B L N D] each.

  Args:
    q, k, v: of one dtype.
    implementation: 'xla', 'cudnn', 'flash', or None, which chooses by `attention_implementation`.
  """
  _, length, _, width = q.shape
  implementation = implementation or attention_implementation(q.dtype, length, width,
                                                              target.current())
  if implementation == 'flash':
    return sharding.on_each_device(_flash)(q, k, v)
  # Float32 means float32 (`blocks.precision`); the function has no argument for it.
  exact = jnp.dtype(q.dtype).itemsize >= 4
  with jax.default_matmul_precision('highest') if exact else contextlib.nullcontext():
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


def attention_implementation(dtype: Dtype, length: int, head_width: int, target: Target) -> str:
  """'cudnn' or 'flash' where its fused kernel runs and pays, else 'xla'.

  Fused kernels never write the [B N L L] logits to memory, forward or backward.

  cuDNN's, for NVIDIA's GPUs from compute capability 8 on, wants 16-bit numbers and heads of at most
  128 channels (256 from 9 on), a multiple of 8; at a length of 64 the logits are too small to
  matter. An exported program gets 'xla', as it may meet any GPU.

  JAX's own for TPUs wants whole blocks; at lengths below 1024 it only breaks even.
  """
  if jnp.dtype(dtype).itemsize != 2:
    return 'xla'
  if target.platform == 'tpu':
    return 'flash' if length % _BLOCK == 0 and head_width <= 256 else 'xla'
  if target.compute_capability is None or target.compute_capability < 8:
    return 'xla'
  widest = 256 if target.compute_capability >= 9 else 128
  return 'cudnn' if length >= 256 and head_width % 8 == 0 and head_width <= widest else 'xla'


def check_implementation(implementation: str | None, lengths: Iterable[int]) -> None:
  """Raises UsageError unless `attend` has this implementation for all these numbers of tokens."""
  if implementation not in (None, 'xla', 'cudnn', 'flash'):
    raise UsageError(f'attention_implementation={implementation!r} is unknown: give xla, cudnn, '
                     'flash, or None, which chooses for each level')
  odd = [length for length in lengths if length % _BLOCK]
  if implementation == 'flash' and odd:
    raise UsageError(f'attention_implementation=flash takes multiples of {_BLOCK} tokens, and a '
                     f'level with attention has {odd[0]}: give None, which chooses for each level')


def _flash(q: Array, k: Array, v: Array) -> Array:
  """JAX's Pallas kernel for TPUs, with its gradient; L is a multiple of `_BLOCK`."""
  from jax.experimental.pallas.ops.tpu import flash_attention
  wide = ('block_q', 'block_k_major', 'block_k', 'block_q_major_dkv', 'block_k_major_dkv',
          'block_k_dkv', 'block_q_dkv', 'block_q_dq')
  # The gradient by q is given an array [B N L block_k_major_dq], which is to be small.
  narrow = ('block_k_major_dq', 'block_k_dq')
  blocks = flash_attention.BlockSizes(
      block_b=1, **dict.fromkeys(wide, _BLOCK), **dict.fromkeys(narrow, _NARROW_BLOCK))
  h = flash_attention.flash_attention(
      *(a.swapaxes(1, 2) for a in (q, k, v)), sm_scale=1 / math.sqrt(q.shape[-1]),
      block_sizes=blocks)  # [B N L D]
  return h.swapaxes(1, 2)
