"""Charts: round ticks, and lines where the numbers are."""

import numpy as np
import pytest

from adm_jax.io import charts
from adm_jax.io.charts import Chart, Line

BLUE, RED = (31, 119, 180), (214, 39, 40)


@pytest.mark.parametrize('low, high', [(0, 1), (-3.2, 7.9), (0.9131, 0.9142), (0, 12_345),
                                       (1e-9, 3e-9)])
def test_ticks_are_few_round_and_inside(low, high):
  found = charts.ticks(low, high)
  assert 2 <= len(found) <= 6
  assert low - 1e-12 <= found[0] and found[-1] <= high + 1e-12
  steps = np.diff(found)
  np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
  digits = f'{steps[0]:.0e}'[0]
  assert digits in '125'


def _middle(image, color):
  """The rows of a color in a picture, from left to right: their mean in each column that has it."""
  near = (np.abs(np.asarray(image, int) - color).sum(axis=-1) < 40)[:300]
  return [near[:, x].nonzero()[0].mean() for x in near.any(axis=0).nonzero()[0]]


def test_a_line_that_rises_goes_up_and_another_down():
  chart = Chart('y', 'x', (Line('up', (0, 1, 3), (0, 1, 3)), Line('down', (0, 3), (3, 0))),
                {'level': 1.5})
  image = charts.draw([chart], columns=1)
  up, down = _middle(image, BLUE), _middle(image, RED)
  assert up[0] > up[-1] + 150 and down[0] < down[-1] - 150


@pytest.mark.parametrize('y', [1.0, 0.0])
def test_a_single_point_is_a_chart_with_its_point_in_the_middle(y):
  image = charts.draw([Chart('y', 'x', (Line('one', (2.0,), (y,)),))] * 3, width=400, height=300)
  assert image.size == (800, 626)
  assert np.abs(np.asarray(image)[144, 221].astype(int) - BLUE).max() < 8


def test_a_levels_name_is_clear_of_the_lines():
  """One runs above it to the right, one below it to the left."""
  lines = (Line('a', (0, 5, 10), (9, 4.3, 4.3)), Line('b', (0, 5, 10), (3.7, 3.7, 0)))
  named, unnamed = (np.asarray(charts.draw([Chart('y', 'x', lines, {name: 4})], columns=1), int)
                    for name in ('the level', ''))
  text = np.argwhere(np.abs(named - unnamed).sum(axis=-1) > 100)
  drawn = np.concatenate([np.argwhere(np.abs(named - color).sum(axis=-1)[:300] < 40)
                          for color in (BLUE, RED)])
  assert np.linalg.norm(text[:, None] - drawn, axis=-1).min() > 8
