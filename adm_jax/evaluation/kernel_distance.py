"""The kernel distance, KID (Binkowski et al., 2018): unbiased, so that few images will do."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.io.meetings import ALONE, Meeting

Array = jax.Array

_BLOCK = 2500


class Estimate(NamedTuple):
  """A number and its standard error."""
  value: float
  error: float


def kernel_distance(x: np.ndarray, y: np.ndarray, *, most: int = 10_000,
                    seed: int = 0, meeting: Meeting = ALONE) -> Estimate:
  """The squared maximum mean discrepancy between two sets, with the kernel (x.y / D + 1)^3.

  The unbiased estimate over all pairs, which the usual mean over subsets of 1,000 images only
  approximates. Its error is that of a U-statistic to first order: each image's mean kernel against
  its own set, less that against the other, varies from image to image (Hoeffding, 1948). Below 0
  is possible, and means nothing but 0.

  Args:
    x: features f32[N D].
    y: features f32[M D].
    most: of larger sets, so many images are drawn.
    seed: of that draw.
    meeting: of the processes that share the blocks.

  Raises:
    UsageError: a set has fewer than 2 images, or features that are not finite.
  """
  for features in (x, y):
    if len(features) < 2:
      raise UsageError(f'a kernel distance of {len(features)} images: give at least 2')
    if not np.isfinite(features).all():
      raise UsageError('some features are not finite: the extractor fails on these images')
  rng = np.random.default_rng(seed)
  x, y = (features if len(features) <= most else
          features[np.sort(rng.choice(len(features), most, replace=False))] for features in (x, y))
  own_x, own_y = _within(x, meeting, 'kernel_x'), _within(y, meeting, 'kernel_y')
  x_to_y, y_to_x = _between(x, y, meeting, 'kernel_xy')
  value = own_x.mean() + own_y.mean() - x_to_y.mean() - y_to_x.mean()
  variance = 4 * sum(np.var(own - other, ddof=1) / len(own)
                     for own, other in ((own_x, x_to_y), (own_y, y_to_x)))
  return Estimate(float(value), float(np.sqrt(variance)))


def _within(x: np.ndarray, meeting: Meeting, name: str) -> np.ndarray:
  """f64[N]: each image's mean kernel with the others of its set."""
  total = np.zeros(len(x))
  blocks = [slice(i, i + _BLOCK) for i in range(0, len(x), _BLOCK)]
  pairs = list(itertools.combinations_with_replacement(blocks, 2))
  # Added in one order, whoever made them.
  for (rows, columns), found in zip(pairs, meeting.map(
      name, lambda pair: _named_sums(x[pair[0]], x[pair[1]]), pairs)):
    total[rows] += found['row']
    if rows != columns:
      total[columns] += found['column']
  itself = (np.einsum('nd,nd->n', x, x, dtype=np.float64) / x.shape[1] + 1) ** 3
  return (total - itself) / (len(x) - 1)


def _between(x: np.ndarray, y: np.ndarray, meeting: Meeting,
             name: str) -> tuple[np.ndarray, np.ndarray]:
  """(f64[N], f64[M]): each image's mean kernel with the images of the other set."""
  x_total, y_total = np.zeros(len(x)), np.zeros(len(y))
  pairs = [(slice(i, i + _BLOCK), slice(j, j + _BLOCK))
           for i, j in itertools.product(range(0, len(x), _BLOCK), range(0, len(y), _BLOCK))]
  for (rows, columns), found in zip(pairs, meeting.map(
      name, lambda pair: _named_sums(x[pair[0]], y[pair[1]]), pairs)):
    x_total[rows] += found['row']
    y_total[columns] += found['column']
  return x_total / len(y), y_total / len(x)


def _named_sums(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
  return dict(zip(('row', 'column'), map(np.asarray, _kernel_sums(x, y))))


@jax.jit
def _kernel_sums(x: Array, y: Array) -> tuple[Array, Array]:
  """The kernel of [N D] and [M D], summed over M, and over N."""
  kernel = (jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST) / x.shape[1] + 1) ** 3
  return kernel.sum(axis=1), kernel.sum(axis=0)
