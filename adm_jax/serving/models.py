"""Which models the page offers, with what guides them."""

import dataclasses
from typing import Any, Iterable

from adm_jax import config
from adm_jax.data import class_names
from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.weights import pretrained, shipped

NONE, CLASSIFIER, FREE, STUDENT = 'none', 'classifier', 'free', 'student'


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that makes images, as the page offers it; its weights are not loaded.

  Attributes:
    name: what `adm sample --model` takes.
    network: what makes images.
    class_names: in the order of the labels, or their numbers; empty for a model without classes.
    classifier: the name of the classifier that guides it; None if there is none.
    student: the name of its student, or its own if it is one; None if there is none.
    taught: the student's network.
  """
  name: str
  network: Network
  class_names: tuple[str, ...] = ()
  classifier: str | None = None
  student: str | None = None
  taught: Network | None = None

  @property
  def guides(self) -> tuple[str, ...]:
    """How it can be guided, in the order in which the page shows it."""
    if self.student == self.name:
      return (STUDENT,)
    able = {NONE: True, CLASSIFIER: self.classifier is not None,
            FREE: self.network.null_label is not None, STUDENT: self.student is not None}
    return tuple(guide for guide, is_able in able.items() if is_able)

  def described(self) -> dict[str, Any]:
    """JSON values for the page."""
    taught = self.taught
    steps = None if taught is None or taught.steps is None else sorted(taught.steps)
    return {'name': self.name, 'shape': self.network.image_shape, 'classes': self.class_names,
            'guides': self.guides, 'classifier': self.classifier, 'student': self.student,
            'scales': None if taught is None else taught.scales,
            'taught_steps': steps}


def offered(model: str | None = None, classifier: str | None = None,
            student: str | None = None) -> tuple[Model, ...]:
  """Returns a model with what is said to guide it; by default all that come with the package.

  Raises:
    UsageError: names of no models, or of some that do not go together.
  """
  if model is None:
    if classifier is not None or student is not None:
      raise UsageError('--classifier and --student are of a model: name it with --model')
    return _shipped()
  network = _network(model)
  if network.classifies or network.low_res_shape is not None:
    raise UsageError(f'{model} makes no images by itself: give a model that does')
  if network.scales is not None and (classifier or student):
    raise UsageError(f'{model} was distilled, and its guidance is inside: leave out '
                     f'{"--classifier" if classifier else "--student"}')
  if classifier is not None and not _guides(_network(classifier), network):
    raise UsageError(f'{classifier} does not guide {model}: give a classifier of the same images, '
                     'classes and noise schedule')
  taught = network if network.scales is not None else student and _network(student)
  if student is not None and not _teaches(network, taught):
    raise UsageError(f'{student} is not a student of {model}: give a distilled model of the same '
                     'images and classes')
  return (_model(model, network, classifier, model if network.scales else student, taught or None),)


def _shipped() -> tuple[Model, ...]:
  networks = {name: _network(name) for name in shipped.names()}
  makers = {name: network for name, network in networks.items()
            if not network.classifies and network.low_res_shape is None}
  found, taken = [], set()
  for name, network in makers.items():
    if network.scales is not None:
      continue
    student = _first(other for other in makers if _teaches(network, makers[other]))
    taken.add(student)
    found.append(_model(name, network, _first(
        other for other in networks if _guides(networks[other], network)), student,
        makers.get(student)))
  found += [_model(name, network, None, name, network) for name, network in makers.items()
            if network.scales is not None and name not in taken]
  return tuple(sorted(found, key=lambda model: model.name != shipped.FIRST))


def _model(name: str, network: Network, classifier: str | None, student: str | None,
           taught: Network | None) -> Model:
  given = [each for each in (name, classifier, student) if each is not None]
  found = [pretrained.outline(each).class_names for each in given]
  # A model without classes has those that its guidance gives it.
  count = _first(each.num_classes for each in map(_network, given) if each.num_classes is not None)
  known = tuple(names[0] for names in class_names.imagenet())  # of a thousand without names
  names = _first(each for each in (*found, known) if each is not None and len(each) == count)
  return Model(name, network, names or tuple(map(str, range(count or 0))), classifier, student,
               taught)


def _network(name: str) -> Network:
  return config.build(pretrained.network_config(name))


def _guides(classifier: Network, model: Network) -> bool:
  """Whether a classifier is one of a model's noised images."""
  return (classifier.classifies and classifier.image_shape == model.image_shape
          and classifier.diffusion.schedule == model.diffusion.schedule
          and model.num_classes in (None, classifier.num_classes))


def _teaches(model: Network, student: Network) -> bool:
  """Whether a student may have been distilled from a model: it makes the same images."""
  return (student.scales is not None and student.image_shape == model.image_shape
          and student.diffusion.schedule == model.diffusion.schedule
          and model.num_classes in (None, student.num_classes))


def _first(values: Iterable[Any]) -> Any:
  return next(iter(values), None)
