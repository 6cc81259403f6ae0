"""GPUs that nobody here has."""

import pytest

from adm_jax.devices import gpus
from adm_jax.devices.chips import CHIPS


@pytest.mark.parametrize('name, float32', [('h100', 67e12), ('a100', 19.5e12)])
def test_figures_agree_with_the_stated_float32_peak(name, float32):
  gpu = gpus.GPUS[name]
  assert gpu.kind in CHIPS
  peak = 2e9 * gpu.clock * gpu.fpus * gpu.multiprocessors
  assert peak == pytest.approx(float32, rel=0.005)


def test_a_config_says_what_the_compiler_asks():
  text = gpus.target_config(gpus.GPUS['a100'])
  for line in ('cuda_compute_capability { major: 8 minor: 0 }', 'core_count: 108',
               'shared_memory_per_block_optin: 166912', 'device_memory_size: 85899345920'):
    assert line in text


def test_an_absent_gpu_has_the_compute_capability_of_its_kind():
  assert gpus.compute_capability('NVIDIA H100 80GB HBM3') == 9.0
  assert gpus.compute_capability('cpu') is None


@pytest.mark.skipif(not gpus.has_compiler(), reason='describes H100s with jax-cuda13-plugin')
def test_eight_gpus_are_described_without_one():
  devices = gpus.topology('h100', 8)
  assert [device.device_kind for device in devices] == 8 * ['NVIDIA H100 80GB HBM3']
  assert {device.platform for device in devices} == {'gpu'}
