"""Data of which everything is known: pixels ~ N(m, s^2), for which the ideal denoiser is linear, or
a mixture of such, for which it is not.

In float32, with tables from float64, so that the tests built on it are about the solver.
"""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from adm_jax.process.diffusion import X0, Diffusion, Learned, Prediction, Variance, denoiser, lookup
from adm_jax.process.schedules import Schedule
from adm_jax.sampling.sampler import sample
from adm_jax.sampling.solvers import Solver
from adm_jax.sampling.steps import Step, descend


@dataclasses.dataclass(frozen=True)
class GaussianData:
  """N(mean, std^2), independently for each pixel."""
  mean: float
  std: float

  def x0_variance(self, schedule: Schedule) -> np.ndarray:
    """f64[S]: Var(x_0 | x_t), the same for every x_t."""
    a, v = schedule.alpha_bar, self.std ** 2
    return v * (1 - a) / (a * v + 1 - a)

  def x0_slope(self, schedule: Schedule) -> np.ndarray:
    """f64[S]: d E(x_0 | x_t) / d x_t."""
    a, v = schedule.alpha_bar, self.std ** 2
    return np.sqrt(a) * v / (a * v + 1 - a)

  def x0_mean(self, schedule: Schedule, x, t):
    """E(x_0 | x_t)."""
    return self.mean + lookup(self.x0_slope(schedule), t, x) * (
        x - lookup(np.sqrt(schedule.alpha_bar) * self.mean, t, x))

  def diffusion(self, schedule: Schedule, variance: Variance = Learned()) -> Diffusion:
    return Diffusion(schedule, X0(), variance)

  def network(self, schedule: Schedule, variance: Variance = Learned()) -> Callable:
    """E(x_0 | x_t) and, for the variance `Learned`, the log of Var(x_{t-1} | x_t)."""
    reverse_variance = (schedule.posterior_variance
                        + schedule.posterior_x0_weight ** 2 * self.x0_variance(schedule))

    def network(x, t):
      mean = self.x0_mean(schedule, x, t)
      if variance != Learned():
        return mean
      log_variance = lookup(np.log(reverse_variance), t, x)
      return jnp.concatenate([mean, jnp.broadcast_to(log_variance, x.shape)], axis=-1)
    return network

  def denoiser(self, schedule: Schedule, variance: Variance = Learned()):
    """The ideal denoiser, for a schedule that is not respaced (`network` is asked at its index)."""
    return denoiser(self.diffusion(schedule, variance), self.network(schedule, variance),
                    clip=False)

  def flow(self, x, alpha_bar: float, alpha_bar_next: float):
    """Where the noiseless process carries x from one level of noise to another.

    It keeps each point's number of standard deviations from the mean.
    """
    here, there = (np.sqrt(a * self.std ** 2 + 1 - a) for a in (alpha_bar, alpha_bar_next))
    x = np.asarray(x, np.float64) - np.sqrt(alpha_bar) * self.mean
    return np.sqrt(alpha_bar_next) * self.mean + there / here * x


@dataclasses.dataclass(frozen=True)
class MixtureData:
  """sum_k weight_k N(center_k, std^2), independently for each pixel."""
  centers: tuple[float, ...] = (-0.6, 0.1, 0.7)
  weights: tuple[float, ...] = (0.3, 0.5, 0.2)
  std: float = 0.25

  def denoiser(self, schedule: Schedule):
    """The ideal one, of x_0 and eps, in the precision of x; knows sigma in float32, as `Step`."""
    sigmas = schedule.sigma.astype(np.float32)

    def denoise(x, t):
      sigma = jnp.asarray(sigmas)[t].astype(x.dtype)
      scaled = x * jnp.sqrt(1 + sigma ** 2)
      v = self.std ** 2 + sigma ** 2
      offsets = jnp.stack([scaled - center for center in self.centers])  # [K B H W C]
      logs = jnp.log(jnp.asarray(self.weights)).reshape(-1, 1, 1, 1, 1)
      share = jax.nn.softmax(logs - offsets ** 2 / (2 * v), axis=0)
      x0 = scaled - sigma ** 2 / v * (share * offsets).sum(axis=0)
      nothing = jnp.zeros_like(x)
      return Prediction(x0=x0, eps=(scaled - x0) / sigma, mean=nothing, variance=nothing,
                        log_variance=nothing)
    return denoise

  def flow(self, x, sigma: float, sigma_next: float):
    """Where the noiseless process carries x, in EDM's coordinates: it keeps each point's quantile.

    In float64, to 1e-13.
    """
    def quantile(point, level):
      return sum(weight * special.ndtr((point - center) / np.sqrt(self.std ** 2 + level ** 2))
                 for center, weight in zip(self.centers, self.weights))
    return np.array([
        optimize.brentq(lambda y, q=quantile(point, sigma): quantile(y, sigma_next) - q, -9, 9,
                        xtol=1e-13) for point in np.asarray(x, np.float64)])


def moments(solver: Solver, denoise, schedule: Schedule, steps: Step | None = None):
  """(mean, variance) of what a solver makes from x_T ~ N(0, 1), exactly, for a linear denoiser.

  The result is then linear in x_T and in each step's noise, so that its variance is the sum of the
  squared responses: pixel k is given a unit of the noise of step k, pixel S a unit of x_T, and
  the last pixel nothing.
  """
  steps = descend(schedule) if steps is None else steps
  num_steps = len(steps.t)
  start = jnp.zeros(num_steps + 2).at[num_steps].set(1.0)

  def noise(step):
    return (jnp.arange(num_steps + 2) == step).astype(jnp.float32).reshape(1, 1, -1, 1)

  x, _ = sample(solver, denoise, steps, start.reshape(1, 1, -1, 1), noise)
  x = np.asarray(x, np.float64).ravel()
  return x[-1], ((x[:-1] - x[-1]) ** 2).sum()
