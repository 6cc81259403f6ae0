"""Shardings: what lies where, decided from shapes alone."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.process.timestep_samplers import uniform
from adm_jax.training.state import adamw, init_state
from adm_jax.weights import catalog, openai


def _mesh(data, fsdp):
  return AbstractMesh((data, fsdp), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)


def _bytes_a_device(shapes, mesh):
  shardings = sharding.of_params(mesh, shapes)
  return sum(jax.tree.leaves(jax.tree.map(
      lambda leaf, s: math.prod(s.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
      shapes, shardings)))


@pytest.fixture(scope='module')
def adm64():
  model = catalog.find('imagenet64')
  return openai.abstract_params(openai.create(model.kind, model.flags)[0])


def test_fsdp_splits_the_weights_of_adm_64(adm64):
  """All but the small arrays: at least 1/7 of the whole on each of 8 devices."""
  whole = _bytes_a_device(adm64, _mesh(8, 1))
  assert whole == 4 * catalog.find('imagenet64').parameters
  assert _bytes_a_device(adm64, _mesh(1, 8)) <= whole / 7
  assert _bytes_a_device(adm64, _mesh(4, 2)) <= whole / 1.9


def test_an_array_is_split_along_its_largest_dimension_that_divides():
  shapes = {'conv': jax.ShapeDtypeStruct((3, 3, 512, 256), np.float32),
            'odd': jax.ShapeDtypeStruct((1021, 333), np.float32),
            'small': jax.ShapeDtypeStruct((64, 64), np.float32),
            'square': jax.ShapeDtypeStruct((512, 512), np.float32)}
  specs = jax.tree.map(lambda s: tuple(s.spec), sharding.of_params(_mesh(2, 4), shapes))
  assert specs == {'conv': (None, None, 'fsdp'), 'odd': (), 'small': (),
                   'square': (None, 'fsdp')}


def test_fsdp_splits_the_whole_training_state_of_adm_64():
  """Weights, their average and Adam's moments: at most 1/7 of it on each of 8 devices."""
  model = catalog.find('imagenet64')
  params = openai.abstract_params(openai.create(model.kind, model.flags)[0])
  network = types.SimpleNamespace(init=lambda key: jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params))
  task = types.SimpleNamespace(network=network)
  state = jax.eval_shape(lambda: init_state(jax.random.key(0), task, adamw(1e-4), (0.9999,),
                                            uniform(1000)))
  whole = _bytes_a_device(state, _mesh(8, 1))
  assert whole == 4 * 4 * model.parameters + 4 * 4  # and the counters
  assert _bytes_a_device(state, _mesh(1, 8)) <= whole / 7


def test_pmap_and_fsdp_exclude_each_other():
  mesh = sharding.mesh(1, jax.devices()[:1])
  def init():
    return jnp.zeros(3)
  assert sharding.trainer('pmap', mesh, init, lambda collectives: lambda *a: a).shapes.shape == (3,)
  with pytest.raises(UsageError, match='parallel=pmap copies the state'):
    sharding.trainer('pmap', _mesh(4, 2), init, None)
  with pytest.raises(UsageError, match='give jit or pmap'):
    sharding.trainer('xmap', mesh, init, None)


@pytest.mark.parametrize('devices, microbatches, fits', [(8, 1, True), (4, 4, True), (8, 4, False)])
def test_every_device_gets_the_same_rows_of_every_microbatch(devices, microbatches, fits):
  if fits:
    sharding.check_batch(16, devices, microbatches)
  else:
    with pytest.raises(UsageError, match='choose a multiple of 32, as 32'):
      sharding.check_batch(16, devices, microbatches)


def test_a_batch_is_split_over_all_devices():
  assert sharding.over_batch(_mesh(2, 4)).shard_shape((16, 8, 8, 3)) == (2, 8, 8, 3)
  assert sharding.replicated(_mesh(2, 4)).shard_shape((16, 8)) == (16, 8)


@pytest.mark.parametrize('fsdp', [0, 2, -1])
def test_fsdp_must_divide_the_devices(fsdp):
  with pytest.raises(UsageError, match=f'fsdp={fsdp} does not divide'):
    sharding.mesh(fsdp, jax.devices()[:1])


def test_a_device_that_does_not_say_its_memory_holds_all():
  assert sharding.fsdp_needed(10**15, jax.devices('cpu')[:1]) == 1


class _Device:
  platform = 'gpu'

  def __init__(self, process_index=0):
    self.process_index = process_index

  def memory_stats(self):
    if self.process_index != jax.process_index():
      raise jax.errors.JaxRuntimeError('MemoryStats is only supported for addressable PjRt devices')
    return {'bytes_limit': 16 * 2**30}


@pytest.mark.parametrize('gib, wanted', [(1, 1), (6, 1), (7, 2), (20, 4), (10**6, 8)])
def test_weights_are_split_once_they_take_too_much_of_a_device(gib, wanted):
  """Also where the first devices are another process's, which do not say what they have."""
  for devices in ([_Device()] * 8, [_Device(1)] * 4 + [_Device()] * 4):
    assert sharding.fsdp_needed(gib * 2**30, devices) == wanted
