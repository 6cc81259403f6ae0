"""How much guidance, where: a scale at each step of a schedule.

In a compiled program a scale is an array, so that moving a slider compiles nothing. What is known
beforehand is only whether it acts everywhere, nowhere, or at some steps, where each step asks.
"""

import dataclasses
import functools
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Prediction, lookup
from adm_jax.process.schedules import Schedule

Array = jax.Array
# A number, one for each index of the schedule, f[S], or a function of its sigma, f64[S] -> f64[S].
Scale = float | np.ndarray | Callable[[np.ndarray], np.ndarray]


@functools.partial(jax.tree_util.register_dataclass, data_fields=['values'],
                   meta_fields=['off', 'active'])
@dataclasses.dataclass(frozen=True, eq=False)
class Scales:
  """A guidance scale in a program.

  Attributes:
    values: f32[S], one for each index of the schedule.
    off: the scale at which there is no guidance: 0 for a gradient, 1 for an extrapolation.
    active: whether guidance acts at all steps (True), at none (False), or where the values are not
      `off` (None). It is part of the program; the values are not.
  """
  values: Array
  off: float
  active: bool | None

  def at(self, t: Array, x: Array) -> Array:
    """The scale at t, i32[B] or a scalar, f32[B or 1 1 1 1], to multiply x [B H W C]."""
    return lookup(self.values, t, x)

  def where_active(self, t: Array, guided: Callable[[], Prediction],
                   plain: Callable[[], Prediction]) -> Prediction:
    """Gives `guided()` where guidance acts at t, else `plain()`, of which only one is computed.

    Where images have their own t, both are.
    """
    if self.active is not None:
      return guided() if self.active else plain()
    here = self.values[t] != self.off
    if not jnp.ndim(t):
      return jax.lax.cond(here, guided, plain)
    return jax.tree.map(lambda a, b: jnp.where(here[:, None, None, None], a, b), guided(), plain())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ScaleOfEach:
  """A guidance scale of each image's own, in place of `Scales`: guidance acts everywhere.

  Attributes:
    values: f32[B].
  """
  values: Array

  def at(self, t: Array, x: Array) -> Array:
    """The scales, f32[B 1 1 1]."""
    del t
    return self.values.reshape(-1, *(1,) * (x.ndim - 1))

  def where_active(self, t: Array, guided: Callable[[], Prediction],
                   plain: Callable[[], Prediction]) -> Prediction:
    """Gives `guided()`."""
    del t, plain
    return guided()


def scales_of(scale: 'Scale | Scales | ScaleOfEach', schedule: Schedule, *, off: float,
              between: tuple[float, float] | None = None) -> Scales | ScaleOfEach:
  """Prepares a scale for a program.

  Args:
    scale: see `Scale`; what is prepared is passed on.
    schedule: the process.
    off: what stands for no guidance.
    between: (low, high), the sigma outside of which there is none, see `within`.
  """
  if isinstance(scale, (Scales, ScaleOfEach)):
    return scale
  table = scale_table(scale, schedule)
  if between is not None:
    table = within(table, schedule, *between, outside=off)
  acts = table != off
  # An interval always asks, so that its ends can be moved in the same program.
  active = (False if not acts.any() else True if acts.all() and between is None else None)
  return Scales(jnp.asarray(table, jnp.float32), off, active)


def scale_table(scale: Scale, schedule: Schedule) -> np.ndarray:
  """Returns a scale at each index of the schedule, f64[S].

  Raises:
    UsageError: it has another shape, or is not finite.
  """
  values = np.asarray(scale(schedule.sigma) if callable(scale) else scale)
  if values.dtype.kind not in 'iuf':
    raise UsageError(f'a guidance scale of {scale!r}: give a number')
  if values.shape not in ((), (schedule.num_steps,)):
    raise UsageError(f'a guidance scale of shape {values.shape}: give a number, or one for each of '
                     f'the {schedule.num_steps} steps of the schedule')
  if not np.isfinite(values).all():
    raise UsageError(f'a guidance scale of {scale!r}: give finite numbers')
  return np.broadcast_to(values.astype(np.float64), schedule.num_steps)


def within(scale: Scale, schedule: Schedule, low: float, high: float,
           outside: float = 0.0) -> np.ndarray:
  """Returns `scale` at noise levels sigma in [low, high] only (Kynkaanniemi et al. 2024), f64[S].

  Args:
    scale: inside.
    schedule: the process.
    low: sigma, as `schedule.sigma`.
    high: sigma.
    outside: what stands for no guidance: 0 for a gradient, 1 for an extrapolation.

  Raises:
    UsageError: no noise level lies there.
  """
  inside = (low <= schedule.sigma) & (schedule.sigma <= high)
  if not inside.any():
    raise UsageError(f'no noise level of the schedule lies from {low:g} to {high:g}: they go from '
                     f'{schedule.sigma[0]:.3g} to {schedule.sigma[-1]:.3g}')
  return np.where(inside, scale_table(scale, schedule), outside)


def every_kth(scale: Scale, schedule: Schedule, timesteps: np.ndarray, k: int) -> np.ndarray:
  """Returns k times `scale` at every k-th step of a run, and 0 between them: an approximation.

  It saves all but 1 / k of the classifier's time. What a gradient does to x adds up over steps, if
  the solver lets each step act alone: ancestral, DDIM and Euler do; multistep solvers extrapolate
  from such blows, and methods of two evaluations need it between steps.

  Args:
    scale: of a gradient.
    schedule: the process.
    timesteps: i[S'], the indices of the schedule that the run visits, in order.
    k: 1 changes nothing.
  """
  if k < 1:
    raise UsageError(f'the classifier at every {k}th step: give at least 1')
  kept = np.zeros(schedule.num_steps)
  kept[np.asarray(timesteps)[::k]] = k
  return kept * scale_table(scale, schedule)
