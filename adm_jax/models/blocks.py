"""The parts that ADM's networks are built of (paper, section 3 and appendix; reference `unet.py`).

Letters: B batch, H W space, C channels, L = H * W tokens, N heads, D head width, E embedding.
Parameters are `param_dtype`; convolutions and attention compute in `dtype`; normalization
statistics, the softmax and the embedding layers are float32.
"""

import zlib
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from adm_jax.devices.sharding import gathered
from adm_jax.errors import UsageError
from adm_jax.models import convolution
from adm_jax.models.attention import QueriesKeysValues, attend
from adm_jax.models.norm import group_norm
from adm_jax.models.resampling import conv_upsampled, downsample, upsample

Array = jax.Array
Dtype = Any

# torch's default for convolutions and linear layers: U(-1, 1) / sqrt(fan_in).
kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
zeros_init = nn.initializers.zeros_init()


def bias_init(fan_in: int) -> Callable:
  """torch's default for the bias beside `kernel_init`: U(-1, 1) / sqrt(fan_in)."""
  bound = 1 / np.sqrt(fan_in)
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def promote(*arrays: Array | None, dtype: Dtype) -> tuple[Array | None, ...]:
  """For `nn.Conv(promote_dtype=...)`: (x, kernel, bias) in `dtype`, the weights `gathered`."""
  x, *weights = promote_dtype(*arrays, dtype=dtype)
  return (x, *map(gathered, weights))


def precision(dtype: Dtype) -> jax.lax.Precision | None:
  """The precision of convolutions and products of `dtype`, forward and in gradients.

  Float32 means float32. By JAX's default it would not: TPUs round both factors to bfloat16 and
  NVIDIA's GPUs may round them to TF32, 8 and 11 bits of 24, and what was compared with the
  reference on a CPU would hold nowhere else. Who wants speed asks for bfloat16, where there is one
  way to multiply and JAX's default stands.

  The embedding and the head, which stay float32 in a bfloat16 network, are float32 by the same
  rule. They are what reads the timestep and what writes the result, and no rounding of the trunk
  makes up for theirs; they cost little, since the embedding has a row per image instead of one per
  pixel, the U-Net's head makes 3 or 6 channels of hundreds, and the classifier's works at the
  smallest size.
  """
  return jax.lax.Precision.HIGHEST if jnp.dtype(dtype).itemsize >= 4 else None


def conv(channels: int, size: int, fan_in: int, *, strides: int = 1, zero: bool = False,
         upsampled: bool = False, dtype: Dtype, param_dtype: Dtype, name: str) -> nn.Conv:
  """A convolution of `size` x `size`, padded by size // 2, with torch's initialization or zeros.

  With `upsampled`, of the image after `upsample`.
  """
  return nn.Conv(channels, (size, size), strides, padding=size // 2,
                 kernel_init=zeros_init if zero else kernel_init,
                 bias_init=zeros_init if zero else bias_init(fan_in * size * size),
                 conv_general_dilated=conv_upsampled if upsampled else (
                     convolution.conv_general_dilated), promote_dtype=promote,
                 precision=precision(dtype), dtype=dtype, param_dtype=param_dtype, name=name)


def dense(features: int, fan_in: int, *, zero: bool = False, dtype: Dtype, param_dtype: Dtype,
          name: str) -> nn.Dense:
  """A linear map of the last axis, with torch's initialization or zeros."""
  return nn.Dense(features, kernel_init=zeros_init if zero else kernel_init,
                  bias_init=zeros_init if zero else bias_init(fan_in), promote_dtype=promote,
                  precision=precision(dtype), dtype=dtype, param_dtype=param_dtype, name=name)


def queries_keys_values(num_heads: int, channels: int, qkv_first: bool, *, dtype: Dtype,
                        param_dtype: Dtype, name: str) -> QueriesKeysValues:
  """The linear map before attention, with torch's initialization."""
  return QueriesKeysValues(num_heads, qkv_first, promote=promote, kernel_init=kernel_init,
                           bias_init=bias_init(channels), precision=precision(dtype), dtype=dtype,
                           param_dtype=param_dtype, name=name)


def timestep_embedding(t: Array, dim: int, max_period: float = 10000.0) -> Array:
  """Sinusoids of t [B], integer or float: f32[B dim], cosines first, then sines.

  Frequencies are exp(-ln(max_period) i / half), i = 0 .. half - 1; an odd `dim` ends in a zero.
  """
  half = dim // 2
  frequencies = np.exp(-np.log(max_period) * np.arange(half) / half).astype(np.float32)
  angles = t.astype(jnp.float32)[:, None] * frequencies[None]  # [B half]
  embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
  return jnp.pad(embedding, ((0, 0), (0, dim % 2)))


class Norm(nn.Module):
  """Group normalization, an optional scale and shift, and an optional SiLU (`group_norm`)."""
  num_groups: int = 32
  silu: bool = True
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
    """x [B ... C] -> same; `scale` and `shift` f32[B C] make it norm(x) * (1 + scale) + shift."""
    channels = x.shape[-1]
    if channels % self.num_groups:
      raise UsageError(f'{channels} channels cannot be normalized in {self.num_groups} groups: '
                       f'choose channels and multipliers whose products {self.num_groups} divides, '
                       'or another num_groups')
    gamma = self.param('scale', nn.initializers.ones_init(), (channels,), self.param_dtype)
    beta = self.param('bias', zeros_init, (channels,), self.param_dtype)
    return group_norm(x, gamma.astype(jnp.float32), beta.astype(jnp.float32), scale, shift,
                      self.num_groups, self.silu, self.dtype)


class Resample(nn.Module):
  """Halves or doubles the image between levels, for networks without residual resampling.

  With `learned`, down is a strided 3 x 3 convolution, and up is nearest neighbor and a
  convolution; without, down is average pooling, and up nearest neighbor.
  """
  up: bool
  learned: bool = True
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if not self.learned:
      return (upsample if self.up else downsample)(x)
    channels = x.shape[-1]
    return conv(channels, 3, channels, strides=1 if self.up else 2, upsampled=self.up,
                dtype=self.dtype, param_dtype=self.param_dtype, name='conv')(x)


def dropout(x: Array, rate: float, keys: Array) -> Array:
  """Zeroes values of x [B ...] with probability `rate` and divides the others by 1 - rate.

  What is zeroed of an example is a function of its own key of key[B], so that it is the same
  wherever the example is computed, and beside whichever others.
  """
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
  return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


class ResBlock(nn.Module):
  """Norm-SiLU-conv twice around the embedding, plus the skip; up or down inside if asked.

  Attributes:
    channels: of the output.
    resample: `upsample`, `downsample` or None; applied to both branches, to the inner one between
      SiLU and convolution.
    scale_shift: the embedding scales and shifts the second normalization (ADM's AdaGN) instead of
      being added before it.
    dropout: rate, before the last convolution.
  """
  channels: int
  resample: Callable[[Array], Array] | None = None
  scale_shift: bool = True
  dropout: float = 0.0
  num_groups: int = 32
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, embedding: Array, dropout_keys: Array | None = None) -> Array:
    """x [B H W C], embedding f32[B E] after SiLU -> [B H' W' channels].

    `dropout_keys` key[B] are the network's; each block draws its own masks from them.
    """
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    c = self.channels
    resample = self.resample or (lambda x: x)
    up = self.resample is upsample

    h = Norm(self.num_groups, **dtypes, name='norm_0')(x)
    h = h if up else resample(h)
    h = conv(c, 3, x.shape[-1], upsampled=up, **dtypes, name='conv_0')(h)
    x = resample(x)
    h = checkpoint_name(h, 'conv')  # the one value that `remat='blocks'` stores

    e = dense(2 * c if self.scale_shift else c, embedding.shape[-1], dtype=jnp.float32,
              param_dtype=self.param_dtype, name='embed')(embedding)
    norm = Norm(self.num_groups, **dtypes, name='norm_1')
    if self.scale_shift:
      h = norm(h, *jnp.split(e, 2, axis=-1))
    else:
      h = norm(h + e[:, None, None, :].astype(h.dtype))
    if dropout_keys is not None and self.dropout:
      name = zlib.crc32('/'.join(self.path).encode())
      h = dropout(h, self.dropout, jax.vmap(jax.random.fold_in, in_axes=(0, None))(
          dropout_keys, np.uint32(name)))
    h = conv(c, 3, c, zero=True, **dtypes, name='conv_1')(h)

    if x.shape[-1] != c:
      x = conv(c, 1, x.shape[-1], **dtypes, name='skip')(x)
    return x + h


class Attention(nn.Module):
  """Self-attention over all pixels, with a residual.

  Attributes:
    num_heads: N.
    qkv_first: how the 3C channels of `qkv` are cut: (q k v, N, D) if True, else (N, q k v, D), the
      reference's default. Same shapes, other meaning: of the published networks only the 64 x 64
      diffusion model has the former.
    implementation: 'xla', 'cudnn', 'flash', or None: see `attention.attention_implementation`.
  """
  num_heads: int
  qkv_first: bool = False
  num_groups: int = 32
  implementation: str | None = None
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B H W C] -> same."""
    batch, height, width, channels = x.shape
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    h = Norm(self.num_groups, silu=False, **dtypes, name='norm')(x)
    h = h.reshape(batch, height * width, channels)
    qkv = queries_keys_values(self.num_heads, channels, self.qkv_first, **dtypes, name='qkv')(h)
    h = attend(*qkv, self.implementation).reshape(batch, height * width, channels)
    h = dense(channels, channels, zero=True, **dtypes, name='out')(h)
    return x + h.reshape(x.shape)


def num_heads(channels: int, count: int, width: int | None) -> int:
  """N: `count`, or channels / `width` where the width of a head is given instead."""
  if width is None:
    if channels % count:
      raise UsageError(f'{channels} channels cannot be shared by {count} attention heads: choose '
                       f'num_heads that divides {channels}')
    return count
  if channels % width:
    raise UsageError(f'{channels} channels cannot be cut into attention heads of {width}: choose '
                     f'head_channels that divides {channels}')
  return channels // width


# What a network stores for its backward pass; the rest is computed again. Wrapping blocks, not the
# whole loss, matters: XLA hoists one large recomputation.
REMAT = {
    'none': lambda block: block,
    # A block's input and its first convolution's output: 8 to 12 times less memory, no convolution
    # computed twice.
    'blocks': lambda block: nn.remat(
        block, policy=jax.checkpoint_policies.save_only_these_names('conv')),
    # A block's input alone.
    'full': lambda block: nn.remat(block),
}


def remat(policy: str) -> tuple[type[ResBlock], type[Attention]]:
  """The ResBlock and Attention classes under a policy.

  As in the reference, attention's logits are not stored, unless the policy is 'none'.
  """
  if policy not in REMAT and policy != 'attention':
    raise UsageError(f'remat {policy!r} is unknown: give none, attention, blocks or full')
  attention = Attention if policy == 'none' else nn.remat(Attention)
  return REMAT.get(policy, REMAT['none'])(ResBlock), attention
