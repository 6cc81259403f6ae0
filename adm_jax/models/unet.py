"""ADM's U-Net (Dhariwal & Nichol 2021, section 3; reference `UNetModel`)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError
from adm_jax.models import encoder as encoder_lib
from adm_jax.models.blocks import Norm, Resample, conv, upsample

Array = jax.Array
Dtype = Any


class UNet(nn.Module):
  """Predicts `out_channels` from (x_t, t), and a class where it has them.

  Works on any H x W that the levels divide; `image_size` only says what the attention resolutions
  refer to.

  Attributes:
    image_size: H = W, or (H, W), in pixels, that the network is made for.
    out_channels: twice the image's where the variance is learned.
    in_channels: of x.
    channels: base width; level l has int(channel_mult[l] * channels).
    channel_mult: one entry per level; fractions are allowed.
    depth: ResBlocks per level (the decoder has one more).
    attention_resolutions: pixels of the shorter side where blocks are followed by attention.
    num_heads: attention heads, where `head_channels` is None.
    num_heads_upsample: the same for the decoder; None: as `num_heads`.
    head_channels: width of a head, instead of a number.
    num_classes: rows of the class table; None for an unconditional network.
    takes_scale: it is told how strongly to guide its images, as a distilled network is.
    dropout: rate, active if called with `dropout_keys`.
    resblock_updown: resample in ResBlocks (BigGAN's) rather than by convolution or pooling.
    conv_resample: without `resblock_updown`, resample by convolutions rather than pooling.
    scale_shift: the embedding scales and shifts normalizations (AdaGN) rather than being added.
    qkv_first: the "new attention order" of the reference, see `blocks.Attention`.
    num_groups: of the normalizations; it divides every width. As many as `channels` would normalize
      each channel alone, and no mean over a whole image, as its color, would get through.
    remat: what the backward pass stores: none, attention, blocks or full (`blocks.remat`).
    attention_implementation: 'xla', 'cudnn', 'flash', or None: see `attention.py`.
    dtype: of activations; bfloat16 on accelerators.
    param_dtype: of parameters.
  """
  image_size: int | tuple[int, int]
  out_channels: int
  in_channels: int = 3
  channels: int = 128
  channel_mult: tuple[float, ...] = (1, 2, 3, 4)
  depth: int = 2
  attention_resolutions: tuple[int, ...] = (16, 8)
  num_heads: int = 4
  num_heads_upsample: int | None = None
  head_channels: int | None = None
  num_classes: int | None = None
  takes_scale: bool = False
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
    encoder_lib.check(self, (self.num_heads, self.num_heads_upsample or self.num_heads))

  @nn.compact
  def __call__(self, x: Array, t: Array, y: Array | None = None, *, scale: Array | None = None,
               dropout_keys: Array | None = None) -> Array:
    """Evaluates the network.

    Args:
      x: [B H W in_channels], noised images.
      t: [B], integer or float: the time of the process the network is trained on.
      y: i32[B], classes; only for class-conditional networks.
      scale: f32[B], of the guidance; only for networks that take it.
      dropout_keys: key[B], one per example: dropout on.

    Returns:
      f32[B H W out_channels].
    """
    if (scale is None) == self.takes_scale:
      raise UsageError('the network takes a guidance scale: give one for each image'
                       if scale is None else 'the network takes no guidance scale: call it without')
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    res_block, attention = encoder_lib.network_blocks(self)
    widths, attended = encoder_lib.network_levels(self)
    embedding = encoder_lib.Embedding(self.channels, self.num_classes, self.param_dtype,
                                      name='embedding')(t, y, scale)
    encoder_lib.check_channels(x, self.in_channels)
    h, skips = encoder_lib.Encoder(
        widths, self.depth, attended, res_block, attention, self.resblock_updown,
        self.conv_resample, **dtypes, name='encoder')(x, embedding, dropout_keys)

    decoder_heads = self.num_heads_upsample or self.num_heads
    for level, width in reversed(list(enumerate(widths))):
      for i in range(self.depth + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = res_block(width, name=f'up_{level}_{i}')(h, embedding, dropout_keys)
        if level in attended:
          h = attention(width, decoder_heads, name=f'up_{level}_{i}_attn')(h)
      if level:
        name = f'up_{level}_resample'
        if self.resblock_updown:
          h = res_block(width, resample=upsample, name=name)(h, embedding, dropout_keys)
        else:
          h = Resample(up=True, learned=self.conv_resample, **dtypes, name=name)(h)

    # The head computes in float32, whatever the trunk's dtype.
    head = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
    h = Norm(self.num_groups, **head, name='norm_out')(h)
    return conv(self.out_channels, 3, h.shape[-1], zero=True, **head, name='conv_out')(h)
