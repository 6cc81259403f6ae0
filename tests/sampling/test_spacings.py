"""Spacings: any number of distinct steps, from noise to clean data."""

import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.process import schedules
from adm_jax.sampling import spacings
from adm_jax.sampling.steps import descend

LINEAR, COSINE = schedules.linear(num_steps=1000), schedules.cosine(num_steps=1000)
SCHEDULES = [pytest.param(LINEAR, id='linear'), pytest.param(COSINE, id='cosine')]
SPACINGS = spacings.OFFERED.values()


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('space', SPACINGS)
def test_steps_are_as_many_as_asked_distinct_and_chained(space, schedule):
  """Each starts at the noise level where the one before ended, down to clean data."""
  for num in (1, 2, 3, 20, 250):
    steps = space(schedule, num)
    t = np.asarray(steps.t)
    assert len(t) == num and (np.diff(t) < 0).all() and t[-1] >= 0
    np.testing.assert_array_equal(steps.sigma[1:], steps.sigma_next[:-1])
    np.testing.assert_array_equal(steps.alpha_bar[1:], steps.alpha_bar_next[:-1])
    np.testing.assert_array_equal(steps.t[1:], steps.t_next[:-1])
    np.testing.assert_array_equal(steps.left, np.arange(num)[::-1])
    assert steps.sigma_next[-1] == 0 and steps.alpha_bar_next[-1] == 1
    middle = np.asarray(steps.t_middle)
    assert ((middle >= steps.t_next) & (middle < t))[:-1].all()


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_each_spacing_is_even_in_its_own_measure(schedule):
  """But for rounding to a step of the schedule."""
  t = np.asarray(spacings.by_time(schedule, 12).t)
  np.testing.assert_allclose(t, np.linspace(999, 0, 12), atol=0.5)
  np.testing.assert_array_equal(spacings.trailing(schedule, 10).t, np.arange(999, 0, -100))
  for space, measure in ((spacings.by_log_snr, np.log), (spacings.karras, lambda s: s ** (1 / 7))):
    t = np.asarray(space(schedule, 12).t)
    sigma = schedule.sigma[t]
    assert abs(np.log(sigma[0] / 80)) < 0.02 and t[-1] == 0
    # Measured at the highest sigma in place of 80, with a tolerance of the neighboring step.
    even = np.linspace(measure(80.0), measure(schedule.sigma[0]), 12)
    below, above = (measure(schedule.sigma[np.clip(t + side, 0, 999)]) for side in (-1, 1))
    assert ((below <= even) & (even <= above))[1:-1].all()


def test_more_steps_than_rounding_leaves_are_moved_apart():
  """All of a short process, in every spacing, is `descend`."""
  schedule = schedules.linear(num_steps=30)
  for space in SPACINGS:
    top = int(space(schedule, 1).t[0]) + 1
    np.testing.assert_array_equal(space(schedule, top).t, np.arange(top)[::-1])
    for num in (0, -1, top + 1):
      with pytest.raises(UsageError, match=f'{num} steps'):
        space(schedule, num)


def test_descend_is_even_in_time():
  for one, other in zip(vars(descend(COSINE)).values(),
                        vars(spacings.by_time(COSINE, 1000)).values()):
    np.testing.assert_array_equal(one, other)


def test_a_trajectory_of_little_noise_is_refused():
  with pytest.raises(UsageError, match='sigma_max=0.001'):
    spacings.karras(LINEAR, 5, sigma_max=0.001)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_churn_raises_each_step_by_its_factor_between_its_bounds(schedule):
  """To the nearest step of the schedule; x lies where it lay, and ends where it ended."""
  plain = spacings.karras(schedule, 20)
  steps = spacings.churned(schedule, plain, 4.0, low=0.1, high=30.0)
  np.testing.assert_array_equal(steps.sigma_start, plain.sigma)
  np.testing.assert_array_equal(steps.sigma_next, plain.sigma_next)
  inside = (np.asarray(plain.sigma) >= 0.1) & (np.asarray(plain.sigma) <= 30)
  assert 0 < inside.sum() < 20
  np.testing.assert_allclose(steps.sigma[inside], 1.2 * plain.sigma[inside], rtol=0.03)
  np.testing.assert_array_equal(steps.sigma[~inside], plain.sigma[~inside])
  most = spacings.churned(schedule, plain, 1e9)
  np.testing.assert_allclose(most.sigma[inside], np.sqrt(2) * plain.sigma[inside], rtol=0.03)
