"""The descending half that the U-Net and the classifier share, and the arithmetic of its levels."""

import functools
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError
from adm_jax.models.attention import check_implementation
from adm_jax.models.blocks import (
  Resample,
  conv,
  dense,
  downsample,
  num_heads,
  remat,
  timestep_embedding,
)

Array = jax.Array
Dtype = Any
Size = int | tuple[int, int]
# The reference's largest networks have 18; of many more, the shapes alone would take hours.
_MOST_BLOCKS, _MOST_CHANNELS = 256, 65_536


def height_width(image_size: Size) -> tuple[int, int]:
  """(H, W) of a size that may be one number."""
  return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def check_size(image_size: Size, num_levels: int) -> None:
  """Raises UsageError unless every level can be halved from the one above."""
  divisor = 2 ** (num_levels - 1)
  if any(side % divisor for side in height_width(image_size)):
    height, width = height_width(image_size)
    raise UsageError(f'image size {height} x {width} cannot be halved {num_levels - 1} times for '
                     f'{num_levels} levels: use sides divisible by {divisor}, or fewer levels')


def check_channels(x: Array, in_channels: int) -> None:
  """Raises UsageError unless x [B H W C] has the channels that the network is for."""
  if x.shape[-1] != in_channels:
    raise UsageError(f'images of {x.shape[-1]} channels were given to a network with '
                     f'in_channels={in_channels}: set the one to the other')


def attention_levels(image_size: Size, resolutions: tuple[int, ...],
                     num_levels: int) -> tuple[int, ...]:
  """The levels, from 0 at full size, where the shorter side is one of `resolutions` pixels."""
  check_size(image_size, num_levels)
  visited = [min(height_width(image_size)) >> level for level in range(num_levels)]
  missing = sorted(set(resolutions) - set(visited), reverse=True)
  if missing:
    raise UsageError(f'attention_resolutions {missing} never occur: image_size={image_size} with '
                     f'{num_levels} levels visits {visited}; drop them or change the levels')
  return tuple(level for level, side in enumerate(visited) if side in resolutions)


def widths(channels: int, channel_mult: tuple[float, ...], num_groups: int) -> tuple[int, ...]:
  """The number of channels of each level, int(multiplier * channels)."""
  result = tuple(int(mult * channels) for mult in channel_mult)
  wrong = [width for width in (channels, *result) if width % num_groups]
  if wrong:
    raise UsageError(f'{wrong[0]} channels (channels={channels}, channel_mult={channel_mult}) '
                     f'cannot be normalized in {num_groups} groups: choose channels whose products '
                     f'with channel_mult {num_groups} divides, or another num_groups')
  return result


def check(network: nn.Module, heads: tuple[int, ...]) -> None:
  """Refuses what cannot work when a network is described, before anything compiles.

  Args:
    network: a module with the attributes of `UNet`.
    heads: how many its levels have, unless their width is given.

  Raises:
    UsageError: attributes that no network can have.
  """
  _check_numbers(network)
  (height, width), (channels, attended) = height_width(network.image_size), network_levels(network)
  for level in (*attended, -1):
    for count in heads:
      num_heads(channels[level], count, network.head_channels)
  check_implementation(network.attention_implementation, [
      (height >> level) * (width >> level) for level in (*attended, len(channels) - 1)])
  remat(network.remat)


def _check_numbers(network: nn.Module) -> None:
  for name in ('depth', 'channels', 'num_groups', 'num_heads', 'num_heads_upsample',
               'head_channels', 'num_classes', 'in_channels'):
    value = getattr(network, name, None)
    if value is not None and value < 1:
      # The reference's -1, for none.
      none = ', or None' if name in ('num_heads_upsample', 'head_channels') else ''
      raise UsageError(f'{name}={value}: give at least 1{none}')
  for name in ('dtype', 'param_dtype'):
    given = getattr(network, name)
    try:
      known = jnp.dtype(given)
    except TypeError as error:
      raise UsageError(f'{name}={given} is no dtype: give float32 or bfloat16') from error
    if known not in (jnp.float32, jnp.bfloat16, jnp.float64):
      # Float16's range needs a scaled loss, which bfloat16's makes needless.
      raise UsageError(f'{name}={known} is no dtype for a network: give float32, or bfloat16, '
                       'which takes as little memory as float16')
  if not network.channel_mult:
    raise UsageError('channel_mult=(): give a multiplier for each level')
  if network.channels > _MOST_CHANNELS:
    raise UsageError(f'channels={network.channels}: give at most {_MOST_CHANNELS}')
  if network.depth * len(network.channel_mult) > _MOST_BLOCKS:
    raise UsageError(f'depth={network.depth} on {len(network.channel_mult)} levels are more than '
                     f'{_MOST_BLOCKS} blocks: give fewer')
  if not 0 <= network.dropout < 1:
    raise UsageError(f'dropout={network.dropout}: a rate is at least 0 and less than 1')


def network_levels(network: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """(widths, levels with attention) of a network with the attributes of `UNet`."""
  return (widths(network.channels, network.channel_mult, network.num_groups),
          attention_levels(network.image_size, network.attention_resolutions,
                           len(network.channel_mult)))


def network_blocks(network: nn.Module) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
  """(res_block, attention): the blocks of a network, with all that they share bound.

  Args:
    network: a module with the attributes of `UNet`.

  Returns:
    res_block: (channels, resample=None, name=...) -> `ResBlock`.
    attention: (channels, heads=network.num_heads, name=...) -> `Attention`.
  """
  res_class, attention_class = remat(network.remat)
  shared = dict(num_groups=network.num_groups, dtype=network.dtype,
                param_dtype=network.param_dtype)
  res_block = functools.partial(res_class, scale_shift=network.scale_shift,
                                dropout=network.dropout, **shared)

  def attention(channels, heads=network.num_heads, **kwargs):
    return attention_class(
        num_heads(channels, heads, network.head_channels), qkv_first=network.qkv_first,
        implementation=network.attention_implementation, **shared, **kwargs)
  return res_block, attention


# Sinusoids of a guidance scale: the fastest has a wavelength of 0.4, the slowest does not turn.
_SCALE_FREQUENCY = 16.0


class Embedding(nn.Module):
  """Time, and class where there is one: Dense-SiLU-Dense of sinusoids, plus a table's row.

  Attributes:
    channels: of the sinusoids; the embedding has E = 4 * channels.
    num_classes: rows of the table, or None.
  """
  channels: int
  num_classes: int | None = None
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, t: Array, y: Array | None, scale: Array | None = None) -> Array:
    """Embeds what the whole image shares.

    Args:
      t: [B], integer or float.
      y: i32[B], or None.
      scale: f32[B], or None: how strongly the images are guided, of a network that has learned to.
        Its layer starts at zero, so that a network that learns this begins as it was.

    Returns:
      f32[B E], with the SiLU that all blocks share.
    """
    if (y is None) != (self.num_classes is None):
      raise UsageError('the network is class-conditional: give a label y for each image'
                       if y is None else 'the network has no classes: call it without labels y')
    width = 4 * self.channels
    dtypes = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
    e = timestep_embedding(t, self.channels)
    e = dense(width, self.channels, **dtypes, name='dense_0')(e)
    e = dense(width, width, **dtypes, name='dense_1')(nn.silu(e))
    if y is not None:
      e = e + nn.Embed(self.num_classes, width, embedding_init=nn.initializers.normal(1.0),
                       **dtypes, name='label')(y)
    if scale is not None:
      sinusoids = timestep_embedding(_SCALE_FREQUENCY * scale, self.channels)
      e = e + dense(width, self.channels, zero=True, **dtypes, name='scale')(sinusoids)
    return nn.silu(e)


class Encoder(nn.Module):
  """The convolution in, the levels going down, and the middle.

  Attributes:
    widths: channels of each level.
    depth: ResBlocks per level.
    attention_levels: levels with attention after each ResBlock; the middle always has it.
    res_block: (channels, resample, name) -> module.
    attention: (channels, name) -> module.
    resblock_updown: go down a level by a ResBlock rather than by `Resample`.
    conv_resample: whether that `Resample` is a strided convolution rather than pooling.
  """
  widths: tuple[int, ...]
  depth: int
  attention_levels: tuple[int, ...]
  res_block: Callable[..., nn.Module]
  attention: Callable[..., nn.Module]
  resblock_updown: bool
  conv_resample: bool = True
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array, embedding: Array,
               dropout_keys: Array | None) -> tuple[Array, list[Array]]:
    """x [B H W C] -> (the middle's output, the outputs of all stages before it in order)."""
    dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
    check_size(x.shape[1:3], len(self.widths))
    h = conv(self.widths[0], 3, x.shape[-1], **dtypes, name='conv_in')(x.astype(self.dtype))
    stages = [h]
    for level, width in enumerate(self.widths):
      for i in range(self.depth):
        h = self.res_block(width, name=f'down_{level}_{i}')(h, embedding, dropout_keys)
        if level in self.attention_levels:
          h = self.attention(width, name=f'down_{level}_{i}_attn')(h)
        stages.append(h)
      if level < len(self.widths) - 1:
        name = f'down_{level}_resample'
        if self.resblock_updown:
          h = self.res_block(width, resample=downsample, name=name)(h, embedding, dropout_keys)
        else:
          h = Resample(up=False, learned=self.conv_resample, **dtypes, name=name)(h)
        stages.append(h)
    h = self.res_block(self.widths[-1], name='mid_0')(h, embedding, dropout_keys)
    h = self.attention(self.widths[-1], name='mid_attn')(h)
    h = self.res_block(self.widths[-1], name='mid_1')(h, embedding, dropout_keys)
    return h, stages
