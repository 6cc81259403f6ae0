"""What a classifier of noised images sees in x_t: how sure it is of a class, and where it pulls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.sampling.pipeline import Pipeline
from adm_jax.serving.models import Model
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

Array = jax.Array
ARROWS = 7  # along each side of an image, at most


class Judge:
  """A classifier, ready to be asked about batches of x_t."""

  def __init__(self, trained: Trained):
    network = trained.network

    def judge(params, x, time, labels):
      def log_p(x):
        logits = network.apply(params, x, jnp.broadcast_to(time, x.shape[:1]))
        each = jax.nn.log_softmax(logits.astype(jnp.float32))
        found = jnp.take_along_axis(each, labels[:, None], axis=-1)[:, 0]
        return found.sum(), found
      gradient, found = jax.grad(log_p, has_aux=True)(x)
      return jnp.exp(found), gradient
    self._params, self._judge = jax.device_put(trained.params), jax.jit(judge)

  def __call__(self, x: Array, time: float, labels: Array) -> tuple[np.ndarray, ...]:
    """Returns (p(y | x_t) f32[B], the gradient of log p(y | x_t) by x_t [B H W C])."""
    return jax.tree.map(np.asarray, self._judge(self._params, jnp.asarray(np.asarray(x)),
                                                np.float32(time), np.asarray(labels, np.int32)))

  def looks(self, adm: Pipeline, x: Array, labels: np.ndarray | None, done: int, num: int,
            arrows: bool) -> dict[str, Any]:
    """JSON values of x after `done` steps: 'score' of each image, 'arrows' of the first."""
    steps = adm.sampler.steps
    place = int(steps.t[done]) if done < len(steps.t) else 0
    time = np.asarray(adm.diffusion.schedule.network_time(np.int32(place)))
    p, gradient = self(x, time, labels)
    found = {'score': [round(float(each), 6) for each in p[:num]]}
    return {**found, 'arrows': pull(gradient[0]).tolist()} if arrows else found


class Judges:
  """The classifiers of the models that were asked for; None where a model has none."""

  def __init__(self):
    self._found: dict[str, Judge] = {}

  def __call__(self, model: Model) -> Judge | None:
    if model.classifier is None:
      return None
    if model.classifier not in self._found:
      self._found[model.classifier] = Judge(pretrained.load(model.classifier))
    return self._found[model.classifier]


def pull(gradient: np.ndarray) -> np.ndarray:
  """What a gradient f32[H W C] wants of each area: brighter or darker, f32[h w] in [-1, 1].

  h and w are ARROWS, or the image's where that is less; the longest arrow is 1 or -1.
  """
  gray = gradient.mean(axis=-1)
  rows, columns = (np.array_split(np.arange(side), min(ARROWS, side)) for side in gray.shape)
  areas = np.array([[gray[np.ix_(row, column)].mean() for column in columns] for row in rows])
  return np.round(areas / max(np.abs(areas).max(), 1e-12), 3)
