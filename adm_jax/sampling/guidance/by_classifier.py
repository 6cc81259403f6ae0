"""Guidance by the gradient of a classifier: ADM's own.

A gradient of log p(y | x_t) moves every currency of a `Prediction` at once, each as the ADM paper
says:

    ancestral (algorithm 1):  mean <- mean + variance * gradient
    DDIM (algorithm 2):       eps  <- eps - sqrt(1 - alpha_bar_t) * gradient,  and x_0 with it

Both take the gradient at x_t, as the reference does (not at the mean), and the moved x_0 is
clipped again as `clip` says, or else the solver.
"""

import dataclasses
import pathlib
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Denoiser, Prediction, eps_from_x0, lookup, x0_from_eps
from adm_jax.process.schedules import Schedule
from adm_jax.sampling.guidance import base
from adm_jax.sampling.guidance.base import Bound, Run
from adm_jax.sampling.guidance.scales import Scale, Scales, every_kth, scales_of
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

Array = jax.Array
Gradient = Callable[[Array, Array], Array]  # (x_t [B H W C], network time [B]) -> [B H W C]


@dataclasses.dataclass(frozen=True, eq=False)
class ByClassifier:
  """Follows the gradient of a classifier's log p(y | x_t).

  Attributes:
    classifier: a published model, a folder, a file of weights, or what `pretrained.load` returned.
    scale: of the gradient; None: the paper's for this pair of models, or 1.
    between: (low, high), the sigma between which there is guidance; None: everywhere.
    normalize: divide each image's gradient by its root mean square, see `normalized`.
    every: ask the classifier at every k-th step only, see `every_kth`.
    clip: clip x_0 again after it was moved; None: as the solver says (`clip_guided_above`).
    weights: the file of a published classifier, or which weights of a folder.
  """
  classifier: str | pathlib.Path | Trained
  scale: Scale | None = None
  between: tuple[float, float] | None = None
  normalize: bool = False
  every: int = 1
  clip: bool | None = None
  weights: str | pathlib.Path | None = None

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    if self.every != 1 and not run.solver.acts_alone:
      raise UsageError(f'every={self.every} needs steps that act alone, which those of '
                       f'{run.solver.name} do not: give the solver ancestral, ddim or euler')
    trained = loaded or pretrained.trained(self.classifier, self.weights)
    _check_pair(run.model, trained)
    network, clip = base.own_network(trained, dtype), self._clips(run)

    def guide(conditional, context):
      def logits(x, time):
        return network.apply(context.params, x, time)

      def guided_as(labels):
        gradient = classifier_gradient(logits, labels, 1.0)
        return guided(conditional(labels), normalized(gradient) if self.normalize else gradient,
                      context.schedule, scale=context.scales, clip=clip)
      return guided_as

    scale = self._scale(run)
    table = scale if self.every == 1 else every_kth(scale, run.schedule, run.steps.t, self.every)
    description = {'classifier': pretrained.describe(self.classifier, trained),
        'scale': base.described_scale(scale, run.schedule), 'between': self.between,
        'normalize': self.normalize, 'every': self.every, 'clip': clip}
    fixed = (ByClassifier, str(self.classifier), str(self.weights), self.normalize, clip)
    return Bound('classifier', guide, fixed, description,
                 scales_of(table, run.schedule, off=0.0, between=self.between), trained)

  def _scale(self, run: Run) -> Scale:
    if self.scale is not None:
      return self.scale
    paired = run.published is not None and run.published.classifier == str(self.classifier)
    return run.published.scale if paired else 1.0

  def _clips(self, run: Run) -> bool:
    if self.clip is not None:
      return self.clip
    alpha_bar = np.float64(run.steps.alpha_bar[0])
    return bool(np.sqrt(1 / alpha_bar - 1) > run.solver.clip_guided_above)


def _check_pair(model: Trained, classifier: Trained) -> None:
  ours, its = model.network, classifier.network
  if not its.classifies:
    raise UsageError('what is given as classifier is a network that makes images: give a '
                     'classifier of the same image size')
  if ours.image_shape != its.image_shape:
    raise UsageError(f'the classifier is for images of {_size(its.image_shape)}, the model makes '
                     f'{_size(ours.image_shape)}: give a classifier of that size')
  if ours.num_classes not in (None, its.num_classes):
    raise UsageError(f'the classifier knows {its.num_classes} classes, the model '
                     f'{ours.num_classes}: give one that was trained on the same classes')
  if ours.diffusion.schedule != its.diffusion.schedule:
    raise UsageError('the classifier was trained on another noise schedule than the model: give '
                     'one of the same schedule')


def _size(shape: tuple[int, ...]) -> str:
  return ' x '.join(map(str, shape))


def classifier_gradient(classifier: Callable[[Array, Array], Array], labels: Array,
                        scale: float | Array) -> Gradient:
  """scale * grad_x log p(y | x_t), for `guided`.

  Args:
    classifier: (x_t [B H W C], network time [B]) -> logits [B classes].
    labels: i32[B], the class y of each image.
    scale: ADM's classifier scale: p(y | x_t) ** scale, renormalized, is what guides.
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


def guided(denoise: Denoiser, gradient: Gradient, schedule: Schedule, *,
           scale: Scale | Scales = 1.0, clip: bool = False) -> Denoiser:
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
  strength = scales_of(scale, schedule, off=0.0)

  def denoise_guided(x, t):
    prediction = denoise(x, t)

    def follow():
      time = schedule.network_time(jnp.broadcast_to(t, x.shape[:1]))
      moved = shift(schedule, prediction, strength.at(t, x) * gradient(x, time), x, t)
      if not clip:
        return moved
      x0 = jnp.clip(moved.x0, -1, 1)
      return moved.replace(x0=x0, eps=eps_from_x0(schedule, x0, x, t))
    return strength.where_active(t, follow, lambda: prediction)
  return denoise_guided


def shift(schedule: Schedule, prediction: Prediction, gradient: Array, x: Array,
          t: Array) -> Prediction:
  """Moves a prediction along a gradient of log p(y | x_t), [B H W C]."""
  eps = prediction.eps - lookup(np.sqrt(1 - schedule.alpha_bar), t, x) * gradient
  return prediction.replace(x0=x0_from_eps(schedule, eps, x, t), eps=eps,
                            mean=prediction.mean + prediction.variance * gradient)
