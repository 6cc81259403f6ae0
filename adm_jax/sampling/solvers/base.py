"""What a solver is, and the arithmetic that several share."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.process.diffusion import Denoiser, Prediction
from adm_jax.sampling.steps import Step

Array = jax.Array


class Solver(NamedTuple):
  """A numerical method, which carries its name and its traits.

  The command line, its checks and docs/solvers.md know solvers by these alone. Traits that are left
  out claim the least.

  Attributes:
    init: x [B H W C] -> memory, any pytree of numbers and of arrays with the leading axis B.
    step: (denoise, x, memory, step, noise) -> (x, memory, prediction): from x at `step.alpha_bar`
      to `step.alpha_bar_next`. `noise` is fresh standard normal [B H W C]; a solver that ignores it
      costs nothing, since XLA removes what is not used.
    name: what it is called on the command line.
    order: the power of the steps' length with which errors fall: those of the end point, or, where
      noise is drawn, those of the images' mean and variance.
    evaluations: of the denoiser per step; but every solver asks just once in a step to clean data.
    deterministic: it draws no noise, and follows the probability flow either way (`steps.ascend`).
    acts_alone: a step is one evaluation and remembers nothing, so that what guidance adds in one
      step does not come back in others: `guidance.every_kth` needs that.
    may_churn: noise may be added before each step (`churned`).
    neighbors_only: it steps between neighbors of a schedule only, so that fewer steps need another
      schedule (respacing) instead of a spacing.
    clip_guided_above: in runs that begin above this sigma, x_0 is clipped again after a classifier
      has moved it, where nothing else is said. The reference's two methods never do. But where
      alpha_bar is all but 0, as at the end of the cosine schedule, all except ancestral sampling
      would end in saturated images: DDIM is clipped there, where no published number was made.
    settings: JSON values (name, value) that tell this solver from others of its name.
  """
  init: Callable[[Array], Any]
  step: Callable[[Denoiser, Array, Any, Step, Array], tuple[Array, Any, Prediction]]
  name: str
  order: int = 1
  evaluations: int = 1
  deterministic: bool = False
  acts_alone: bool = False
  may_churn: bool = False
  neighbors_only: bool = False
  clip_guided_above: float = 0.0
  settings: tuple[tuple[str, Any], ...] = ()


def num_evaluations(solver: Solver, steps: Step) -> int:
  """How often `solver` asks the denoiser along `steps`."""
  once = int((np.asarray(steps.sigma_next) == 0).sum())
  return once + solver.evaluations * (len(steps.t) - once)


def no_memory(x: Array) -> tuple:
  del x
  return ()


def flow(x: Array, x0: Array, sigma: Array, sigma_next: Array) -> Array:
  """Carries x [B H W C] along the probability flow, were x_0 the prediction all the way: DDIM."""
  ratio = sigma_next / sigma
  return (ratio * scale(sigma) * x + (1 - ratio) * x0) / scale(sigma_next)


def scale(sigma: Array) -> Array:
  """1 / sqrt(alpha_bar): x times it is in EDM's coordinates."""
  return jnp.sqrt(1 + sigma ** 2)
