"""DDPM's own sampling, the reference's first."""

import jax.numpy as jnp
import numpy as np

from adm_jax.sampling.solvers.base import Solver, no_memory


def ancestral() -> Solver:
  """Draws x_{t-1} from p(x_{t-1} | x_t): DDPM, algorithm 2; no noise at t = 0.

  A guidance gradient enters through the mean. Walks `descend` of the schedule only: p knows no
  other steps.
  """
  def step(denoise, x, memory, step, noise):
    p = denoise(x, step.t)
    noisy = (step.t != 0).astype(x.dtype)
    return p.mean + noisy * jnp.exp(0.5 * p.log_variance) * noise, memory, p
  return Solver(no_memory, step, 'ancestral', acts_alone=True, neighbors_only=True,
                clip_guided_above=np.inf)


OFFERED = (ancestral,)
