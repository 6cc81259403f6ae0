"""The Frechet distance has closed forms for commuting covariances."""

import numpy as np
import pytest
from scipy import linalg

from adm_jax.errors import UsageError
from adm_jax.evaluation.frechet import Moments, frechet_distance, moments

RNG = np.random.default_rng(0)


def test_diagonal_gaussians_have_the_closed_form():
  a, b = RNG.uniform(0.1, 4, (2, 6))
  mean = RNG.normal(size=(2, 6))
  got = frechet_distance(Moments(mean[0], np.diag(a)), Moments(mean[1], np.diag(b)))
  wanted = ((mean[0] - mean[1]) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
  assert got == pytest.approx(wanted, rel=1e-12)


def test_it_equals_the_general_matrix_root():
  a, b = (moments(RNG.normal(size=(50, 8)) @ RNG.normal(size=(8, 8))) for _ in range(2))
  difference = a.mean - b.mean
  root = linalg.sqrtm(a.covariance @ b.covariance).real
  wanted = difference @ difference + np.trace(a.covariance + b.covariance - 2 * root)
  assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)
  assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_it_is_zero_between_equals_also_when_rank_deficient():
  flat = moments(RNG.normal(size=(5, 20)))  # rank 4 of 20
  assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-6)


def test_one_image_has_no_covariance():
  with pytest.raises(UsageError, match='at least 2'):
    moments(np.zeros((1, 3)))
