"""The variational bound in bits per dimension, term by term (DDPM eq. 5, IDDPM section 2)."""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.process.diffusion import (
  Denoiser,
  Diffusion,
  Gaussian,
  Prediction,
  eps_from_x0,
  q_marginal,
  q_posterior,
  q_sample,
)

Array = jax.Array


def mean_over_pixels(x: Array) -> Array:
  """[B ...] -> [B]."""
  return x.mean(axis=tuple(range(1, x.ndim)))


def gaussian_kl(p: Gaussian, q: Gaussian) -> Array:
  """KL(p || q) of diagonal Gaussians, in nats, elementwise."""
  return 0.5 * (-1 + q.log_variance - p.log_variance + jnp.exp(p.log_variance - q.log_variance)
                + (p.mean - q.mean) ** 2 * jnp.exp(-q.log_variance))


def _approximate_normal_cdf(x: Array) -> Array:
  # Not erf: the published likelihoods were computed with this approximation.
  return 0.5 * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def discretized_log_likelihood(x: Array, p: Gaussian) -> Array:
  """log of the probability that p gives to the 8-bit level of x, in nats, elementwise.

  Levels are 2 / 255 wide; the first and the last reach to infinity (DDPM eq. 13).

  The probability of a level far out is the difference of two nearly equal float32 numbers, so that
  two correct programs need not agree there: with the reference to 1.5e-3 in the golden case of a
  fixed small variance, and to no fixed bound for other images.

  Args:
    x: 8-bit images scaled to [-1, 1].
    p: the decoder's Gaussian.
  """
  inverse_std = jnp.exp(-0.5 * p.log_variance)
  below = _approximate_normal_cdf((x - p.mean + 1 / 255) * inverse_std)
  above = _approximate_normal_cdf((x - p.mean - 1 / 255) * inverse_std)
  probability = jnp.where(x < -0.999, below, jnp.where(x > 0.999, 1 - above, below - above))
  return jnp.log(jnp.maximum(probability, 1e-12))


def vb_term(diffusion: Diffusion, prediction: Prediction, x0: Array, x: Array, t: Array) -> Array:
  """One term of the bound, f32[B], in bits per dimension.

  KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) where t > 0, and the decoder's -log p(x_0 | x_1)
  where t = 0.
  """
  p = Gaussian(prediction.mean, prediction.log_variance)
  kl = mean_over_pixels(gaussian_kl(q_posterior(diffusion.schedule, x0, x, t), p))
  decoder = mean_over_pixels(-discretized_log_likelihood(x0, p))
  return jnp.where(t == 0, decoder, kl) / np.log(2)


def prior_term(diffusion: Diffusion, x0: Array) -> Array:
  """KL(q(x_T | x_0) || N(0, I)), f32[B], in bits per dimension; it does not train anything."""
  last = q_marginal(diffusion.schedule, x0, jnp.int32(diffusion.schedule.num_steps - 1))
  kl = gaussian_kl(last, Gaussian(jnp.zeros_like(x0), jnp.zeros_like(x0)))
  return mean_over_pixels(kl) / np.log(2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bound:
  """The bound on -log2 p(x_0) per dimension. Columns go with t = S - 1 down to 0."""
  total: Array    # f32[B], bits per dimension: prior + sum of vb
  prior: Array    # f32[B], bits per dimension
  vb: Array       # f32[B S], bits per dimension
  x0_mse: Array   # f32[B S], squared error of the predicted x_0
  eps_mse: Array  # f32[B S], squared error of the predicted noise


def bits_per_dimension(diffusion: Diffusion, denoise: Denoiser, x0: Array,
                       noise: Callable[[Array], Array]) -> Bound:
  """The whole bound, S evaluations of the network in one `lax.scan`.

  Args:
    diffusion: the process.
    denoise: the model, in this process.
    x0: f32[B H W C], 8-bit images scaled to [-1, 1].
    noise: t -> standard normal [B H W C], independent for each t (`sampling.noise_from_keys`).
  """
  schedule = diffusion.schedule

  def term(carry, t):
    eps = noise(t)
    x = q_sample(schedule, x0, t, eps)
    prediction = denoise(x, t)
    return carry, (vb_term(diffusion, prediction, x0, x, t),
                   mean_over_pixels((prediction.x0 - x0) ** 2),
                   mean_over_pixels((eps_from_x0(schedule, prediction.x0, x, t) - eps) ** 2))

  timesteps = jnp.arange(schedule.num_steps)[::-1]
  _, terms = jax.lax.scan(term, None, timesteps)
  vb, x0_mse, eps_mse = (term.T for term in terms)  # [S B] -> [B S]
  prior = prior_term(diffusion, x0)
  return Bound(total=prior + vb.sum(axis=1), prior=prior, vb=vb, x0_mse=x0_mse, eps_mse=eps_mse)
