"""A small classifier of clean images: it judges what other networks make."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.models.blocks import conv, dense

Array = jax.Array
Dtype = Any


class Judge(nn.Module):
  """Gives logits of p(y | x): convolutions, the mean over pixels, a hidden layer.

  It shares nothing with the networks that it judges or that guide them: no attention, no
  normalization, no timestep. What comes into its last layer, `out`, are its features: f32[B
  features], at least 0.

  Attributes:
    num_classes: number of logits.
    in_channels: of x.
    channels: of each convolution; images are halved between them.
    features: width of the hidden layer.
    dtype: the convolutions compute in it.
    param_dtype: of the parameters.
  """
  num_classes: int
  in_channels: int = 1
  channels: tuple[int, ...] = (32, 64, 128)
  features: int = 64
  dtype: Dtype = 'float32'  # a name, so that configs can hold it
  param_dtype: Dtype = 'float32'

  @nn.compact
  def __call__(self, x: Array, t: Array) -> Array:
    """x [B H W in_channels], t [B], which is ignored -> logits f32[B num_classes]."""
    del t
    h, width = x, self.in_channels
    for i, channels in enumerate(self.channels):
      if i:
        h = nn.max_pool(h, (2, 2), (2, 2))
      h = nn.relu(conv(channels, 3, width, dtype=self.dtype, param_dtype=self.param_dtype,
                       name=f'conv_{i}')(h))
      width = channels
    h = h.astype(jnp.float32).mean(axis=(1, 2))  # [B C]
    head = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
    h = nn.relu(dense(self.features, width, **head, name='hidden')(h))
    return dense(self.num_classes, self.features, **head, name='out')(h)
