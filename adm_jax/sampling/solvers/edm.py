"""The methods of Karras et al. (2022)."""

import jax
import jax.numpy as jnp

from adm_jax.sampling.solvers.base import Solver, flow, no_memory, scale
from adm_jax.sampling.solvers.ddim import ddim


def euler() -> Solver:
  """Goes straight on in sigma: Euler's method, DDIM's step, which may be churned.

  As the other methods of few evaluations, and unlike `ddim`, it has guided predictions clipped.
  """
  return ddim()._replace(name='euler', may_churn=True, clip_guided_above=0.0)


def heun() -> Solver:
  """Repeats Euler's step with the mean of both ends' eps (Karras et al. 2022, algorithm 1)."""
  def step(denoise, x, memory, step, noise):
    del noise
    p = denoise(x, step.t)
    end = flow(x, p.x0, step.sigma, step.sigma_next)

    def corrected(end):
      slope = (denoise(end, step.t_next).eps - p.eps) / 2
      return end + (step.sigma_next - step.sigma) * slope / scale(step.sigma_next)
    return jax.lax.cond(step.sigma_next > 0, corrected, lambda end: end, end), memory, p
  return Solver(no_memory, step, 'heun', order=2, evaluations=2, deterministic=True, may_churn=True)


def churned(solver: Solver, noise_scale: float = 1.0) -> Solver:
  """Adds noise before each step, up to where it asks the denoiser (EDM, algorithm 2).

  `churned(heun())` is that algorithm and `churned(euler())` its Euler's method. `spacings.churned`
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
  return solver._replace(step=step, deterministic=False,
                         settings=(*solver.settings, ('noise_scale', noise_scale)))


OFFERED = euler, heun
