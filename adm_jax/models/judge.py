"""A small classifier of clean images: it judges what other networks make."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError
from adm_jax.models import convolution
from adm_jax.models.blocks import precision, promote

Array = jax.Array
Dtype = Any


class Judge(nn.Module):
  """Gives logits of p(y | x): convolutions, a mean over neighboring pixels, a hidden layer.

  It shares nothing with the networks that it judges or that guide them: no attention, no
  normalization, no timestep. What comes into its last layer, `out`, are its features, f32[B
  features], at least 0. It is bound to one image size.

  Attributes:
    num_classes: number of logits.
    channels: of each convolution; images are halved after it, by the largest of four pixels, after
      the last one by their mean.
    features: width of the hidden layer.
    dtype: the convolutions compute in it.
    param_dtype: of the parameters.
  """
  num_classes: int
  channels: tuple[int, ...] = (32, 64, 64)
  features: int = 64
  dtype: Dtype = 'float32'  # a name, so that configs can hold it
  param_dtype: Dtype = 'float32'

  @nn.compact
  def __call__(self, x: Array, t: Array) -> Array:
    """x [B H W C], t [B], which is ignored -> logits f32[B num_classes]."""
    del t
    least = 2 ** len(self.channels)
    if min(x.shape[1:3]) < least:
      raise UsageError(f'images of {x.shape[1]} x {x.shape[2]} cannot be halved '
                       f'{len(self.channels)} times: give sides from {least} on, or fewer channels')
    # Deep in ReLUs, torch's initialization of `blocks` would shrink what the network sees.
    layer = functools.partial(self._layer, kernel_init=nn.initializers.he_normal())
    conv = functools.partial(layer, nn.Conv, self.dtype, kernel_size=(3, 3), padding=1,
                             conv_general_dilated=convolution.conv_general_dilated)
    h = x
    for i, channels in enumerate(self.channels):
      h = nn.relu(conv(features=channels, name=f'conv_{i}')(h))
      pool = nn.avg_pool if i == len(self.channels) - 1 else nn.max_pool
      h = pool(h, (2, 2), (2, 2))
    h = h.astype(jnp.float32).reshape(len(h), -1)
    h = nn.relu(layer(nn.Dense, jnp.float32, features=self.features, name='hidden')(h))
    return self._layer(nn.Dense, jnp.float32, features=self.num_classes, name='out')(h)

  def _layer(self, kind: type[nn.Module], dtype: Dtype, **kwargs: Any) -> nn.Module:
    return kind(dtype=dtype, param_dtype=self.param_dtype, precision=precision(dtype),
                promote_dtype=promote, **kwargs)
