"""Where the label enters sampling.

Guidance is a map from denoiser to denoiser, so that solvers know nothing of it. A gradient of
log p(y | x_t) moves every currency of a `Prediction` at once, each as the ADM paper says:

    ancestral (algorithm 1):  mean <- mean + variance * gradient
    DDIM (algorithm 2):       eps  <- eps - sqrt(1 - alpha_bar_t) * gradient,  and x_0 with it

Both take the gradient at x_t, as the reference does (not at the mean), and the moved x_0 is not
clipped again unless asked.
"""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.diffusion import Denoiser, Prediction, eps_from_x0, lookup, x0_from_eps
from adm_jax.schedules import Schedule

Array = jax.Array
Gradient = Callable[[Array, Array], Array]  # (x_t [B H W C], network time [B]) -> [B H W C]


def classifier_gradient(classifier: Callable[[Array, Array], Array], labels: Array,
                        scale: float | Array) -> Gradient:
  """scale * grad_x log p(y | x_t), for `guided`.

  Args:
    classifier: (x_t [B H W C], network time [B]) -> logits [B classes].
    labels: i32[B], the class y of each image.
    scale: ADM's classifier scale: p(y | x_t) ** scale, renormalised, is what guides.
  """
  def log_probability(x, time):
    log_p = jax.nn.log_softmax(classifier(x, time).astype(jnp.float32))  # [B classes]
    # The sum over the batch separates: image i's gradient comes from its own term alone.
    return jnp.take_along_axis(log_p, labels[:, None], axis=-1).sum()

  def gradient(x, time):
    return scale * jax.grad(log_probability)(x, time)
  return gradient


def guided(denoise: Denoiser, gradient: Gradient, schedule: Schedule, *,
           clip: bool = False) -> Denoiser:
  """Follows `gradient` with every prediction.

  Args:
    denoise: the unguided model.
    gradient: of log p(y | x_t); it gets the network's time.
    schedule: the process that `denoise` belongs to.
    clip: clip the moved x_0 to [-1, 1] again, and let eps follow. The reference does not; but
      where alpha_bar is all but 0, as at the start of the cosine schedule, the smallest gradient
      moves x_0 by thousands, and a guided DDIM run ends in saturated images.
  """
  def denoise_guided(x, t):
    time = schedule.network_time(jnp.broadcast_to(t, x.shape[:1]))
    moved = shift(schedule, denoise(x, t), gradient(x, time), x, t)
    if not clip:
      return moved
    x0 = jnp.clip(moved.x0, -1, 1)
    return moved.replace(x0=x0, eps=eps_from_x0(schedule, x0, x, t))
  return denoise_guided


def shift(schedule: Schedule, prediction: Prediction, gradient: Array, x: Array,
          t: Array) -> Prediction:
  """Moves a prediction along a gradient of log p(y | x_t), [B H W C]."""
  eps = prediction.eps - lookup(np.sqrt(1 - schedule.alpha_bar), t, x) * gradient
  return prediction.replace(x0=x0_from_eps(schedule, eps, x, t), eps=eps,
                            mean=prediction.mean + prediction.variance * gradient)
