"""What a student learns from: a guided network, asked with a scale of each example's own."""

import dataclasses
from typing import Any, Callable

import jax

from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.process.diffusion import Denoiser
from adm_jax.sampling import solvers
from adm_jax.sampling.guidance import ByClassifier, ByWeakerModel, ClassifierFree, Guidance, Run
from adm_jax.sampling.guidance.scales import ScaleOfEach
from adm_jax.sampling.sampler import GuidedNetwork
from adm_jax.sampling.steps import descend
from adm_jax.weights import pretrained
from adm_jax.weights.folders import Trained

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
  """A guided network and its weights.

  Attributes:
    network: what makes images, without its guidance.
    num_classes: of the labels that it is asked for.
    shapes: of the weights of all its networks, by their roles.
    weights: reads these.
    ask: (weights, labels i32[B], scales f32[B]) -> the guided denoiser.
  """
  network: Network
  num_classes: int
  shapes: dict[str, Any]
  weights: Callable[[], dict[str, Any]]
  ask: Callable[[Any, Array, Array], Denoiser]


def described(teacher: str | Trained, classifier: str | Trained | None = None,
              weaker: str | Trained | None = None, dtype: str | None = None) -> Teacher:
  """Describes a teacher: guided by a classifier, a weaker model, or else by itself without a class.

  Its process is taken in all steps, and its x_0 is clipped to [-1, 1] after guidance.

  Args:
    teacher: what makes images, see `pretrained.load`.
    classifier: guides it by its gradient.
    weaker: guides it by autoguidance.
    dtype: all compute in it; None: as they were trained.

  Raises:
    UsageError: they do not go together, nothing guides, there are no classes, or the teacher is a
      student itself.
  """
  trained = pretrained.outline(teacher)
  network = trained.network
  name = None if isinstance(teacher, Trained) else str(teacher)
  _check(network, name, classifier, weaker)
  schedule = network.diffusion.schedule
  run = Run(name, trained, None, schedule, descend(schedule), solvers.ddim())
  guide = classifier if classifier is not None else weaker
  bound = _kind(classifier, weaker).bind(
      run, dtype, None if guide is None else pretrained.outline(guide))
  if dtype is not None:
    network = network.having(dtype=dtype)
  guided = GuidedNetwork(network, network.diffusion, (bound,))
  names = {'model': teacher, **({} if guide is None else {bound.role: guide})}

  def ask(weights, labels, scales):
    return guided({**weights, 'scales': {bound.role: ScaleOfEach(scales)}}, labels)

  def params(read):
    return {role: read(name).params for role, name in names.items()}
  return Teacher(network, guided.num_classes, params(pretrained.outline),
                 lambda: params(pretrained.trained), ask)


def _kind(classifier: str | Trained | None, weaker: str | Trained | None) -> Guidance:
  if classifier is not None:
    return ByClassifier(classifier, clip=True)
  return ClassifierFree(1.5) if weaker is None else ByWeakerModel(weaker)


def _check(network: Network, name: str | None, classifier: Any, weaker: Any) -> None:
  name = name or 'the teacher'
  if network.classifies:
    raise UsageError(f'{name} is a classifier: give the network that makes images as teacher')
  if network.low_res_shape is not None:
    raise UsageError(f'{name} enlarges images: give a teacher that makes them of noise')
  if network.scales is not None:
    raise UsageError(f'{name} is a student itself: give the network that it was distilled from')
  if classifier is not None and weaker is not None:
    raise UsageError('a teacher is guided by a classifier or by a weaker model: give one of them')
  if classifier is None and network.num_classes is None:
    raise UsageError(f'{name} has no classes: give a classifier, which knows some, to guide it')
  if classifier is None and weaker is None and network.null_label is None:
    raise UsageError(f'{name} was trained without label dropout, so that it cannot guide itself: '
                     'give a classifier or a weaker model')
