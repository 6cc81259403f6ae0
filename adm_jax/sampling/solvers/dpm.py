"""DPM-Solver++ (Lu et al. 2022b)."""

import functools

import jax
import jax.numpy as jnp

from adm_jax.sampling.solvers.base import Solver, flow, no_memory, scale
from adm_jax.sampling.solvers.past import Past, check_order


def dpm_singlestep() -> Solver:
  """Asks again halfway through each step: DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1).

  That is halfway in lambda, or as near to it as there is a step of the schedule.
  """
  def step(denoise, x, memory, step, noise):
    del noise
    p = denoise(x, step.t)

    def by_two(x):
      middle = flow(x, p.x0, step.sigma, step.sigma_middle)
      q = denoise(middle, step.t_middle)
      past = Past(2, (step.sigma, step.sigma_middle), (p.x0, q.x0))
      return flow(x, past.mean(step.sigma, step.sigma_next, 2), step.sigma, step.sigma_next)
    # To clean data the step is infinite in lambda, and has no middle.
    x = jax.lax.cond(step.sigma_next > 0, by_two, lambda x: p.x0, x)
    return x, memory, p
  return Solver(no_memory, step, 'dpm++2s', order=2, evaluations=2, deterministic=True)


def dpm_multistep(order: int = 2, sde: bool = False) -> Solver:
  """Extrapolates the last predictions: DPM-Solver++ (Lu et al. 2022b; 2M is algorithm 2).

  The first steps, which have no past, and the last, which run into clean data, are of lower order.

  Args:
    order: how many predictions: 1 is DDIM, 2 is for guided and 3 for unguided sampling. Order 3
      integrates the parabola through its predictions; released code (the authors', Diffusers)
      halves its last term, which leaves order 2.
    sde: SDE-DPM-Solver++ (there, section 5): fresh noise in every step, in the amount of `ddim`
      with eta 1, which this is for order 1.
  """
  check_order(order)

  def step(denoise, x, past, step, noise):
    p = denoise(x, step.t)
    past = past.add(step.sigma, p.x0)
    here, there = step.sigma, step.sigma_next
    used = jnp.minimum(past.count, step.left + 1)
    if not sde:
      return flow(x, past.mean(here, there, used), here, there), past.latest(order - 1), p
    # The noise decays as fast again as along the flow, and its lost variance is drawn anew.
    ratio = (there / here) ** 2
    x = (ratio * scale(here) * x + (1 - ratio) * past.mean(here, there, used, rate=2)
         + there * jnp.sqrt(1 - ratio) * noise) / scale(there)
    return x, past.latest(order - 1), p
  return Solver(lambda x: Past.none(x, order - 1), step, f'dpm++{order}m{"-sde" if sde else ""}',
                order=min(order, 2) if sde else order, deterministic=not sde)


OFFERED = (dpm_multistep, functools.partial(dpm_multistep, order=3), dpm_singlestep,
           functools.partial(dpm_multistep, sde=True))
