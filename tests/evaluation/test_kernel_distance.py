"""The kernel distance: its definition, its lack of bias, and that its error is what it says."""

import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.evaluation import kernel_distance as module
from adm_jax.evaluation.kernel_distance import kernel_distance


def draws(count, n, m, shift):
  rng = np.random.default_rng(0)
  return [kernel_distance(rng.normal(size=(n, 8)).astype(np.float32),
                          (rng.normal(size=(m, 8)) + shift).astype(np.float32))
          for _ in range(count)]


@pytest.mark.parametrize('block', [2500, 7])
def test_it_is_the_mean_over_all_pairs(monkeypatch, block):
  monkeypatch.setattr(module, '_BLOCK', block)
  rng = np.random.default_rng(0)
  x, y = (rng.normal(size=(n, 5)).astype(np.float32) for n in (20, 30))
  def kernel(a, b):
    return (a.astype(np.float64) @ b.T / 5 + 1) ** 3
  own = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y))]
  wanted = sum(own) - 2 * kernel(x, y).mean()
  assert kernel_distance(x, y).value == pytest.approx(wanted, rel=1e-4)


def test_few_images_do_not_bias_it():
  """Between equal distributions the mean over draws is 0, within its own uncertainty."""
  values = [estimate.value for estimate in draws(200, 10, 10, 0)]
  assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_its_error_is_the_spread_over_draws():
  estimates = draws(200, 100, 150, 0.7)
  spread = np.std([estimate.value for estimate in estimates])
  assert np.mean([estimate.error for estimate in estimates]) == pytest.approx(spread, rel=0.15)


def test_larger_sets_are_drawn_from():
  rng = np.random.default_rng(0)
  x, y = (rng.normal(size=(n, 4)).astype(np.float32) for n in (200, 300))
  some = kernel_distance(x, y, most=100)
  assert some == kernel_distance(x, y, most=100) and some != kernel_distance(x, y)


def test_one_image_or_nan_is_refused():
  with pytest.raises(UsageError, match='at least 2'):
    kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)))
  with pytest.raises(UsageError, match='not finite'):
    kernel_distance(np.full((5, 2), np.inf), np.zeros((5, 2)))
