"""What a program is traced for: JAX's first device, unless a mesh or a plan says otherwise."""

import jax
import pytest

from adm_jax.devices import sharding
from adm_jax.devices.target import ANY, Target, current, of, tracing_for


class _Gpu:
  platform = 'gpu'

  def __init__(self, compute_capability, device_kind=''):
    self.compute_capability, self.device_kind = compute_capability, device_kind


@pytest.mark.parametrize('device, wanted', [
    (_Gpu('9.0'), Target('gpu', 9.0)), (_Gpu('12.0'), Target('gpu', 12.0)),
    (_Gpu('gfx90a'), Target('gpu')), (_Gpu(None, 'NVIDIA H100 80GB HBM3'), Target('gpu', 9.0)),
    (_Gpu(None, 'of tomorrow'), Target('gpu')), (jax.devices('cpu')[0], Target('cpu'))])
def test_a_device_is_of_a_kind(device, wanted):
  assert of(device) == wanted


def test_the_target_is_the_first_device_s_unless_told_otherwise():
  assert current() == Target('cpu')
  with tracing_for(Target('tpu')):
    with tracing_for(ANY):
      assert current() == ANY
    assert current() == Target('tpu')
  assert current() == Target('cpu')


def test_a_mistake_leaves_the_target_as_it_was():
  with pytest.raises(ZeroDivisionError), tracing_for(ANY):
    1 / 0
  assert current() == Target('cpu')


def test_a_mesh_names_the_target_and_no_mesh_leaves_it():
  with tracing_for(Target('tpu')):
    with sharding.tracing_for(sharding.mesh()):
      assert current() == Target('cpu')
    with sharding.tracing_for(None):
      assert current() == Target('tpu')
