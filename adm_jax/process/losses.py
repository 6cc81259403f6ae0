"""Training objectives of DDPM, IDDPM and ADM.

Each is a function of (diffusion, network, x0, t, eps) that returns a dict of f32[B] terms, of which
`loss` is to be minimized. The expectation over t is the caller's (`timestep_samplers`).
"""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.process import likelihood
from adm_jax.process.diffusion import Diffusion, Network, lookup, predict, q_sample

Array = jax.Array
Objective = Callable[[Diffusion, Network, Array, Array, Array], dict[str, Array]]


def _noised_output(diffusion, network, x0, t, eps):
  x = q_sample(diffusion.schedule, x0, t, eps)
  return x, network(x, diffusion.schedule.network_time(t)).astype(jnp.float32)


def _bound(diffusion, output, x0, x, t):
  # Unclipped: a clipped x_0 would have no gradient.
  return likelihood.vb_term(diffusion, predict(diffusion, output, x, t, clip=False), x0, x, t)


def _error_of_target(diffusion, output, x0, x, t, eps):
  return diffusion.mean.target(diffusion.schedule, x0, x, t, eps) - output[..., :x0.shape[-1]]


def _error_of_v(diffusion, output, x0, x, t, eps):
  del eps
  guess = predict(diffusion, output, x, t, clip=False).x0
  return (x0 - guess) / lookup(np.sqrt(1 - diffusion.schedule.alpha_bar), t, x)


def _squared_error(diffusion, network, x0, t, eps, *, bound_scale, error=_error_of_target):
  x, output = _noised_output(diffusion, network, x0, t, eps)
  mse = likelihood.mean_over_pixels(error(diffusion, output, x0, x, t, eps) ** 2)
  if not diffusion.variance.learned:
    return {'loss': mse, 'mse': mse}
  # The bound teaches the variance alone: the mean is learned by the squared error (IDDPM eq. 16).
  guess, extra = jnp.split(output, [x0.shape[-1]], axis=-1)
  frozen = jnp.concatenate([jax.lax.stop_gradient(guess), extra], axis=-1)
  vb = bound_scale * _bound(diffusion, frozen, x0, x, t)
  return {'loss': mse + vb, 'mse': mse, 'vb': vb}


def mse(diffusion: Diffusion, network: Network, x0: Array, t: Array, eps: Array) -> dict:
  """L_simple (DDPM eq. 14); with a learned variance L_simple + L_vb, `vb` in bits per dimension."""
  return _squared_error(diffusion, network, x0, t, eps, bound_scale=1.0)


def rescaled_mse(diffusion: Diffusion, network: Network, x0: Array, t: Array, eps: Array) -> dict:
  """L_hybrid = L_simple + S / 1000 L_vb: with S times the term, an estimate of 0.001 of the bound.

  IDDPM eq. 16. The same as `mse` for a process of 1,000 steps.
  """
  scale = diffusion.schedule.num_steps / 1000
  return _squared_error(diffusion, network, x0, t, eps, bound_scale=scale)


def v_mse(diffusion: Diffusion, network: Network, x0: Array, t: Array, eps: Array) -> dict:
  """`mse`, but of v, whatever the network predicts: (SNR + 1) |x_0 - guess|^2 (Salimans & Ho 2022).

  Where there is more noise than image, and where sampling decides on colors, a wrong color of the
  whole image is hardly an error of eps, but it is one of v. For `Eps` the weight is 1 / alpha_bar,
  which has no bound: let the network predict `TemperedEps` or `V`.
  """
  return _squared_error(diffusion, network, x0, t, eps, bound_scale=1.0, error=_error_of_v)


def kl(diffusion: Diffusion, network: Network, x0: Array, t: Array, eps: Array) -> dict:
  """L_vlb: the term of the bound at t, in bits per dimension."""
  x, output = _noised_output(diffusion, network, x0, t, eps)
  return {'loss': _bound(diffusion, output, x0, x, t)}


def rescaled_kl(diffusion: Diffusion, network: Network, x0: Array, t: Array, eps: Array) -> dict:
  """S times the term, so that its mean over uniform t estimates the whole bound."""
  terms = kl(diffusion, network, x0, t, eps)
  return {'loss': diffusion.schedule.num_steps * terms['loss']}
