"""The Frechet distance between Gaussians fitted to two sets of features (Heusel et al., 2017)."""

import functools
from typing import Callable, Iterable, NamedTuple

import numpy as np

from adm_jax.errors import UsageError

_BLOCK = 4096


class Moments(NamedTuple):
  """Mean f64[D] and covariance f64[D D] of features."""
  mean: np.ndarray
  covariance: np.ndarray


class Sums(NamedTuple):
  """What two parts of a data set can be joined by: their number, mean and scatter.

  scatter f64[D D] is the sum of (x - mean) (x - mean)^T, the covariance times count - 1.
  """
  count: int
  mean: np.ndarray
  scatter: np.ndarray


def sums(features: np.ndarray) -> Sums:
  """Of one batch of features [N D], N at least 1."""
  features = np.asarray(features, np.float64)
  mean = features.mean(axis=0)
  centered = features - mean
  return Sums(len(features), mean, centered.T @ centered)


def join(a: Sums, b: Sums) -> Sums:
  """Of two parts together (Chan, Golub & LeVeque, 1983)."""
  count = a.count + b.count
  difference = b.mean - a.mean
  scatter = a.scatter + b.scatter
  scatter += np.outer(difference, difference * (a.count * b.count / count))
  return Sums(count, a.mean + difference * (b.count / count), scatter)


def moments_of(parts: Iterable[Sums]) -> Moments:
  """Mean and unbiased covariance of all parts together.

  Raises:
    UsageError: they are fewer than 2 images, or hold NaN or infinity.
  """
  total = functools.reduce(join, parts)
  if total.count < 2:
    raise UsageError(f'{total.count} image has no covariance: give at least 2')
  if not (np.isfinite(total.mean).all() and np.isfinite(total.scatter).all()):
    raise UsageError('some features are not finite: the extractor fails on these images')
  return Moments(total.mean, total.scatter / (total.count - 1))


def moments(features: np.ndarray) -> Moments:
  """Mean and unbiased covariance of features [N D], N at least 2."""
  return moments_of(sums(features[i:i + _BLOCK]) for i in range(0, len(features), _BLOCK))


def frechet_distance(a: Moments, b: Moments) -> float:
  """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^{1/2}), in squared units of the features."""
  return distance_to(a)(b)


def distance_to(a: Moments) -> Callable[[Moments], float]:
  """`frechet_distance` from `a` to any number of others; the root of A is taken once.

  The trace of the root is taken from the symmetric sqrt(A) B sqrt(A), which has the eigenvalues of
  A B: no general matrix root is needed, and rank-deficient covariances are as safe as others.
  """
  values, vectors = np.linalg.eigh(a.covariance)
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

  def distance(b: Moments) -> float:
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.sqrt(np.maximum(product, 0)).sum()
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance)
                 - 2 * trace)
  return distance


def standard_error(features: np.ndarray, distance: Callable[[Moments], float], *,
                   repeats: int = 8, seed: int = 0) -> float:
  """The standard error of distance(moments(features)) by the draw of the N images.

  The spread of the distance over random halves of the images, drawn without replacement. A half
  varies around the whole as the whole does around the truth, (1 - 1/2) / (N/2) = 1/N, so that the
  spread needs no factor (the jackknife that deletes half; Shao & Wu, 1989). The bias of few images,
  by which FID-n differs from FID, is no part of it.

  Args:
    features: [N D], N at least 4.
    distance: from the reference, as `distance_to` gives it.
    repeats: how many halves; the error itself is uncertain by a share 1 / sqrt(2 (repeats - 1)).
    seed: of the halves.
  """
  rng = np.random.default_rng(seed)
  halves = (rng.permutation(len(features))[:len(features) // 2] for _ in range(repeats))
  return float(np.std([distance(moments(features[half])) for half in halves], ddof=1))
