"""Noise schedules and their respacing.

A schedule is a table of variances beta_1 .. beta_S; everything else of the forward process follows
from it. All tables here are float64 NumPy and are derived before any rounding to float32, because
`1 - alpha_bar` loses most of its digits at both ends of the process. (DDIM's own step takes its
roots from float32, as the reference does.)

Index t counts from 0: x_{t=0} has already had one step of noise, as in the reference code.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """The forward process x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, of S steps.

  An immutable value, compared by content; static under `jit` (its tables become constants).

  Attributes:
    betas: f64[S], in (0, 1): the variance that each step adds; 1 would leave nothing of the image.
    timesteps: i64[S], rising: the index of each step in the process the network is trained on.
      `arange(S)` unless respaced.
    num_train_steps: T, the number of steps of that original process.
    rescale_timesteps: whether the network is given t * 1000 / T instead of t (IDDPM's convention
      for processes of other than 1,000 steps).
  """

  betas: np.ndarray
  timesteps: np.ndarray
  num_train_steps: int
  rescale_timesteps: bool = False

  def __post_init__(self):
    if self.betas.ndim != 1 or not self.betas.size:
      raise UsageError(f'betas of shape {self.betas.shape}: give one row of at least 1')
    if not ((self.betas > 0) & (self.betas < 1)).all():
      raise UsageError(f'betas from {self.betas.min():g} to {self.betas.max():g}: give numbers '
                       'above 0 and below 1; linear has them from 21 steps on, cosine with a '
                       'max_beta below 1')

  def _content(self):
    return (self.betas.tobytes(), self.timesteps.tobytes(), self.num_train_steps,
            self.rescale_timesteps)

  def __hash__(self):
    return hash(self._content())

  def __eq__(self, other):
    return isinstance(other, Schedule) and self._content() == other._content()

  @property
  def num_steps(self) -> int:
    return len(self.betas)

  @functools.cached_property
  def alpha_bar(self) -> np.ndarray:
    """f64[S]: prod_{s <= t} (1 - beta_s)."""
    return np.cumprod(1 - self.betas)

  @functools.cached_property
  def alpha_bar_prev(self) -> np.ndarray:
    """f64[S]: alpha_bar of the step before; 1 (clean data) before the first."""
    return np.append(1.0, self.alpha_bar[:-1])

  @functools.cached_property
  def alpha_bar_next(self) -> np.ndarray:
    """f64[S]: alpha_bar of the step after; 0 (pure noise) after the last."""
    return np.append(self.alpha_bar[1:], 0.0)

  @functools.cached_property
  def sigma(self) -> np.ndarray:
    """f64[S], rising: EDM's noise level, sqrt((1 - alpha_bar) / alpha_bar) = exp(-lambda)."""
    return np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

  @functools.cached_property
  def posterior_variance(self) -> np.ndarray:
    """f64[S]: Var q(x_{t-1} | x_t, x_0), DDPM eq. 7. It is 0 at t = 0."""
    return self.betas * (1 - self.alpha_bar_prev) / (1 - self.alpha_bar)

  @functools.cached_property
  def posterior_log_variance(self) -> np.ndarray:
    """f64[S]: its log, with the entry at t = 0 replaced by that at t = 1, as in the reference.

    A process of a single step has no t = 1: beta_0, the variance's upper bound, stands in.
    """
    first = self.posterior_variance[1] if self.num_steps > 1 else self.betas[0]
    return np.log(np.append(first, self.posterior_variance[1:]))

  @functools.cached_property
  def large_variance(self) -> np.ndarray:
    """f64[S]: beta_t, but the posterior's at t = 0, where beta gives a worse likelihood."""
    first = self.posterior_variance[1] if self.num_steps > 1 else self.betas[0]
    return np.append(first, self.betas[1:])

  @functools.cached_property
  def posterior_x0_weight(self) -> np.ndarray:
    """f64[S]: the weight of x_0 in E q(x_{t-1} | x_t, x_0)."""
    return self.betas * np.sqrt(self.alpha_bar_prev) / (1 - self.alpha_bar)

  @functools.cached_property
  def posterior_xt_weight(self) -> np.ndarray:
    """f64[S]: the weight of x_t in E q(x_{t-1} | x_t, x_0)."""
    return (1 - self.alpha_bar_prev) * np.sqrt(1 - self.betas) / (1 - self.alpha_bar)

  def network_time(self, t: jax.Array) -> jax.Array:
    """Maps an index of this process to the time that the network was trained with.

    Args:
      t: integers in [0, S), any shape.

    Returns:
      i32 like t, or f32 if `rescale_timesteps`.
    """
    original = jnp.asarray(self.timesteps, jnp.int32)[t]
    if self.rescale_timesteps:
      return original.astype(jnp.float32) * (1000.0 / self.num_train_steps)
    return original


def from_betas(betas, *, rescale_timesteps: bool = False) -> Schedule:
  """The schedule with the given variances, f64[T]."""
  betas = np.asarray(betas, np.float64)
  return Schedule(betas, np.arange(len(betas)), len(betas), rescale_timesteps)


_MOST_STEPS = 1_000_000  # beyond which a mistyped number would only take memory


def _check_num_steps(num_steps: int) -> None:
  if not 1 <= num_steps <= _MOST_STEPS:
    raise UsageError(f'num_steps={num_steps}: a process has at least 1 step, at most '
                     f'{_MOST_STEPS:,}')


def linear(*, num_steps: int, rescale_timesteps: bool = False) -> Schedule:
  """Ho et al. (2020): beta from 1e-4 to 0.02 for T = 1000, scaled by 1000 / T for other T.

  Args:
    num_steps: T.
    rescale_timesteps: the network is told t 1000 / T in place of t.
  """
  _check_num_steps(num_steps)
  scale = 1000 / num_steps
  return from_betas(np.linspace(scale * 1e-4, scale * 0.02, num_steps, dtype=np.float64),
                    rescale_timesteps=rescale_timesteps)


def cosine(*, num_steps: int, offset: float = 0.008, max_beta: float = 0.999,
           rescale_timesteps: bool = False) -> Schedule:
  """Nichol & Dhariwal (2021), eq. 17: alpha_bar(u) = cos^2((u + s) / (1 + s) * pi / 2).

  Args:
    num_steps: T.
    offset: s.
    max_beta: what no beta exceeds.
    rescale_timesteps: the network is told t 1000 / T in place of t.
  """
  _check_num_steps(num_steps)
  u = np.arange(num_steps + 1) / num_steps
  alpha_bar = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
  return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta),
                    rescale_timesteps=rescale_timesteps)


def respace(schedule: Schedule, spec: str | int | tuple[int, ...] = '') -> Schedule:
  """Keeps some steps of a process, with betas such that alpha_bar at those steps is unchanged.

  Args:
    schedule: the process to thin out; it may itself be respaced.
    spec: which steps to keep, as '250', 'ddim25' or '90,60,60,20,20'; '': all.
  """
  kept = space_timesteps(schedule.num_steps, spec)
  alpha_bar = schedule.alpha_bar[kept]
  return Schedule(1 - alpha_bar / np.append(1.0, alpha_bar[:-1]), schedule.timesteps[kept],
                  schedule.num_train_steps, schedule.rescale_timesteps)


def space_timesteps(num_steps: int, spec: str | int | tuple[int, ...] = '') -> np.ndarray:
  """The rising indices, i64[S], that a respacing keeps out of `num_steps`.

  Args:
    num_steps: the length T of the process.
    spec: `''` keeps all. `'ddimN'` keeps N with one integer stride from 0 (Song et al., 2021), so
      that it ends below T - 1. `'a,b,c'` (or a tuple, or one number) cuts the process into equal
      sections and keeps a, b, c steps of each, first and last included. Positions are rounded
      half to even, on which the published numbers depend.

  Raises:
    UsageError: the count cannot be had.
  """
  if isinstance(spec, str) and spec.startswith('ddim'):
    return _one_stride(num_steps, spec)
  if isinstance(spec, str):
    words = [word.strip() for word in spec.split(',')] if spec.strip() else [str(num_steps)]
    if not all(word.isdecimal() for word in words):
      raise UsageError(f'respacing {spec!r} is not understood: give "", "N", "a,b,c" or "ddimN"')
    counts = [int(word) for word in words]
  else:
    counts = [spec] if isinstance(spec, int) else list(spec)
  kept, start = [], 0
  for i, count in enumerate(counts):
    size = num_steps // len(counts) + (i < num_steps % len(counts))
    if not 0 < count <= size:
      raise UsageError(f'respacing {spec!r} asks for {count} of the {size} steps of section '
                       f'{i + 1} of {len(counts)} (the process has {num_steps} steps): '
                       f'give 1 to {size}')
    stride = (size - 1) / (count - 1) if count > 1 else 1
    position = 0.0  # accumulated, not multiplied: the reference's rounding at ties depends on it
    for _ in range(count):
      kept.append(start + round(position))
      position += stride
    start += size
  return np.array(kept)


def _one_stride(num_steps: int, spec: str) -> np.ndarray:
  word = spec.removeprefix('ddim')
  strides = range(1, num_steps)
  if word.isdecimal():
    for stride in strides:
      if len(range(0, num_steps, stride)) == int(word):
        return np.arange(0, num_steps, stride)
  possible = {len(range(0, num_steps, stride)) for stride in strides}
  wanted = int(word) if word.isdecimal() else 0
  nearest = sorted(sorted(possible, key=lambda count: abs(count - wanted))[:4])
  raise UsageError(f'respacing {spec!r} is impossible: no integer stride keeps '
                   f'{word or "that many"} of {num_steps} steps; nearest that exist: '
                   f'{", ".join(f"ddim{count}" for count in nearest)}; or use "{wanted or 50}", '
                   'which spaces the steps unevenly')
