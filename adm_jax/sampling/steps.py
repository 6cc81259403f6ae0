"""Where the steps of a run go from and to; `spacings` has more ways to choose them."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.process.schedules import Schedule

Array = jax.Array
CLEAN = -1  # in place of an index of the schedule: before its first noise
_MANY = 2**20


@flax.struct.dataclass
class Step:
  """Where a step goes from and to; as the `xs` of the scan, with a leading axis of steps.

  Sigmas are EDM's noise levels sqrt((1 - alpha_bar) / alpha_bar), 0 for clean data, rounded from
  float64 where alpha_bar in float32 has lost the digits of 1 - alpha_bar.
  """
  index: Array           # i32: position in the whole run, of which these may be the last steps;
                         # names the step's noise
  left: Array            # i32: steps that follow to clean data; many if it does not end there
  t: Array               # i32: index of the schedule, where the denoiser is asked
  alpha_bar: Array       # f32: there
  alpha_bar_next: Array  # f32: where the step ends
  sigma: Array           # f32: at t
  sigma_next: Array      # f32: where the step ends
  sigma_start: Array     # f32: where x lies: sigma, but below it with churn (`churned`)
  t_next: Array          # i32: where the step ends; means nothing at clean data
  t_middle: Array        # i32: nearest to halfway in log sigma, t_next if nothing lies between
  sigma_middle: Array    # f32: there


def descend(schedule: Schedule) -> Step:
  """All steps from the noisiest, t = S - 1, to clean data; leading axis S."""
  return to_clean(schedule, np.arange(schedule.num_steps)[::-1])


def ascend(schedule: Schedule) -> Step:
  """The S - 1 steps from data, taken to be x_{t=0}, up to x_{t = S-1}, where `descend` starts.

  DDIM along these steps is the reference's `ddim_reverse_sample`: it encodes an image (ADM paper,
  appendix F, which also leaves out the step that would end in pure noise).
  """
  order = np.arange(schedule.num_steps - 1)
  return walk(schedule, order, order + 1)


def to_clean(schedule: Schedule, order: np.ndarray) -> Step:
  """From each index of the schedule in `order`, i64[S], falling, to the next, and to clean data."""
  return walk(schedule, order, np.append(order[1:], CLEAN))


def walk(schedule: Schedule, order: np.ndarray, ends: np.ndarray,
         starts: np.ndarray | None = None) -> Step:
  """Steps between indices of a schedule, each i64[S].

  Args:
    schedule: the process.
    order: where the denoiser is asked.
    ends: where each step ends, or CLEAN.
    starts: where x lies at first, by default at `order`; noise is added from there (`churned`).
  """
  # CLEAN, -1, finds the entry appended here.
  alpha_bar, sigma = np.append(schedule.alpha_bar, 1.0), np.append(schedule.sigma, 0.0)
  middle = np.array([_middle(schedule.sigma, *pair) for pair in zip(order, ends)], int)
  place = functools.partial(jnp.asarray, dtype=jnp.int32)
  level = functools.partial(jnp.asarray, dtype=jnp.float32)
  to_data = len(ends) > 0 and ends[-1] == CLEAN
  return Step(
      index=jnp.arange(len(order)),
      left=place(np.arange(len(order))[::-1] + (0 if to_data else _MANY)), t=place(order),
      alpha_bar=level(alpha_bar[order]), alpha_bar_next=level(alpha_bar[ends]),
      sigma=level(sigma[order]), sigma_next=level(sigma[ends]),
      sigma_start=level(sigma[order if starts is None else starts]),
      t_next=place(np.maximum(ends, 0)), t_middle=place(middle), sigma_middle=level(sigma[middle]))


def _middle(sigma: np.ndarray, here: int, there: int) -> int:
  """The index from `there` to `here`, which is left out, nearest to halfway in log sigma."""
  if there == CLEAN:
    return 0
  between = np.arange(there, here, np.sign(here - there))
  halfway = np.sqrt(sigma[here] * sigma[there])
  return between[np.argmin(np.abs(np.log(sigma[between] / halfway)))]
