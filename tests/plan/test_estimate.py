"""Estimated times."""

import dataclasses
import pathlib

import pytest

from adm_jax.devices.chips import CHIPS
from adm_jax.plan import estimate, hlo, kernels

GPU = (pathlib.Path(__file__).parent / 'gpu_program.txt').read_text()
TPU = (pathlib.Path(__file__).parent / 'tpu_program.txt').read_text()
H100, V5E = 'NVIDIA H100 80GB HBM3', 'TPU v5 lite'
CONV = next(kernel for kernel in kernels.kernels(hlo.parse(GPU))
            if kernel.name == 'conv')


def test_a_gpu_is_as_slow_as_arithmetic_or_bytes():
  chip = CHIPS[H100]
  by_bytes = dataclasses.replace(CONV, bytes=0.9 * chip.bandwidth, flops=1.0)
  by_arithmetic = dataclasses.replace(CONV, bytes=1.0, flops=0.8 * chip.peak)
  assert estimate.of_gpu(by_bytes, chip) == pytest.approx(1)
  assert estimate.of_gpu(by_arithmetic, chip) == pytest.approx(1)
  # Exact float32 does not run on the matrix units: 67 of an H100's 989 TFLOP/s.
  slow = estimate.of_gpu(dataclasses.replace(by_arithmetic, dtype='f32'), chip)
  assert slow == pytest.approx(989 / 67, rel=0.01)


def test_kernels_of_a_loop_take_as_long_as_all_of_their_runs():
  assert estimate.seconds([CONV], H100) == pytest.approx(3 * estimate.of_gpu(CONV, CHIPS[H100]))
  assert estimate.seconds([CONV], H100, steps=3) == estimate.of_gpu(CONV, CHIPS[H100])


def test_a_tpus_cycles_are_too_many_but_for_wide_convolutions():
  found = {k.name: k for k in kernels.kernels(hlo.parse(TPU))}
  assert found['conv'].window and not found['dot'].window
  def seconds(name):
    return estimate.seconds([dataclasses.replace(found[name], bytes=0.0)], V5E)
  assert seconds('conv') == pytest.approx(30000 / 1.5e9)
  assert seconds('dot') == pytest.approx(6900 / 2.3 / 1.5e9)
  assert seconds('norm') == pytest.approx(21000 / 7 / 1.5e9)
  # An instruction that waits for its bytes.
  waits = dataclasses.replace(found['conv'], bytes=CHIPS[V5E].bandwidth)
  assert estimate.seconds([waits], V5E) == pytest.approx(1)


def test_a_pallas_kernel_takes_what_it_says_of_itself():
  text = '''
ENTRY %main (q: bf16[2,4]) -> bf16[2,4] {
  %q = bf16[2,4]{1,0} parameter(0)
  ROOT %flash = bf16[2,4]{1,0} custom-call(%q), custom_call_target="tpu_custom_call", COST
}'''.replace('COST', 'backend_config={"cost_estimate":{"flops":"1970000000000"}}')
  flash, = kernels.kernels(hlo.parse(text))
  assert estimate.seconds([flash], V5E) == pytest.approx(0.01 / 0.4)


@pytest.mark.parametrize('kind', ['cpu', 'TPU v2', 'a card of next year'])
def test_other_devices_are_not_guessed_at(kind):
  assert estimate.seconds([CONV], kind) is None
