"""The Frechet distance has closed forms for commuting covariances."""

import golden_metrics
import numpy as np
import pytest
from scipy import linalg

from adm_jax.errors import UsageError
from adm_jax.evaluation.frechet import (
  Moments,
  distance_to,
  frechet_distance,
  moments,
  moments_of,
  standard_error,
  sums,
)

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


@golden_metrics.parametrize()
def test_it_is_golden(metrics):
  golden, reference, samples, _ = metrics
  got = frechet_distance(moments(reference), moments(samples))
  assert got == pytest.approx(golden['frechet_distance'], rel=1e-6)  # also when rank-deficient


def test_parts_join_to_the_whole():
  x = RNG.normal(size=(50, 6)) + 100
  joined = moments_of(sums(part) for part in np.split(x, [1, 7, 30]))
  np.testing.assert_allclose(joined.mean, x.mean(axis=0), rtol=1e-13)
  np.testing.assert_allclose(joined.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-12)


def test_the_error_is_the_spread_over_draws():
  distance = distance_to(Moments(np.full(4, 0.5), np.eye(4)))
  rng = np.random.default_rng(0)
  draws = [rng.normal(size=(400, 4)) for _ in range(60)]
  spread = np.std([distance(moments(x)) for x in draws])
  errors = [standard_error(x, distance) for x in draws]
  assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.25)


def test_nan_has_no_moments():
  with pytest.raises(UsageError, match='not finite'):
    moments(np.full((3, 2), np.nan))
