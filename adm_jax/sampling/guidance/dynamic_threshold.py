"""Dynamic thresholding, and clipping of what guidance has made."""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp

from adm_jax.process.diffusion import Denoiser, dynamic_threshold, eps_from_x0, lookup
from adm_jax.process.schedules import Schedule
from adm_jax.sampling.guidance.base import Bound, Conditional, Run
from adm_jax.weights.folders import Trained

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class DynamicThreshold:
  """Scales x_0 down instead of clipping it, see `diffusion.dynamic_threshold`.

  Attributes:
    share: of the values that are to lie in [-1, 1], say 0.995.
  """
  share: float

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    del run, dtype, loaded
    threshold = dynamic_threshold(self.share)

    def guide(conditional, context):
      return lambda labels: thresholded(conditional(labels), threshold, context.schedule)
    description = {'share': self.share}
    return Bound('threshold', guide, (DynamicThreshold, self.share), description,
                 replaces_clipping=True)


def thresholded(denoise: Denoiser, threshold: Callable[[Array], Array],
                schedule: Schedule) -> Denoiser:
  """Passes the predicted x_0 through `threshold`; eps follows it, and the mean as q's does.

  For what `diffusion.denoiser` cannot clip, because guidance came after it.
  """
  def denoise_thresholded(x, t):
    p = denoise(x, t)
    x0 = threshold(p.x0)
    mean = p.mean + lookup(schedule.posterior_x0_weight, t, x) * (x0 - p.x0)
    return p.replace(x0=x0, eps=eps_from_x0(schedule, x0, x, t), mean=mean)
  return denoise_thresholded


def clipped(conditional: Conditional, schedule: Schedule) -> Conditional:
  """Clips x_0 to [-1, 1] after guidance that extrapolates."""
  return lambda labels: thresholded(conditional(labels), lambda x0: jnp.clip(x0, -1, 1), schedule)
