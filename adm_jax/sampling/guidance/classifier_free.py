"""Classifier-free guidance: away from the unconditional prediction (Ho & Salimans 2022)."""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp

from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Denoiser
from adm_jax.process.schedules import Schedule
from adm_jax.sampling.guidance import base
from adm_jax.sampling.guidance.base import Bound, Run
from adm_jax.sampling.guidance.extrapolation import extrapolate
from adm_jax.sampling.guidance.scales import Scale, Scales, scales_of
from adm_jax.weights.folders import Trained

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierFree:
  """Moves away from the model's own unconditional prediction; to be given first.

  Attributes:
    scale: w of eps = eps_null + w (eps_label - eps_null): 0 is unconditional; 1 is conditional, and
      costs nothing more. (The paper's own w is this less 1.)
    between: (low, high), the sigma between which there is guidance; None: everywhere.
  """
  scale: Scale
  between: tuple[float, float] | None = None

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    del dtype, loaded
    null_label = run.model.network.null_label
    if null_label is None:
      raise UsageError(f'{run.name or "the model"} was trained without label dropout, so that '
                       'there is no classifier-free guidance: guide it by a classifier or a weaker '
                       'model')

    def guide(conditional, context):
      return lambda labels: classifier_free(conditional, labels, null_label, context.schedule,
                                            context.scales)
    description = {'scale': base.described_scale(self.scale, run.schedule),
                   'between': self.between}
    return Bound('classifier_free', guide, (ClassifierFree,), description,
                 scales_of(self.scale, run.schedule, off=1.0, between=self.between),
                 extrapolates=True)


def classifier_free(denoise_as: Callable[[Array], Denoiser], labels: Array, null_label: int,
                    schedule: Schedule, scale: Scale | Scales) -> Denoiser:
  """Away from the unconditional prediction, through the conditional one (Ho & Salimans 2022).

  Both come from one evaluation of twice the batch. Clip or threshold what comes of them, not each
  (`thresholded`).

  Args:
    denoise_as: labels i32[B] -> the model as a denoiser of B images with these labels.
    labels: i32[B].
    null_label: the one that stands for any class.
    schedule: the process that the model belongs to.
    scale: w of eps = eps_null + w (eps_label - eps_null): 0 is unconditional; 1 is conditional,
      and costs nothing more. (The paper's own w is this less 1.)
  """
  strength = scales_of(scale, schedule, off=1.0)
  # Pairs lie side by side, so that a batch split over devices stays where it is.
  pairs = jnp.stack([labels, jnp.full_like(labels, null_label)], axis=1)  # [B 2]
  conditional, both = denoise_as(labels), denoise_as(pairs.reshape(-1))

  def denoise_guided(x, t):
    def apart():
      prediction = both(jnp.repeat(x, 2, axis=0), jnp.repeat(t, 2) if jnp.ndim(t) else t)
      strong, weak = (jax.tree.map(lambda leaf: leaf[i::2], prediction) for i in range(2))
      return extrapolate(weak, strong, strength.at(t, x))
    return strength.where_active(t, apart, lambda: conditional(x, t))
  return denoise_guided
