"""The Frechet distance between Gaussians fitted to two sets of features (Heusel et al., 2017)."""

from typing import NamedTuple

import numpy as np

from adm_jax.errors import UsageError


class Moments(NamedTuple):
  """Mean f64[D] and covariance f64[D D] of features."""
  mean: np.ndarray
  covariance: np.ndarray


def moments(features: np.ndarray) -> Moments:
  """Mean and unbiased covariance of features [N D], N at least 2."""
  if len(features) < 2:
    raise UsageError(f'{len(features)} images have no covariance: give at least 2')
  features = np.asarray(features, np.float64)
  return Moments(features.mean(axis=0), np.cov(features, rowvar=False))


def frechet_distance(a: Moments, b: Moments) -> float:
  """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^{1/2}), in squared units of the features.

  The trace of the root is taken from the symmetric sqrt(A) B sqrt(A), which has the eigenvalues of
  A B: no general matrix root is needed, and rank-deficient covariances are as safe as others.
  """
  values, vectors = np.linalg.eigh(a.covariance)
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  product = np.linalg.eigvalsh(root @ b.covariance @ root)
  trace = np.sqrt(np.maximum(product, 0)).sum()
  difference = a.mean - b.mean
  return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance)
               - 2 * trace)
