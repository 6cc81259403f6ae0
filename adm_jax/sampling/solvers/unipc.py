"""UniPC (Zhao et al. 2023)."""

import functools

import jax.numpy as jnp

from adm_jax.sampling.solvers.base import Solver, flow
from adm_jax.sampling.solvers.past import Past, check_order


def unipc(order: int = 2) -> Solver:
  """Corrects each step by the prediction at its end: UniPC in x_0 (Zhao et al. 2023).

  B(h) there is e^h - 1. The prediction first corrects the step that led to it, to one order more,
  and then serves the next step, from the corrected point.

  Args:
    order: of the predictor; the whole is of one more.
  """
  check_order(order)

  def step(denoise, x, memory, step, noise):
    del noise
    (before, past), here, there = memory, step.sigma, step.sigma_next
    p = denoise(x, step.t)
    past_and_now = past.add(here, p.x0)
    # `left + 2` is what the step before had left, and `+ 1` is the new prediction.
    used = jnp.minimum(jnp.minimum(past.count, order), step.left + 2) + 1
    corrected = flow(before, past_and_now.mean(past.sigma[0], here, used), past.sigma[0], here)
    x = jnp.where(past.count > 0, corrected, x)
    past = past_and_now.latest(order)
    used = jnp.minimum(past.count, step.left + 1)
    return flow(x, past.mean(here, there, used), here, there), (x, past), p
  return Solver(lambda x: (jnp.zeros_like(x), Past.none(x, order)), step, f'unipc{order}',
                order=order + 1, deterministic=True)


OFFERED = unipc, functools.partial(unipc, order=3)
