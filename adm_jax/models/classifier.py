"""The classifier of noisy images: the U-Net's descending half and a pool (`EncoderUNetModel`)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError
from adm_jax.models import encoder as encoder_lib
from adm_jax.models.attention import attend
from adm_jax.models.blocks import Norm, conv, dense, num_heads, queries_keys_values

Array = jax.Array
Dtype = Any
_HIDDEN = 2048  # width of the hidden layer of the spatial pools


class AttentionPool(nn.Module):
  """Attention from the mean over pixels to all of them, as in CLIP; bound to one image size."""
  out_channels: int
  head_channels: int
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B H W C] -> f32[B out_channels]."""
    batch, height, width, channels = x.shape
    dtypes = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
    h = x.reshape(batch, height * width, channels)
    h = jnp.concatenate([h.mean(axis=1, keepdims=True), h], axis=1)  # [B 1+L C]
    position = self.param('position', nn.initializers.normal(channels ** -0.5),
                          (1 + height * width, channels), self.param_dtype)
    h = h + position[None].astype(h.dtype)
    heads = num_heads(channels, 1, self.head_channels)
    h = attend(*queries_keys_values(heads, channels, True, **dtypes, name='qkv')(h))[:, 0]
    return dense(self.out_channels, channels, **dtypes, name='out')(h.reshape(batch, channels))


class Classifier(nn.Module):
  """Gives logits of p(y | x_t) from (x_t, t).

  Attributes:
    num_classes: number of logits.
    in_channels: of x.
    pool: 'attention' (ADM's; only works at `image_size`), 'adaptive' (mean over pixels), 'spatial'
      or 'spatial_v2' (a perceptron on the means of every stage).
    others: as in `unet.UNet`.
  """
  image_size: int | tuple[int, int]
  num_classes: int
  in_channels: int = 3
  channels: int = 128
  channel_mult: tuple[float, ...] = (1, 2, 3, 4)
  depth: int = 2
  attention_resolutions: tuple[int, ...] = (32, 16, 8)
  num_heads: int = 1
  head_channels: int | None = 64
  pool: str = 'attention'
  dropout: float = 0.0
  resblock_updown: bool = True
  conv_resample: bool = True
  scale_shift: bool = True
  qkv_first: bool = False
  num_groups: int = 32
  remat: str = 'none'
  attention_implementation: str | None = None
  dtype: Dtype = 'float32'  # a name, so that configs can hold it
  param_dtype: Dtype = 'float32'

  def __post_init__(self):
    super().__post_init__()
    encoder_lib.check(self, (self.num_heads,))
    if self.pool not in ('attention', 'adaptive', 'spatial', 'spatial_v2'):
      raise UsageError(f'pool {self.pool!r} is unknown: give attention, adaptive, spatial or '
                       'spatial_v2')
    if self.pool == 'attention' and self.head_channels is None:
      raise UsageError("pool 'attention' needs head_channels, the width of its heads")

  @nn.compact
  def __call__(self, x: Array, t: Array, *, dropout_keys: Array | None = None) -> Array:
    """x [B H W in_channels], t [B] integer or float -> logits f32[B num_classes].

    With `dropout_keys` key[B], one per example, dropout is on.
    """
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    res_block, attention = encoder_lib.network_blocks(self)
    widths, attended = encoder_lib.network_levels(self)
    embedding = encoder_lib.Embedding(self.channels, None, self.param_dtype,
                                      name='embedding')(t, None)
    encoder_lib.check_channels(x, self.in_channels)
    h, stages = encoder_lib.Encoder(
        widths, self.depth, attended, res_block, attention, self.resblock_updown,
        self.conv_resample, **dtypes, name='encoder')(x, embedding, dropout_keys)

    head = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
    if self.pool in ('adaptive', 'attention'):
      h = Norm(self.num_groups, **head, name='norm_out')(h)
    if self.pool == 'adaptive':
      h = conv(self.num_classes, 1, h.shape[-1], zero=True, **head, name='out')(
          h.mean(axis=(1, 2), keepdims=True))
      return h[:, 0, 0]
    if self.pool == 'attention':
      return AttentionPool(self.num_classes, self.head_channels, self.param_dtype, name='pool')(h)

    h = jnp.concatenate([stage.astype(jnp.float32).mean(axis=(1, 2)) for stage in (*stages, h)],
                        axis=-1)
    h = dense(_HIDDEN, h.shape[-1], **head, name='hidden')(h)
    h = nn.relu(h) if self.pool == 'spatial' else Norm(**head, name='norm_out')(h)
    return dense(self.num_classes, _HIDDEN, **head, name='out')(h)
