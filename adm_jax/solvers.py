"""One step of sampling each.

Like an optax transformation, a solver is a pair of pure functions. `step` sees the model only as a
denoiser and its place in the process only as a `Step`, so that a new solver is one function here;
multistep methods keep earlier predictions in `memory`.
"""

from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.diffusion import Denoiser, Prediction
from adm_jax.schedules import Schedule

Array = jax.Array


@flax.struct.dataclass
class Step:
  """Where a step goes from and to; as the `xs` of the scan, with a leading axis of steps."""
  index: Array           # i32: position in the run from 0, names the step's noise
  t: Array               # i32: index of the schedule, where the denoiser is asked
  alpha_bar: Array       # f32: there
  alpha_bar_next: Array  # f32: where the step ends


class Solver(NamedTuple):
  """A numerical method.

  Attributes:
    init: x [B H W C] -> memory, any pytree.
    step: (denoise, x, memory, step, noise) -> (x, memory, prediction): from x at `step.alpha_bar`
      to `step.alpha_bar_next`. `noise` is fresh standard normal [B H W C]; a solver that ignores it
      costs nothing, since XLA removes what is not used.
  """
  init: Callable[[Array], Any]
  step: Callable[[Denoiser, Array, Any, Step, Array], tuple[Array, Any, Prediction]]


def descend(schedule: Schedule) -> Step:
  """All steps from the noisiest, t = S - 1, to clean data; leading axis S."""
  order = np.arange(schedule.num_steps)[::-1]
  return _steps(order, schedule.alpha_bar[order], schedule.alpha_bar_prev[order])


def ascend(schedule: Schedule) -> Step:
  """The S - 1 steps from data, taken to be x_{t=0}, up to x_{t = S-1}, where `descend` starts.

  DDIM along these steps is the reference's `ddim_reverse_sample`: it encodes an image (ADM paper,
  appendix F, which also leaves out the step that would end in pure noise).
  """
  order = np.arange(schedule.num_steps - 1)
  return _steps(order, schedule.alpha_bar[order], schedule.alpha_bar_next[order])


def _steps(order, alpha_bar, alpha_bar_next) -> Step:
  return Step(index=jnp.arange(len(order)), t=jnp.asarray(order, jnp.int32),
              alpha_bar=jnp.asarray(alpha_bar, jnp.float32),
              alpha_bar_next=jnp.asarray(alpha_bar_next, jnp.float32))


def _no_memory(x: Array) -> tuple:
  del x
  return ()


def ancestral() -> Solver:
  """Draws x_{t-1} from p(x_{t-1} | x_t): DDPM, algorithm 2; no noise at t = 0.

  A guidance gradient enters through the mean. Walks `descend` of the schedule only: p knows no
  other steps.
  """
  def step(denoise, x, memory, step, noise):
    p = denoise(x, step.t)
    noisy = (step.t != 0).astype(x.dtype)
    return p.mean + noisy * jnp.exp(0.5 * p.log_variance) * noise, memory, p
  return Solver(_no_memory, step)


def ddim(eta: float = 0.0) -> Solver:
  """Song et al. (2021), eq. 12 and 16; a guidance gradient enters through eps.

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
  return Solver(_no_memory, step)
