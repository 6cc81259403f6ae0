"""Where arrays lie: the only file that names the axes of a mesh.

A mesh is data x fsdp. Batches are split over both axes; parameters are copied along `data` and
split along `fsdp`. Programs are ordinary `jit`s: XLA adds the communication that the shardings of
their arguments ask for (pjit). Training can also be a `pmap`, with everything but the batch copied
to each device.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adm_jax.devices import memory, target
from adm_jax.errors import UsageError

Array = jax.Array

_DATA, _FSDP = 'data', 'fsdp'
# Of a device's memory, what parameters may take before they are split; the rest is activations.
_MOST_FOR_PARAMS = 0.4
# Smaller arrays are copied to every device: gathering them would cost more than holding them.
LEAST_TO_SPLIT = 2 ** 16
_splits_batch: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar('mesh', default=None)


def mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of `devices`, by default all, of which each group of `fsdp` shares one set of weights.

  Raises:
    UsageError: `fsdp` does not divide their number.
  """
  devices = jax.devices() if devices is None else devices
  if fsdp < 1 or len(devices) % fsdp:
    raise UsageError(f'fsdp={fsdp} does not divide the {len(devices)} devices: give one of '
                     f'{", ".join(str(n) for n in _divisors(len(devices)))}')
  # A process's devices side by side, so that it holds consecutive rows of a batch.
  devices = sorted(devices, key=lambda device: device.process_index)
  # Automatic axes: JAX's default, explicit ones, refuses ordinary reshapes of sharded arrays.
  return Mesh(np.asarray(devices).reshape(-1, fsdp), (_DATA, _FSDP),
              axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
  """Of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
  """Of an array whose leading axis is split over all devices."""
  return NamedSharding(mesh, PartitionSpec((_DATA, _FSDP)))


def place_batch(batch: Any, mesh: Mesh) -> Any:
  """A tree that every process has whole: its [B ...] split over all devices, its scalars copied."""
  shardings = jax.tree.map(
      lambda leaf: over_batch(mesh) if leaf.ndim else replicated(mesh), batch)
  if mesh.is_multi_process:  # whose devices a transfer does not reach, but a program does
    return jax.jit(_same, out_shardings=shardings)(batch)
  return jax.device_put(batch, shardings)


def place_rows(batch: dict, mesh: Mesh) -> dict:
  """{name: [B / processes ...]}, this process's rows in NumPy, split over all devices."""
  return _place(over_batch(mesh), batch)


def fetched(array: Array, mesh: Mesh) -> np.ndarray:
  """An array on a mesh, whole in the memory of each of its processes, who all have to ask."""
  if mesh.is_multi_process:
    array = jax.jit(_same, out_shardings=replicated(mesh))(array)
  return np.asarray(array)


def _same(tree: Any) -> Any:  # one function, of which JAX keeps what it has compiled
  return tree


def place_params(params: Any, mesh: Mesh, dtypes: Any = None) -> Any:
  """A tree of arrays, or of shapes, where `of_params` says.

  Args:
    params: the tree; in host memory, no more than one array is converted at a time.
    mesh: of the devices.
    dtypes: a tree of what to convert to; by default the arrays' own.
  """
  def place(leaf, sharding, dtype):
    if isinstance(leaf, jax.ShapeDtypeStruct):
      return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)
    if leaf.dtype != dtype:
      leaf = np.asarray(leaf).astype(dtype)
    if mesh.is_multi_process:  # to which JAX's own transfer would first send all of it, to compare
      leaf = np.asarray(leaf)
      return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)
    return jax.device_put(leaf, sharding)
  dtypes = jax.tree.map(lambda leaf: leaf.dtype, params) if dtypes is None else dtypes
  return jax.tree.map(place, params, of_params(mesh, params), dtypes)


def of_params(mesh: Mesh, shapes: Any) -> Any:
  """A tree of shardings for a tree of arrays or shapes.

  Each array is split along its largest dimension that the axis `fsdp` divides, the last of equals;
  small ones, and those without such a dimension, are whole everywhere.
  """
  fsdp = mesh.shape[_FSDP]

  def sharding(leaf):
    fitting = [axis for axis, size in enumerate(leaf.shape) if size % fsdp == 0]
    if fsdp == 1 or not fitting or math.prod(leaf.shape) < LEAST_TO_SPLIT:
      return replicated(mesh)
    axis = max(fitting, key=lambda axis: (leaf.shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, _FSDP))
  return jax.tree.map(sharding, shapes)


@contextlib.contextmanager
def splitting_params(mesh: Mesh | None) -> Iterator[None]:
  """While a program is traced for a mesh that splits parameters: `gathered` is in force."""
  if mesh is None or mesh.shape[_FSDP] == 1:
    yield
  else:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      yield


@contextlib.contextmanager
def tracing_for(mesh: Mesh | None, *, whole: bool = True) -> Iterator[None]:
  """While a program is traced for a mesh: its devices are the target, and its axes in force.

  Args:
    mesh: None says nothing of the devices: whatever target is in force stays.
    whole: the program sees whole batches, as a `jit` does, and not a device's part, as in a `pmap`.
  """
  devices = (contextlib.nullcontext() if mesh is None
             else target.tracing_for(target.of(mesh.devices.flat[0])))
  token = _splits_batch.set(mesh if whole and mesh is not None and mesh.size > 1 else None)
  try:
    with devices, splitting_params(mesh):
      yield
  finally:
    _splits_batch.reset(token)


def on_each_device(function: Callable[..., Array]) -> Callable[..., Array]:
  """`function` of arrays [B ...], called with the rows of each device by themselves.

  For kernels that XLA cannot split, as all that are written in Pallas: it refuses programs with
  them that are for several devices.
  """
  mesh = _splits_batch.get()
  if mesh is None:
    return function
  rows = over_batch(mesh).spec
  # Without the check of what varies over the devices, which kernels would have to declare.
  return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)


def gathered(param: Array | None) -> Array | None:
  """A parameter whole on every device, for as long as it is used; see `splitting_params`.

  Left to itself, XLA's propagation lets some layers follow a kernel that is split along its output
  channels: those then hold all images of the fsdp group on each of its devices.
  """
  if param is None or not _splits_params():
    return param
  return jax.lax.with_sharding_constraint(param, PartitionSpec())


def not_before(x: Array, params: Any) -> Any:
  """Parameters to be gathered once x is there.

  In a loop, XLA would otherwise gather all of them before it, and hold them whole throughout.
  """
  return jax.lax.optimization_barrier((x, params))[1] if _splits_params() else params


def _splits_params() -> bool:
  """Whether this is traced under `splitting_params`, and not under another mesh of the caller's."""
  return _FSDP in jax.sharding.get_abstract_mesh().axis_names


class Collectives(NamedTuple):
  """How a function that is given a part of a batch reaches the others; by default there are none.

  Attributes:
    first: rows of a part -> the place of this part's first row in the whole batch.
    mean: tree -> its mean over the parts, which are of one size.
    gather: tree of [b ...] -> tree of [B ...], the parts in order.
  """
  first: Callable[[int], Array | int] = lambda rows: 0
  mean: Callable[[Any], Any] = lambda tree: tree
  gather: Callable[[Any], Any] = lambda tree: tree


# Of a `pmap` over the axis `data`.
_COLLECTIVES_OF_PMAP = Collectives(
    first=lambda rows: jax.lax.axis_index(_DATA) * rows,
    mean=functools.partial(jax.lax.pmean, axis_name=_DATA),
    gather=functools.partial(jax.lax.all_gather, axis_name=_DATA, tiled=True))

PARALLEL = ('jit', 'pmap')


@dataclasses.dataclass(frozen=True)
class Trainer:
  """A training step on all devices of a mesh; made by `trainer`.

  Arrays of the state and of the metrics are global ones in either way of running: whole everywhere,
  or split by `of_params`.

  Attributes:
    mesh: of the devices.
    shapes: the state as `ShapeDtypeStruct`s, with their shardings.
    init: () -> state, born where it lies.
    place: {name: [B / processes ...]}, this process's rows in NumPy -> the batch on the devices.
    frozen: the arrays that the step needs and that are not trained, where they lie, or their
      shapes; split like parameters.
    step: (state, batch, key, frozen) -> (state, metrics); the old state is given up to the new one.
  """
  mesh: Mesh
  shapes: Any
  init: Callable[[], Any]
  place: Callable[[dict], dict]
  frozen: Any
  step: Callable[[Any, dict, Array, Any], tuple[Any, Any]]


def trainer(parallel: str, mesh: Mesh, init: Callable[[], Any],
            make_step: Callable[[Collectives], Callable], frozen: Any = ()) -> Trainer:
  """Compiles training for the devices of `mesh`.

  Args:
    parallel: 'jit', or 'pmap', which needs a mesh without fsdp.
    mesh: of all processes' devices (`mesh`).
    init: () -> state.
    make_step: collectives -> a step (state, batch, key, frozen) -> (state, metrics).
    frozen: a tree of arrays in host memory, or of their shapes.

  Raises:
    UsageError: there is no such way, or no such mesh for it.
  """
  shapes = jax.eval_shape(init)
  shardings = of_params(mesh, shapes)
  shapes = jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      shapes, shardings)
  if parallel == 'jit':
    step = jax.jit(tracing_for(mesh)(make_step(Collectives())), donate_argnums=0,
                   out_shardings=(shardings, replicated(mesh)))
    place = functools.partial(_place, over_batch(mesh))
  elif parallel == 'pmap' and mesh.shape[_FSDP] == 1:
    step = _pmapped(mesh, tracing_for(mesh, whole=False)(make_step(_COLLECTIVES_OF_PMAP)))
    place = functools.partial(_split, len(mesh.local_devices))
  elif parallel == 'pmap':
    raise UsageError(f'parallel=pmap copies the state to every device, but fsdp='
                     f'{mesh.shape[_FSDP]} is to split it: set parallel=jit or fsdp=1')
  else:
    raise UsageError(f'parallel={parallel}: give {" or ".join(PARALLEL)}')
  # Networks are called to be initialized, with batches that no mesh divides: in plain forms.
  init = target.tracing_for(target.ANY)(init)
  return Trainer(mesh, shapes, jax.jit(init, out_shardings=shardings), place,
                 place_params(frozen, mesh), step)


def round_up(number: int, divisor: int) -> int:
  """Returns the least multiple of `divisor` that is at least `number`."""
  return -(-number // divisor) * divisor


def check_batch(batch_size: int, devices: int, microbatches: int) -> None:
  """Raises UsageError unless every device has the same number of rows of every microbatch."""
  rows = devices * microbatches
  if batch_size % rows:
    raise UsageError(
        f'batch_size={batch_size} cannot be shared by {devices} devices x microbatches='
        f'{microbatches}: choose a multiple of {rows}, as {round_up(batch_size, rows)}, or '
        'other microbatches')


def _place(sharding: NamedSharding, batch: dict) -> dict:
  return {name: jax.make_array_from_process_local_data(sharding, rows)
          for name, rows in batch.items()}


def _split(devices: int, batch: dict) -> dict:
  """[b ...] -> [D b/D ...] for the D devices of this process."""
  return {name: rows.reshape(devices, -1, *rows.shape[1:]) for name, rows in batch.items()}


def _pmapped(mesh: Mesh, step: Callable) -> Callable:
  # With None for its axes, the state is one array to its owner, and a copy on each device.
  mapped = jax.pmap(step, axis_name=_DATA, in_axes=(None, 0, None, None), out_axes=(None, None),
                    donate_argnums=0, devices=tuple(mesh.devices.flat))
  if mesh.is_multi_process:
    # `pmap` gives arrays of this process's devices, and takes those of all without a copy.
    return lambda *args: jax.tree.map(functools.partial(_of_all, mesh), mapped(*args))
  return mapped


def _of_all(mesh: Mesh, array: Array) -> Array:
  """The array on all processes' devices of which each process has given its copies."""
  return jax.make_array_from_single_device_arrays(
      array.shape, replicated(mesh), [shard.data for shard in array.addressable_shards])


def fsdp_needed(num_bytes: int, devices: Sequence[jax.Device] | None = None) -> int:
  """The least number of devices that parameters of `num_bytes` must be split over to fit."""
  devices = jax.devices() if devices is None else devices
  have = memory.of_each(devices)
  if have is None:
    return 1
  fitting = [n for n in _divisors(len(devices)) if num_bytes <= n * _MOST_FOR_PARAMS * have]
  return fitting[0] if fitting else len(devices)


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]
