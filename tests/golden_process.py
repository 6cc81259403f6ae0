"""The process and the toy network behind the golden files `diffusion_*.npz`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.process import diffusion as diffusion_lib
from adm_jax.process import likelihood, losses, schedules

_SCHEDULES = {'linear': schedules.linear, 'cosine': schedules.cosine}
_MEANS = {'eps': diffusion_lib.Eps, 'x0': diffusion_lib.X0, 'prev': diffusion_lib.Previous}
_VARIANCES = {'learned_range': diffusion_lib.LearnedRange, 'learned': diffusion_lib.Learned,
              'fixed_small': diffusion_lib.FixedSmall, 'fixed_large': diffusion_lib.FixedLarge}
_OBJECTIVES = {'mse': losses.mse, 'rescaled_mse': losses.rescaled_mse, 'kl': losses.kl,
               'rescaled_kl': losses.rescaled_kl}

# Of float32 against float32. The larger one is for values that are a small difference of large
# ones: x_0 read from a guess of x_{t-1} divides such a difference by beta.
TIGHT, LOOSE = 2e-5, 2e-4


def process(meta: dict) -> diffusion_lib.Diffusion:
  """The process that `meta` describes; like the reference, respaced even by ''."""
  schedule = _SCHEDULES[meta['schedule']](num_steps=meta['steps'],
                                          rescale_timesteps=meta['rescale_timesteps'])
  return diffusion_lib.Diffusion(schedules.respace(schedule, meta['respacing']),
                                 _MEANS[meta['mean']](), _VARIANCES[meta['variance']]())


def objective(meta: dict) -> losses.Objective:
  """The loss that `meta` names."""
  return _OBJECTIVES[meta['loss']]


def tolerance(meta: dict) -> float:
  """What relative error is rounding, for numbers that go through the predicted x_0."""
  return LOOSE if meta['mean'] == 'prev' else TIGHT


def bound_rounding(prediction: diffusion_lib.Prediction, x0, t) -> np.ndarray:
  """How far rounding may move a term of the bound, f64[B], in bits per dimension.

  A divergence is a difference of numbers of order 1. The decoder's term, at t = 0, is the log of a
  difference of two values of a distribution function, of which the larger is near 1 and so a
  multiple of 2^-24. Where a level has more probability than that, this is next to nothing; in a
  Gaussian's tail nothing else is left, in the reference as here (both are then 1e-3 and more off
  the same formula in float64).
  """
  p = diffusion_lib.Gaussian(prediction.mean, prediction.log_variance)
  log_probability = likelihood.discretized_log_likelihood(jnp.asarray(x0), p)
  probability = np.exp(np.asarray(log_probability, np.float64))
  unit = 2.0 ** -23
  move = np.log(probability + unit) - np.log(np.maximum(probability - unit, 1e-12))
  return np.where(np.asarray(t) == 0, move.mean(axis=(1, 2, 3)) / np.log(2), 2e-7)


def _time(t, x):
  return t.astype(jnp.float32).reshape(-1, *(1,) * (x.ndim - 1))


@dataclasses.dataclass(frozen=True)
class Toy:
  """A network in closed form: (x [B H W C], network time [B]) -> [B H W C or 2C]."""
  learned_variance: bool

  def __call__(self, x, t):
    t = _time(t, x)
    guess = 0.7 * x * jnp.cos(t / 500) + 0.2 * jnp.sin(3 * x)
    if not self.learned_variance:
      return guess
    extra = 1.2 * jnp.tanh(0.5 * x + t / 1000) - 0.3 * jnp.cos(2 * x)
    return jnp.concatenate([guess, extra], axis=-1)


def toy(diffusion: diffusion_lib.Diffusion) -> Toy:
  """The toy network with the channels that a process needs."""
  return Toy(diffusion.variance.learned)


def toy_gradient(x: jax.Array, t: jax.Array) -> jax.Array:
  """What the toy classifier says: (x [B H W C], network time [B]) -> [B H W C]."""
  return -0.3 * x + 0.1 * jnp.cos(x + _time(t, x) / 300)


def constant(array: np.ndarray):
  """The same noise at every step."""
  return lambda step: jnp.asarray(array)
