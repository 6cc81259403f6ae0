"""Improved precision and recall (Kynkaanniemi et al., 2019): shares of images inside the other's
manifold, the union of balls that reach from each image to its k-th neighbor.

Never N x N: blocks of distances are made on the accelerator, and of each only a few neighbors, or
one truth value per image, are kept. Distances within one set are symmetric, and made once per pair.
"""

import functools
import itertools
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io.meetings import ALONE, Meeting

Array = jax.Array

_GROUP = 50
_BLOCK = 5000  # of images: a block of distances is 100 MB
_REFERENCE_BLOCK = 10_000  # the reference's; where float16 overflows, all of a block turns float32


class PrecisionRecall(NamedTuple):
  """precision: the share of samples among real images; recall: of real images among samples."""
  precision: float
  recall: float


def precision_recall(reference: np.ndarray, samples: np.ndarray, *, k: int = 3,
                     distances: str = 'float32', block: int | None = None,
                     meeting: Meeting = ALONE) -> PrecisionRecall:
  """Precision and recall of samples.

  Args:
    reference: features f32[N D] of real images.
    samples: features f32[M D].
    k: each ball reaches to the k-th nearest other image of its set.
    distances: 'float32', or 'float16', as the reference computes them: of every block of 10,000 x
      10,000, unless one of them overflows. Its rounding, of a few percent, moves the results by
      some thousandths.
    block: how many images meet how many at once; changes memory, not the result (for float32).
    meeting: of the processes that share the blocks.

  Raises:
    UsageError: a set has no k neighbors, or its features are not finite.
  """
  if distances not in ('float32', 'float16'):
    raise UsageError(f'distances {distances!r} are unknown: give float32 or float16')
  for features, name in ((reference, 'reference'), (samples, 'sample')):
    if len(features) <= k:
      raise UsageError(f'{len(features)} {name} images have no {k} neighbors each: give at least '
                       f'{k + 1}')
    if not np.isfinite(features).all():
      raise UsageError(f'some {name} features are not finite: the extractor fails on these images')
  norms, squared = {'float32': (_norms, _squared_distances),
                    'float16': (_reference_norms, _reference_distances)}[distances]
  block = block or {'float32': _BLOCK, 'float16': _REFERENCE_BLOCK}[distances]
  reference, samples = (_blocks(features, block, norms) for features in (reference, samples))
  reference_radii, sample_radii = (_radii(blocks, k, squared, meeting, name) for blocks, name in (
      (reference, 'radii_reference'), (samples, 'radii_samples')))
  recalled = [np.zeros(len(radii), bool) for radii in reference_radii]
  precise = [np.zeros(len(radii), bool) for radii in sample_radii]
  def inside(pair):
    i, j = pair
    rows, columns = _inside(reference[i], samples[j], reference_radii[i], sample_radii[j], squared)
    return {'rows': np.asarray(rows), 'columns': np.asarray(columns)}
  pairs = list(itertools.product(range(len(reference)), range(len(samples))))
  for (i, j), found in zip(pairs, meeting.map('inside', inside, pairs)):
    recalled[i] |= found['rows']
    precise[j] |= found['columns']
  return PrecisionRecall(float(np.concatenate(precise).mean()),
                         float(np.concatenate(recalled).mean()))


class _Block(NamedTuple):
  """Features f32[B D] and their squared norms f32[B].

  The norms are made beforehand: XLA for CPUs would fuse them with the product of two blocks, which
  then runs five times slower.
  """
  features: Array
  norms: Array


def _blocks(features: np.ndarray, size: int, norms: Callable) -> list[_Block]:
  parts = (np.asarray(features[i:i + size], np.float32) for i in range(0, len(features), size))
  return [_Block(part, norms(part)) for part in parts]


def _radii(blocks: list[_Block], k: int, squared: Callable, meeting: Meeting,
           name: str) -> list[np.ndarray]:
  """f32[B] a block: the squared distance from each image to its k-th nearest other one."""
  # Each image is its own nearest, so that k + 1 are kept.
  nearest = [np.full((len(block.norms), k + 1), np.inf, np.float32) for block in blocks]
  def near(pair):
    by_row, by_column = _nearest(blocks[pair[0]], blocks[pair[1]], k + 1, squared)
    return {'row': np.asarray(by_row), 'column': np.asarray(by_column)}
  pairs = list(itertools.combinations_with_replacement(range(len(blocks)), 2))
  for (i, j), found in zip(pairs, meeting.map(name, near, pairs)):
    for index, candidates in [(i, found['row'])] + ([(j, found['column'])] if i != j else []):
      both = np.concatenate([nearest[index], candidates], axis=1)
      nearest[index] = np.sort(both, axis=1)[:, :k + 1]
  return [kept[:, k] for kept in nearest]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nearest(u: _Block, v: _Block, count: int, squared: Callable) -> tuple[Array, Array]:
  """The smallest `count` distances, or as many as there are, of each of u and of each of v."""
  distance = squared(u, v)
  return smallest(distance, count, axis=1), smallest(distance, count, axis=0)


def smallest(x: Array, count: int, axis: int) -> Array:
  """The `count` smallest along an axis of f32[N M], or all if there are fewer: [M or N, count].

  They lie in the `count` groups of the smallest minima, so that only those are searched: several
  times faster than to search, and to transpose, all.
  """
  groups = -(-x.shape[axis] // _GROUP)
  if groups > 2 * count:
    padding = [(0, groups * _GROUP - x.shape[axis] if i == axis else 0) for i in range(2)]
    x = jnp.pad(x, padding, constant_values=jnp.inf)
    x = x.reshape(*x.shape[:axis], groups, _GROUP, *x.shape[axis + 1:])
    minima = jnp.moveaxis(x.min(axis=axis + 1), axis, -1)
    chosen = jnp.moveaxis(jax.lax.top_k(-minima, count)[1], -1, axis)
    x = jnp.take_along_axis(x, jnp.expand_dims(chosen, axis + 1), axis=axis)
    x = x.reshape(*x.shape[:axis], count * _GROUP, *x.shape[axis + 2:])
  x = jnp.moveaxis(x, axis, -1)
  return -jax.lax.top_k(-x, min(count, x.shape[-1]))[0]


@functools.partial(jax.jit, static_argnums=4)
def _inside(u: _Block, v: _Block, u_radii: Array, v_radii: Array,
            squared: Callable) -> tuple[Array, Array]:
  """(which of u lie in a ball of v, which of v lie in a ball of u)."""
  distance = squared(u, v)
  return (distance <= v_radii[None]).any(axis=1), (distance <= u_radii[:, None]).any(axis=0)


@jax.jit
def _norms(x: Array) -> Array:
  return jnp.square(x).sum(axis=1)


def _squared_distances(u: _Block, v: _Block) -> Array:
  """|u|^2 - 2 u.v + |v|^2, at least 0: f32[N M]."""
  product = jnp.matmul(u.features, v.features.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.maximum(u.norms[:, None] - 2 * product + v.norms[None], 0)


# ---------------------------------------------------------------------------------------------
# As the reference: float16, each operation rounded, sums in the order of TensorFlow on a CPU.


def _half(x: Array) -> Array:
  """Rounds f32 to the values of float16, which a cast there and back need not do under XLA."""
  return jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)


def _reference_distances(u: _Block, v: _Block) -> Array:
  """`_squared_distances` in float16; if one is not finite there, all of them in float32."""
  product = jnp.matmul(_half(u.features), _half(v.features).T, precision=jax.lax.Precision.HIGHEST)
  distance = _half(_half(u.norms[:, None] - _half(2 * _half(product))) + v.norms[None])

  def exact():
    return _squared_distances(*(_Block(x.features, _norms(x.features)) for x in (u, v)))
  return jax.lax.cond(jnp.isfinite(distance).all(), lambda: jnp.maximum(distance, 0), exact)


@jax.jit
def _reference_norms(x: Array) -> Array:
  return _sum_in_half(_half(jnp.square(_half(x))))


def _sum_in_half(x: Array) -> Array:
  """The sum of f32[N D] over D: 32 running sums, rounded at each step, of at most 1024 values."""
  if x.shape[1] > 1024:
    left, right = jnp.split(x, [x.shape[1] // 2], axis=1)
    return _half(_sum_in_half(left) + _sum_in_half(right))
  x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 32)))
  steps = x.reshape(len(x), -1, 4, 8).transpose(1, 2, 0, 3)  # [D/32 4 N 8]
  def add(total, values):
    return _half(total + values), None
  sums = jax.lax.scan(add, jnp.zeros(steps.shape[1:]), steps)[0]  # [4 N 8]
  return _half(jax.lax.scan(add, jnp.zeros(sums.shape[1:]), sums)[0].sum(axis=1))
