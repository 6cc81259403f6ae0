"""Where the label enters sampling.

Guidance is a map from denoiser to denoiser, so that solvers know nothing of it. A gradient of
log p(y | x_t) moves every currency of a `Prediction` at once, each as the ADM paper says:

    ancestral (algorithm 1):  mean <- mean + variance * gradient
    DDIM (algorithm 2):       eps  <- eps - sqrt(1 - alpha_bar_t) * gradient,  and x_0 with it

Both take the gradient at x_t, as the reference does (not at the mean), and the moved x_0 is not
clipped again unless asked.

Guidance by another prediction (without a label, or of a weaker model) moves away from it, and needs
no gradient. The kinds combine: `guided(classifier_free(...), gradient, schedule)`. A scale is one
number or one a step, and steps where it does nothing cost nothing.
"""

from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Denoiser, Prediction, eps_from_x0, lookup, x0_from_eps
from adm_jax.process.schedules import Schedule

Array = jax.Array
Gradient = Callable[[Array, Array], Array]  # (x_t [B H W C], network time [B]) -> [B H W C]
# A number, one for each index of the schedule, f[S], or a function of its sigma, f64[S] -> f64[S].
Scale = float | np.ndarray | Callable[[np.ndarray], np.ndarray]


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


def normalized(gradient: Gradient) -> Gradient:
  """`gradient`, each image's divided by its root mean square.

  The scale alone then says how far eps moves: by sqrt(1 - alpha_bar) * scale in the mean square,
  where a classifier that is sure would not move it at all.
  """
  def gradient_normalized(x, time):
    g = gradient(x, time)
    square = (g ** 2).mean(axis=(1, 2, 3), keepdims=True)  # [B 1 1 1]
    return g * jax.lax.rsqrt(jnp.maximum(square, jnp.finfo(g.dtype).tiny))
  return gradient_normalized


def guided(denoise: Denoiser, gradient: Gradient, schedule: Schedule, *, scale: Scale = 1.0,
           clip: bool = False) -> Denoiser:
  """Follows `gradient` with every prediction.

  Args:
    denoise: the unguided model.
    gradient: of log p(y | x_t); it gets the network's time.
    schedule: the process that `denoise` belongs to.
    scale: times the gradient; where it is 0, the gradient is not computed.
    clip: clip the moved x_0 to [-1, 1] again, and let eps follow. The reference does not; but
      where alpha_bar is all but 0, as at the start of the cosine schedule, the smallest gradient
      moves x_0 by thousands, and a guided DDIM run ends in saturated images.
  """
  scales = scale_table(scale, schedule)

  def denoise_guided(x, t):
    prediction = denoise(x, t)

    def follow():
      time = schedule.network_time(jnp.broadcast_to(t, x.shape[:1]))
      moved = shift(schedule, prediction, lookup(scales, t, x) * gradient(x, time), x, t)
      if not clip:
        return moved
      x0 = jnp.clip(moved.x0, -1, 1)
      return moved.replace(x0=x0, eps=eps_from_x0(schedule, x0, x, t))
    return _where(scales != 0, t, follow, lambda: prediction)
  return denoise_guided


def shift(schedule: Schedule, prediction: Prediction, gradient: Array, x: Array,
          t: Array) -> Prediction:
  """Moves a prediction along a gradient of log p(y | x_t), [B H W C]."""
  eps = prediction.eps - lookup(np.sqrt(1 - schedule.alpha_bar), t, x) * gradient
  return prediction.replace(x0=x0_from_eps(schedule, eps, x, t), eps=eps,
                            mean=prediction.mean + prediction.variance * gradient)


# ---------------------------------------------------------------------------------------------
# Guidance by another prediction.


def classifier_free(denoise_as: Callable[[Array], Denoiser], labels: Array, null_label: int,
                    schedule: Schedule, scale: Scale) -> Denoiser:
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
  scales = scale_table(scale, schedule)
  # Pairs lie side by side, so that a batch split over devices stays where it is.
  pairs = jnp.stack([labels, jnp.full_like(labels, null_label)], axis=1)  # [B 2]
  conditional, both = denoise_as(labels), denoise_as(pairs.reshape(-1))

  def denoise_guided(x, t):
    def apart():
      prediction = both(jnp.repeat(x, 2, axis=0), jnp.repeat(t, 2) if jnp.ndim(t) else t)
      strong, weak = (jax.tree.map(lambda leaf: leaf[i::2], prediction) for i in range(2))
      return extrapolate(weak, strong, lookup(scales, t, x))
    return _where(scales != 1, t, apart, lambda: conditional(x, t))
  return denoise_guided


def autoguided(denoise: Denoiser, weaker: Denoiser, schedule: Schedule, scale: Scale) -> Denoiser:
  """Away from a weaker model of the same images (Karras et al. 2024): smaller, or trained less.

  Args:
    denoise: the model.
    weaker: the other; clip neither, but what comes of them (`thresholded`).
    schedule: the process that both belong to.
    scale: w of eps = eps_weaker + w (eps - eps_weaker): 1 is the model alone.
  """
  scales = scale_table(scale, schedule)

  def denoise_guided(x, t):
    strong = denoise(x, t)
    return _where(scales != 1, t,
                  lambda: extrapolate(weaker(x, t), strong, lookup(scales, t, x)), lambda: strong)
  return denoise_guided


def extrapolate(weak: Prediction, strong: Prediction, scale: Array) -> Prediction:
  """weak + scale (strong - weak), in every currency; the variance is the strong one's."""
  def beyond(a, b):
    # In this form a scale of 1 gives the strong one to the last digit.
    return b + (scale - 1) * (b - a)
  return strong.replace(x0=beyond(weak.x0, strong.x0), eps=beyond(weak.eps, strong.eps),
                        mean=beyond(weak.mean, strong.mean))


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


# ---------------------------------------------------------------------------------------------
# How much, where.


def scale_table(scale: Scale, schedule: Schedule) -> np.ndarray:
  """f64[S]: a scale at each index of the schedule."""
  values = np.asarray(scale(schedule.sigma) if callable(scale) else scale, np.float64)
  if values.shape not in ((), (schedule.num_steps,)):
    raise UsageError(f'a guidance scale of shape {values.shape}: give a number, or one for each of '
                     f'the {schedule.num_steps} steps of the schedule')
  return np.broadcast_to(values, schedule.num_steps)


def within(scale: Scale, schedule: Schedule, low: float, high: float,
           outside: float = 0.0) -> np.ndarray:
  """`scale` at noise levels sigma in [low, high] only (Kynkaanniemi et al. 2024).

  Args:
    scale: inside.
    schedule: the process.
    low: sigma, as `schedule.sigma`.
    high: sigma.
    outside: what stands for no guidance: 0 for a gradient, 1 for `classifier_free` and
      `autoguided`.
  """
  inside = (low <= schedule.sigma) & (schedule.sigma <= high)
  if not inside.any():
    raise UsageError(f'no noise level of the schedule lies from {low:g} to {high:g}: they go from '
                     f'{schedule.sigma[0]:.3g} to {schedule.sigma[-1]:.3g}')
  return np.where(inside, scale_table(scale, schedule), outside)


def every_kth(scale: Scale, schedule: Schedule, timesteps: np.ndarray, k: int) -> np.ndarray:
  """An approximation: k times `scale` at every k-th step of a run, and no gradient between them.

  It saves all but 1 / k of the classifier's time. What a gradient does to x adds up over steps, if
  the solver lets each step act alone: ancestral, DDIM and Euler do; multistep solvers extrapolate
  from such blows, and methods of two evaluations need it between steps.

  Args:
    scale: of a gradient.
    schedule: the process.
    timesteps: i[S'], the indices of the schedule that the run visits, in order.
    k: 1 changes nothing.
  """
  if k < 1:
    raise UsageError(f'the classifier at every {k}th step: give at least 1')
  kept = np.zeros(schedule.num_steps)
  kept[np.asarray(timesteps)[::k]] = k
  return kept * scale_table(scale, schedule)


def _where(active: np.ndarray, t: Array, guided: Callable[[], Prediction],
           plain: Callable[[], Prediction]) -> Prediction:
  """`guided()` where `active` bool[S] at t, else `plain()`, of which only one is computed.

  Where images have their own t, both are.
  """
  if active.all():
    return guided()
  if not active.any():
    return plain()
  here = jnp.asarray(active)[t]
  if not jnp.ndim(t):
    return jax.lax.cond(here, guided, plain)
  return jax.tree.map(lambda a, b: jnp.where(here[:, None, None, None], a, b), guided(), plain())
