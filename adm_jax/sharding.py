"""Where arrays lie: the only file that names the axes of a mesh.

A mesh is data x fsdp. Batches are split over both axes; parameters are copied along `data` and
split along `fsdp`. Programs are ordinary `jit`s: XLA adds the communication that the shardings of
their arguments ask for (pjit).
"""

import math
from typing import Any, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adm_jax.errors import UsageError

_DATA, _FSDP = 'data', 'fsdp'
# Of a device's memory, what parameters may take before they are split; the rest is activations.
_MOST_FOR_PARAMS = 0.4
# Smaller arrays are copied to every device: gathering them would cost more than holding them.
_LEAST_TO_SPLIT = 2 ** 16


def mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of `devices`, by default all, of which each group of `fsdp` shares one set of weights.

  Raises:
    UsageError: `fsdp` does not divide their number.
  """
  devices = jax.devices() if devices is None else devices
  if fsdp < 1 or len(devices) % fsdp:
    raise UsageError(f'fsdp={fsdp} does not divide the {len(devices)} devices: give one of '
                     f'{", ".join(str(n) for n in _divisors(len(devices)))}')
  # Automatic axes: JAX's default, explicit ones, refuses ordinary reshapes of sharded arrays.
  return Mesh(np.asarray(devices).reshape(-1, fsdp), (_DATA, _FSDP),
              axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
  """Of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
  """Of an array whose leading axis is split over all devices."""
  return NamedSharding(mesh, PartitionSpec((_DATA, _FSDP)))


def of_params(mesh: Mesh, shapes: Any) -> Any:
  """A tree of shardings for a tree of arrays or shapes.

  Each array is split along its largest dimension that the axis `fsdp` divides, the last of equals;
  small ones, and those without such a dimension, are whole everywhere.
  """
  fsdp = mesh.shape[_FSDP]

  def sharding(leaf):
    fitting = [axis for axis, size in enumerate(leaf.shape) if size % fsdp == 0]
    if fsdp == 1 or not fitting or math.prod(leaf.shape) < _LEAST_TO_SPLIT:
      return replicated(mesh)
    axis = max(fitting, key=lambda axis: (leaf.shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, _FSDP))
  return jax.tree.map(sharding, shapes)


def fsdp_needed(num_bytes: int, devices: Sequence[jax.Device] | None = None) -> int:
  """The least number of devices that parameters of `num_bytes` must be split over to fit."""
  devices = jax.devices() if devices is None else devices
  memory = (devices[0].memory_stats() or {}).get('bytes_limit')
  if memory is None:  # a CPU, which does not say
    return 1
  fitting = [n for n in _divisors(len(devices)) if num_bytes <= n * _MOST_FOR_PARAMS * memory]
  return fitting[0] if fitting else len(devices)


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]
