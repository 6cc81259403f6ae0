"""Autoguidance: away from a weaker model of the same images (Karras et al. 2024)."""

import dataclasses
import pathlib

from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Denoiser, denoiser
from adm_jax.process.schedules import Schedule
from adm_jax.sampling.guidance import base
from adm_jax.sampling.guidance.base import Bound, Run
from adm_jax.sampling.guidance.extrapolation import extrapolate
from adm_jax.sampling.guidance.scales import Scale, Scales, scales_of
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained


@dataclasses.dataclass(frozen=True, eq=False)
class ByWeakerModel:
  """Moves away from a weaker model: smaller, or trained less.

  Attributes:
    weaker: a published model, a folder, a file of weights, or what `pretrained.load` returned.
    scale: w of eps = eps_weaker + w (eps - eps_weaker): 1 is the model alone.
    between: (low, high), the sigma between which there is guidance; None: everywhere.
    weights: the file of a published model, or which weights of a folder.
  """
  weaker: str | pathlib.Path | Trained
  scale: Scale = 2.0
  between: tuple[float, float] | None = None
  weights: str | pathlib.Path | None = None

  def bind(self, run: Run, dtype: str | None, loaded: Trained | None = None) -> Bound:
    trained = loaded or pretrained.trained(self.weaker, self.weights)
    _check(run.model, trained)
    network = base.own_network(trained, dtype)
    # Its own process, respaced like the model's: they are the same.
    diffusion = dataclasses.replace(network.diffusion, schedule=run.schedule)

    def guide(conditional, context):
      def weaker_as(labels):
        def evaluate(x, time):
          return network.apply(context.params, x, time, labels, low_res=context.low_res)
        return denoiser(diffusion, evaluate, clip=False)
      return lambda labels: autoguided(conditional(labels), weaker_as(labels), context.schedule,
                                       context.scales)
    description = {'weaker': pretrained.describe(self.weaker, trained),
                   'scale': base.described_scale(self.scale, run.schedule),
                   'between': self.between}
    return Bound('weaker', guide, (ByWeakerModel, str(self.weaker), str(self.weights)), description,
                 scales_of(self.scale, run.schedule, off=1.0, between=self.between), trained,
                 extrapolates=True)


def _check(model: Trained, weaker: Trained) -> None:
  ours, its = model.network, weaker.network
  if its.classifies:
    raise UsageError('what is given as weaker model is a classifier: give it as classifier')
  for what, of in (('images', lambda network: (network.image_shape, network.low_res_shape)),
                   ('classes', lambda network: network.num_classes),
                   ('process', lambda network: network.diffusion)):
    if of(ours) != of(its):
      raise UsageError(f'the weaker model is of other {what} than the model: give one that was '
                       'trained on the same')


def autoguided(denoise: Denoiser, weaker: Denoiser, schedule: Schedule,
               scale: Scale | Scales) -> Denoiser:
  """Away from a weaker model of the same images (Karras et al. 2024): smaller, or trained less.

  Args:
    denoise: the model.
    weaker: the other; clip neither, but what comes of them (`thresholded`).
    schedule: the process that both belong to.
    scale: w of eps = eps_weaker + w (eps - eps_weaker): 1 is the model alone.
  """
  strength = scales_of(scale, schedule, off=1.0)

  def denoise_guided(x, t):
    strong = denoise(x, t)
    return strength.where_active(
        t, lambda: extrapolate(weaker(x, t), strong, strength.at(t, x)), lambda: strong)
  return denoise_guided
