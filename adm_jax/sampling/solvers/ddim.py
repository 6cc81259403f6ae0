"""DDIM, the reference's second."""

import jax.numpy as jnp

from adm_jax.sampling.solvers.base import Solver, no_memory


def ddim(eta: float = 0.0) -> Solver:
  """Goes on along the predicted eps: DDIM (Song et al. 2021, eq. 12 and 16).

  A guidance gradient enters through eps.

  Args:
    eta: 0 is deterministic, and also runs backwards (`ascend`); 1 has the noise of DDPM with the
      small variance.
  """
  def step(denoise, x, memory, step, noise):
    p = denoise(x, step.t)
    here, there = step.alpha_bar, step.alpha_bar_next
    if eta == 0:
      return jnp.sqrt(there) * p.x0 + jnp.sqrt(1 - there) * p.eps, memory, p
    sigma = eta * jnp.sqrt((1 - there) / (1 - here)) * jnp.sqrt(1 - here / there)
    # Rounding must not make the root of a difference that is exactly 0 for eta = 1 a NaN.
    direction = jnp.sqrt(jnp.maximum(1 - there - sigma**2, 0))
    noisy = (step.t != 0).astype(x.dtype)
    x = jnp.sqrt(there) * p.x0 + direction * p.eps + noisy * sigma * noise
    return x, memory, p
  return Solver(no_memory, step, 'ddim', deterministic=eta == 0, acts_alone=True,
                clip_guided_above=1e3, settings=(('eta', eta),))


OFFERED = (ddim,)
