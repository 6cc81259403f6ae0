"""What a row of the paper's tables takes to run, from the catalog alone: no weights are touched."""

import dataclasses

import jax

from adm_jax import config as config_lib
from adm_jax.devices import chips
from adm_jax.devices import flops as flops_lib
from adm_jax.evaluation.tables import Sampled
from adm_jax.networks import Network
from adm_jax.process.diffusion import respaced
from adm_jax.weights import catalog, flags

_SHARE = 0.4  # of a device's peak that hours are estimated with


@dataclasses.dataclass(frozen=True)
class RowCost:
  """What a row takes to run.

  Attributes:
    models: {name: its published checkpoint's parameters}.
    evaluations: of each model, for one image; a classifier's are of its gradient.
  """
  models: dict[str, int]
  evaluations: dict[str, int]


def cost(sampled: Sampled) -> RowCost:
  """Sizes a row of published models.

  Raises:
    UsageError: a name or respacing that does not exist.
  """
  chain = [(sampled.model, sampled.respacing)]
  if sampled.upsample is not None:
    chain.append((sampled.upsample, sampled.upsample_respacing or sampled.respacing))
  models, evaluations = {}, {}
  for name, spec in chain:
    published = catalog.find(name)
    process = respaced(_network(published).diffusion, published.respacing if spec is None else spec)
    models[name], evaluations[name] = published.parameters, process.schedule.num_steps
  if sampled.classifier is not None:
    models[sampled.classifier] = catalog.find(sampled.classifier).parameters
    evaluations[sampled.classifier] = evaluations[sampled.model]
  return RowCost(models, evaluations)


def flops(row: RowCost) -> float:
  """Counts the floating point operations of one image; traces the networks, in seconds."""
  return sum(evaluations * _flops(name) for name, evaluations in row.evaluations.items())


def work(total: float, processes: int = 1) -> str:
  """Says in hours how long so many operations take, on an H100 and on the devices at hand.

  `processes` share the work, with as many devices each as this one.
  """
  words = [f'{total / 1e18:.3g} EFLOP']
  have = chips.peak(jax.devices()[0].device_kind)
  for name, speed in (('one H100', chips.peak('NVIDIA H100 80GB HBM3')),
                      (
      'the devices here' if processes == 1 else f'those of {processes} processes',
      have and have * jax.local_device_count() * processes)):
    if speed is not None:
      words.append(f'{total / (_SHARE * speed) / 3600:.3g} hours on {name} at {_SHARE:.0%} of peak')
  return ', '.join(words)


def cost_of(total: float, price: float) -> str | None:
  """Says what so many operations cost, at a price of an hour of one device of those at hand."""
  name = jax.devices()[0].device_kind
  speed = chips.peak(name)
  if speed is None:
    return None
  hours = total / (_SHARE * speed) / 3600
  return f'cost: {hours * price:,.0f} for {hours:,.1f} hours of one {name} at {price:g}'


def _network(published: catalog.Model) -> Network:
  return config_lib.build(flags.describe(published.kind, published.flags))


def _flops(name: str) -> float:
  """Counts one evaluation of a published model; of a classifier, its gradient by the image."""
  network = _network(catalog.find(name))
  struct = jax.ShapeDtypeStruct
  x, t = struct((1, *network.image_shape), 'float32'), struct((1,), 'float32')
  low_res = (None if network.low_res_shape is None
             else struct((1, *network.low_res_shape), 'float32'))
  y = struct((1,), 'int32')

  def evaluate(params, x, t, y, low_res):
    if network.classifies:
      return jax.grad(lambda x: network.apply(params, x, t).sum())(x)
    return network.apply(params, x, t, y, low_res=low_res)
  return flops_lib.count(evaluate, network.abstract_params(), x, t, y, low_res)
