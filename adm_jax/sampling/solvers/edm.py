"""The methods of Karras et al. (2022)."""

import jax
import jax.numpy as jnp

from adm_jax.sampling.solvers.base import Solver, flow, no_memory, scale


def heun() -> Solver:
  """Heun's method in sigma, of order 2 (Karras et al. 2022, algorithm 1): two evaluations a step.

  Euler's step, which is DDIM, then again with the mean of eps at both its ends.
  """
  def step(denoise, x, memory, step, noise):
    del noise
    p = denoise(x, step.t)
    end = flow(x, p.x0, step.sigma, step.sigma_next)

    def corrected(end):
      slope = (denoise(end, step.t_next).eps - p.eps) / 2
      return end + (step.sigma_next - step.sigma) * slope / scale(step.sigma_next)
    return jax.lax.cond(step.sigma_next > 0, corrected, lambda end: end, end), memory, p
  return Solver(no_memory, step, evaluations=2)


def churned(solver: Solver, noise_scale: float = 1.0) -> Solver:
  """Adds noise before each step, up to where it asks the denoiser (EDM, algorithm 2).

  `churned(heun())` is that algorithm and `churned(ddim())` its Euler's method. `spacing.churned`
  says how much; along other steps there is nothing to add.

  Args:
    solver: a method without memory or noise of its own.
    noise_scale: S_noise.
  """
  def step(denoise, x, memory, step, noise):
    # The difference of squares, which is exactly 0 where there is nothing to add.
    added = jnp.sqrt((step.sigma - step.sigma_start) * (step.sigma + step.sigma_start))
    x = (scale(step.sigma_start) * x + noise_scale * added * noise) / scale(step.sigma)
    return solver.step(denoise, x, memory, step, noise)
  return solver._replace(step=step)
