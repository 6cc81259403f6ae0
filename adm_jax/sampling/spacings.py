"""Which steps of a schedule a run visits, in any number: what stands in for `steps.descend`.

Each function gives `num` distinct steps of the process the network was trained on, falling to clean
data, rounded to the nearest that are there. They need no respacing: all solvers go along them but
those that know only steps between neighbors. A new spacing is a function here, and a name in
OFFERED; or it stays in a file of one's own, and `by_name` takes FILE.py:FUNCTION.
"""

from typing import Any, Callable

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.process.schedules import Schedule
from adm_jax.sampling import offers
from adm_jax.sampling.steps import CLEAN, Step, to_clean, walk

# Where spacing by noise level starts, at most: EDM's choice. Above it the image is lost in noise,
# but a cosine schedule of 1,000 steps goes on to 20,000.
SIGMA_MAX = 80.0


def by_time(schedule: Schedule, num: int) -> Step:
  """Spaces evenly in t, from S - 1 to 0 (DPM-Solver's choice for pixels)."""
  return _nearest(schedule, (schedule.num_steps - 1) * (1 - _fractions(num)))


def trailing(schedule: Schedule, num: int) -> Step:
  """Strides by S / num from S - 1 down to one stride above clean data (Lin et al. 2024)."""
  return _nearest(schedule, schedule.num_steps * (1 - _fractions(num) * (num - 1) / num) - 1)


def by_log_snr(schedule: Schedule, num: int, *, sigma_max: float = SIGMA_MAX) -> Step:
  """Spaces evenly in the log of the signal-to-noise ratio, from `sigma_max` to t = 0."""
  first, last = _range(schedule, sigma_max)
  return _nearest(schedule, _indices(schedule, first * (last / first) ** _fractions(num)))


def karras(schedule: Schedule, num: int, *, rho: float = 7.0,
           sigma_max: float = SIGMA_MAX) -> Step:
  """Spaces evenly in sigma^(1 / rho), from `sigma_max` to t = 0 (Karras et al. 2022, eq. 5)."""
  first, last = _range(schedule, sigma_max)
  first, last = first ** (1 / rho), last ** (1 / rho)
  return _nearest(schedule, _indices(schedule, (first + (last - first) * _fractions(num)) ** rho))


OFFERED = {'time': by_time, 'trailing': trailing, 'log-snr': by_log_snr, 'karras': karras}


def by_name(name: str, **given: Any) -> Callable[[Schedule, int], Step]:
  """Returns the spacing called `name`, or somebody's own, FILE.py:FUNCTION.

  Args:
    name: one of OFFERED, or FILE.py:FUNCTION.
    **given: its options, such as `rho`.

  Raises:
    UsageError: there is none, or it has no such option.
  """
  return offers.chosen('spacing', name, OFFERED, given)


def churned(schedule: Schedule, steps: Step, churn: float, *, low: float = 0.0,
            high: float = np.inf) -> Step:
  """`steps` that each begin by adding noise (EDM, algorithm 2), for `solvers.churned`.

  Args:
    schedule: that of `steps`.
    steps: to clean data.
    churn: S_churn: of S steps each raises sigma by the factor 1 + min(churn / S, sqrt(2) - 1), to
      the nearest step of the schedule.
    low: S_min: only where sigma is at least this,
    high: S_max: and at most this.
  """
  starts = np.asarray(steps.t)
  sigma = schedule.sigma[starts]
  factor = 1 + np.where((low <= sigma) & (sigma <= high),
                        min(churn / max(len(starts), 1), np.sqrt(2) - 1), 0)
  raised = np.maximum(_indices(schedule, sigma * factor), starts)
  return walk(schedule, raised, np.append(starts[1:], CLEAN), starts)


def _range(schedule: Schedule, sigma_max: float) -> tuple[float, float]:
  if not sigma_max > schedule.sigma[0]:
    raise UsageError(f'sigma_max={sigma_max}: give more than the first noise level, '
                     f'{schedule.sigma[0]:.3g}')
  return min(sigma_max, schedule.sigma[-1]), schedule.sigma[0]


def _indices(schedule: Schedule, sigmas: np.ndarray) -> np.ndarray:
  """Where the schedule's noise levels are nearest, as fractions: linear in log sigma."""
  fractions = np.interp(np.log(sigmas), np.log(schedule.sigma), np.arange(schedule.num_steps))
  return np.round(fractions).astype(int)


def _nearest(schedule: Schedule, positions: np.ndarray) -> Step:
  """Steps at distinct indices as near as can be to falling `positions` f64[S] in the schedule."""
  num, most = len(positions), int(np.round(positions[0])) + 1
  if num > most:
    raise UsageError(f'{num} steps: this spacing of the schedule has 1 to {most}')
  count = np.arange(num)
  rising = np.round(positions[::-1]).astype(int)
  # Neighbors that fall together are moved up, and where that goes too far, down.
  rising = np.minimum(np.maximum.accumulate(rising - count) + count, most - num + count)
  return to_clean(schedule, rising[::-1])


def _fractions(num: int) -> np.ndarray:
  """From 0 to 1, f64[num]."""
  if num < 1:
    raise UsageError(f'{num} steps: give at least 1')
  return np.linspace(0, 1, num)
