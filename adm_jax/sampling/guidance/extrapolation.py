"""Guidance by another prediction moves away from it, and needs no gradient."""

import jax

from adm_jax.process.diffusion import Prediction

Array = jax.Array


def extrapolate(weak: Prediction, strong: Prediction, scale: Array) -> Prediction:
  """weak + scale (strong - weak), in every currency; the variance is the strong one's."""
  def beyond(a, b):
    # In this form a scale of 1 gives the strong one to the last digit.
    return b + (scale - 1) * (b - a)
  return strong.replace(x0=beyond(weak.x0, strong.x0), eps=beyond(weak.eps, strong.eps),
                        mean=beyond(weak.mean, strong.mean))
