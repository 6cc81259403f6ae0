"""Precision and recall: golden, equal to the definition, whatever the blocks."""

import golden_metrics
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.evaluation.precision_recall import precision_recall, smallest

RNG = np.random.default_rng(0)


def by_definition(reference, samples, k=3):
  """In float64, all distances at once."""
  def distances(u, v):
    u, v = u.astype(np.float64), v.astype(np.float64)
    return np.maximum((u * u).sum(1)[:, None] - 2 * u @ v.T + (v * v).sum(1)[None], 0)
  radii = [np.sort(distances(x, x))[:, k] for x in (reference, samples)]
  between = distances(reference, samples)
  return ((between <= radii[0][:, None]).any(0).mean(), (between <= radii[1][None]).any(1).mean())


@golden_metrics.parametrize()
def test_float16_is_the_reference_to_the_image(metrics):
  golden, reference, samples, _ = metrics
  got = precision_recall(reference, samples, distances='float16')
  assert got == (golden['precision'], golden['recall'])


@golden_metrics.parametrize()
def test_float32_is_exact_and_near_the_reference(metrics):
  golden, reference, samples, _ = metrics
  got = precision_recall(reference, samples)
  assert got == by_definition(reference, samples)
  # What float16 costs the reference itself: in TensorFlow, float32 gives what it gives here, up to
  # 4 of 700 images from the golden number.
  bound = 0.005 if golden['dim'] < 2048 else 4.5 / golden['n_ref']
  assert got == pytest.approx((golden['precision'], golden['recall']), abs=bound)


@pytest.mark.parametrize('block', [1, 7, 20, 1000])
def test_blocks_change_nothing(block):
  reference, samples = (RNG.normal(size=(n, 5)).astype(np.float32) for n in (41, 50))
  assert precision_recall(reference, samples, block=block) == by_definition(reference, samples)


def test_equal_sets_cover_each_other_and_distant_ones_do_not():
  x = RNG.normal(size=(30, 4)).astype(np.float32)
  assert precision_recall(x, x) == (1, 1)
  assert precision_recall(x, x + 100) == (0, 0)
  # Copies of one real image: precise, and of hardly any recall.
  copies = x[:1] + 1e-3 * RNG.normal(size=(8, 4)).astype(np.float32)
  precision, recall = precision_recall(x, copies)
  assert precision == 1 and recall <= 1 / 30


@pytest.mark.parametrize('shape', [(3, 1000), (3, 1001), (1001, 3), (4, 2), (2, 4)])
@pytest.mark.parametrize('axis', [0, 1])
def test_the_smallest_are_found_also_among_equals(shape, axis):
  x = RNG.integers(0, 50, shape).astype(np.float32)
  x = x if axis else x.T
  np.testing.assert_array_equal(smallest(x, 4, axis),
                                np.moveaxis(np.sort(x, axis=axis), axis, -1)[:, :4])


def test_float16_falls_back_where_it_overflows():
  x, y = (300 * RNG.normal(size=(30, 4)).astype(np.float32) for _ in range(2))
  assert precision_recall(x, y, distances='float16') == precision_recall(x, y)


@pytest.mark.parametrize('n, kwargs, message', [
    (3, {}, '3 sample images have no 3 neighbors'), (1, {'k': 1}, '1 sample images'),
    (5, {'distances': 'int8'}, "'int8' are unknown")])
def test_too_few_or_unknown_is_refused(n, kwargs, message):
  with pytest.raises(UsageError, match=message):
    precision_recall(np.zeros((5, 2)), np.zeros((n, 2)), **kwargs)


def test_nan_is_refused():
  with pytest.raises(UsageError, match='not finite'):
    precision_recall(np.zeros((5, 2)), np.full((5, 2), np.nan))
