"""The Inception network of 2015 that FID, sFID and the Inception Score are defined on.

Exact to `classify_image_graph_def.pb`: TensorFlow 1's bilinear resize, average pools that do not
count their padding, a max pool in the very last block. Parameters are named as the graph's
constants, so that 'mixed_6/tower/conv_1/conv2d_params' there is at that path here.
"""

from typing import Any, Callable, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Dtype = Any

SIDE = 299
POOL, SPATIAL_CHANNELS, CLASSES = 2048, 7, 1008
SPATIAL = 17 * 17 * SPATIAL_CHANNELS  # 2023
_EPSILON = 1e-3


@flax.struct.dataclass
class Features:
  """What an extractor says of images; only `pool` is there for every extractor.

  Attributes:
    pool: f32[B D], one vector an image; pool_3 of Inception, D = 2048.
    spatial: f32[B 2023], the first 7 channels of mixed_6/conv, H W C flattened, for sFID.
    logits: f32[B K], of the classes; Inception's 1008, without the bias, as its score needs them.
  """
  pool: Array
  spatial: Array | None = None
  logits: Array | None = None


def resize(x: Array, height: int, width: int) -> Array:
  """TensorFlow 1's bilinear resize of f32[B H W C], corners not aligned, no half-pixel centers.

  Row i of the result lies at i H / height of the input; there is no antialiasing.
  """
  for axis, side in ((1, height), (2, width)):
    have = x.shape[axis]
    at = np.arange(side, dtype=np.float32) * np.float32(have / side)
    low = np.floor(at).astype(np.int32)
    part = (at - low).reshape(-1, *[1] * (3 - axis))
    a, b = (jnp.take(x, np.minimum(index, have - 1), axis=axis) for index in (low, low + 1))
    x = a + (b - a) * jnp.asarray(part, x.dtype)[None if axis == 1 else (None, None)]
  return x


def prepare(images: Array) -> Array:
  """[B H W C], 0..255, C 3 or 1 (gray) -> f32[B 299 299 3], -1..1, what the network sees."""
  x = images.astype(jnp.float32)
  if x.shape[-1] == 1:
    x = jnp.repeat(x, 3, axis=-1)
  return (resize(x, SIDE, SIDE) - 128) / 128


class BatchNorm(nn.Module):
  """(x - mean) / sqrt(variance + 1e-3) * gamma + beta, by stored moments."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1],)
    gamma = self.param('gamma', nn.initializers.ones, shape)
    beta = self.param('beta', nn.initializers.zeros, shape)
    mean = self.param('moving_mean', nn.initializers.zeros, shape)
    variance = self.param('moving_variance', nn.initializers.ones, shape)
    scale = gamma * jax.lax.rsqrt(variance + _EPSILON)
    shift = beta - mean * scale
    return x * scale.astype(x.dtype)[None, None, None] + shift.astype(x.dtype)[None, None, None]


class Conv(nn.Module):
  """Convolution without bias, batch norm, ReLU."""
  channels: int
  kernel: tuple[int, int] = (1, 1)
  strides: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param('conv2d_params', nn.initializers.lecun_normal(),
                        (*self.kernel, x.shape[-1], self.channels))
    # Accelerators would multiply float32 in fewer bits by default.
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    x = jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (self.strides,) * 2, self.padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=precision)
    return nn.relu(BatchNorm(name='batchnorm')(x))


class Branch(NamedTuple):
  """One way through a block: a pool, then convolutions.

  Attributes:
    name: 'conv' or 'conv_1' for one convolution, 'tower', ... for several, '' for a pool alone.
    convs: arguments of `Conv`, one tuple each.
    pool: what comes first.
    forks: whether it ends in a 1 x 3 and a 3 x 1 convolution side by side.
  """
  name: str
  convs: tuple[tuple, ...] = ()
  pool: Callable[[Array], Array] | None = None
  forks: bool = False


class Tower(nn.Module):
  """Convolutions one after another, named conv, conv_1, ...; then, if it forks, two at once."""
  convs: tuple[tuple, ...]
  forks: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i, arguments in enumerate(self.convs):
      x = Conv(*arguments, name=f'conv_{i}' if i else 'conv')(x)
    if self.forks:
      fork = Branch('conv', ((384, (1, 3)),)), Branch('conv_1', ((384, (3, 1)),))
      x = jnp.concatenate(Mixed(fork, name='mixed')(x), axis=-1)
    return x


class Mixed(nn.Module):
  """A block: every branch on the same input; gives their results in order, not yet joined."""
  branches: tuple[Branch, ...]

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    def run(branch):
      h = x if branch.pool is None else branch.pool(x)
      if branch.name.startswith('conv'):
        return Conv(*branch.convs[0], name=branch.name)(h)
      return Tower(branch.convs, branch.forks, name=branch.name)(h) if branch.name else h
    return [run(branch) for branch in self.branches]


class Logits(nn.Module):
  """[B 2048] -> f32[B 1008]. The graph has a bias too; the evaluator leaves it out."""

  @nn.compact
  def __call__(self, pool: Array) -> Array:
    weights = self.param('weights', nn.initializers.lecun_normal(), (POOL, CLASSES))
    return jnp.matmul(pool, weights, precision=jax.lax.Precision.HIGHEST)


def _average(x: Array) -> Array:
  return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


def _max(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), padding='SAME')


def _halve(x: Array) -> Array:
  return nn.max_pool(x, (3, 3), strides=(2, 2))


def _block_35(pooled: int) -> tuple[Branch, ...]:
  """35 x 35 -> 35 x 35."""
  return (Branch('conv', ((64,),)),
          Branch('tower', ((48,), (64, (5, 5)))),
          Branch('tower_1', ((64,), (96, (3, 3)), (96, (3, 3)))),
          Branch('tower_2', ((pooled,),), _average))


def _block_17(c: int) -> tuple[Branch, ...]:
  """17 x 17 -> 17 x 17."""
  return (Branch('conv', ((192,),)),
          Branch('tower', ((c,), (c, (1, 7)), (192, (7, 1)))),
          Branch('tower_1', ((c,), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7)))),
          Branch('tower_2', ((192,),), _average))


def _block_8(pool: Callable[[Array], Array]) -> tuple[Branch, ...]:
  """8 x 8 -> 8 x 8."""
  return (Branch('conv', ((320,),)),
          Branch('tower', ((384,),), forks=True),
          Branch('tower_1', ((448,), (384, (3, 3))), forks=True),
          Branch('tower_2', ((192,),), pool))


_LAST = (2, 'VALID')  # a convolution that halves
_BLOCKS = {
    'mixed': _block_35(32), 'mixed_1': _block_35(64), 'mixed_2': _block_35(64),
    'mixed_3': (Branch('conv', ((384, (3, 3), *_LAST),)),
                Branch('tower', ((64,), (96, (3, 3)), (96, (3, 3), *_LAST))),
                Branch('', pool=_halve)),
    'mixed_4': _block_17(128), 'mixed_5': _block_17(160), 'mixed_6': _block_17(160),
    'mixed_7': _block_17(192),
    'mixed_8': (Branch('tower', ((192,), (320, (3, 3), *_LAST))),
                Branch('tower_1', ((192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), *_LAST))),
                Branch('', pool=_halve)),
    'mixed_9': _block_8(_average),
    'mixed_10': _block_8(_max),  # not an average: so the graph was published
}


class Inception(nn.Module):
  """Images uint8 or float [B H W C] in [0, 255], C 1 or 3, of any size -> `Features`.

  Attributes:
    dtype: of the convolutions. The published numbers are float32's.
  """
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, images: Array) -> Features:
    x = prepare(images).astype(self.dtype)
    x = Conv(32, (3, 3), 2, 'VALID', name='conv')(x)  # [B 149 149 32]
    x = Conv(32, (3, 3), 1, 'VALID', name='conv_1')(x)
    x = Conv(64, (3, 3), name='conv_2')(x)
    x = _halve(x)  # [B 73 73 64]
    x = Conv(80, name='conv_3')(x)
    x = Conv(192, (3, 3), 1, 'VALID', name='conv_4')(x)
    x = _halve(x)  # [B 35 35 192]
    for name, branches in _BLOCKS.items():
      outputs = Mixed(branches, name=name)(x)
      if name == 'mixed_6':
        spatial = outputs[0][..., :SPATIAL_CHANNELS].astype(jnp.float32)  # [B 17 17 7]
      x = jnp.concatenate(outputs, axis=-1)
    pool = x.astype(jnp.float32).mean(axis=(1, 2))  # [B 2048]
    return Features(pool, spatial.reshape(len(spatial), -1), Logits(name='softmax')(pool))
