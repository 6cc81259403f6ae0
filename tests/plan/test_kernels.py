"""What compiled programs launch."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from adm_jax.devices import flops, gpus
from adm_jax.plan import hlo, kernels

# Written for these tests, in XLA's words: nothing of a network.
GPU = (pathlib.Path(__file__).parent / 'gpu_program.txt').read_text()
TPU = (pathlib.Path(__file__).parent / 'tpu_program.txt').read_text()


def of(text):
  return {kernel.name: kernel for kernel in kernels.kernels(hlo.parse(text))}


def test_only_what_runs_on_the_device_counts_and_as_often_as_it_runs():
  found = of(GPU)
  assert {name: kernel.times for name, kernel in found.items()} == {
      'mean': 3, 'cast': 3, 'conv': 3, 'product': 3, 'copy.1': 1}
  assert found['mean'].loop == 3 and found['copy.1'].loop is None


def test_kinds_follow_from_what_a_kernel_does():
  assert {name: kernel.kind for name, kernel in of(GPU).items()} == {
      'mean': 'norms', 'cast': 'casts', 'conv': 'convolutions', 'product': 'products',
      'copy.1': 'transposes'}
  assert {name: kernel.kind for name, kernel in of(TPU).items()} == {
      'copy-start': 'copies', 'norm': 'norms', 'dot': 'products', 'conv': 'convolutions'}


def test_bytes_are_operands_and_results():
  found = of(GPU)
  x, kernel, out = 2 * 4 * 4 * 8 * 2, 3 * 3 * 8 * 16, 2 * 4 * 4 * 16 * 2
  assert found['mean'].bytes == x + 2 * 8 * 4
  assert found['cast'].bytes == 4 * kernel + 2 * kernel
  assert found['conv'].bytes == x + 2 * kernel + out
  assert found['copy.1'].bytes == 2 * 4 * kernel


def test_what_lies_on_the_chip_moves_no_memory():
  found = of(TPU)
  image, kernel = 8 * 16 * 16 * 128 * 2, 3 * 3 * 128 * 128 * 2
  assert found['copy-start'].bytes == image
  assert found['conv'].bytes == kernel + image  # its input is there already
  assert found['norm'].bytes == 64 * 128 * 2


@pytest.mark.parametrize('start, wanted', [
    ('f32[8] all-reduce-start(%x)', 2 * 32),
    ('(f32[8], f32[4]) all-reduce-start(%x, %y)', 2 * (32 + 16)),
    ('(f32[8], f32[64]) all-gather-start(%x)', 32 + 256),
    ('((f32[8], f32[4]), (f32[64], f32[32])) all-gather-start(%x, %y)', 48 + 384)])
def test_what_runs_beside_others_moves_operands_and_results_too(start, wanted):
  kernel, = of(f'''
ENTRY %main (x: f32[8], y: f32[4]) -> f32[8] {{
  %x = f32[8] parameter(0)
  %y = f32[4] parameter(1)
  %begun = {start}, replica_groups={{}}
  ROOT %done = f32[8] all-reduce-done(%begun)
}}''').values()
  assert kernel.kind == 'collectives' and kernel.bytes == wanted


def test_operations_are_those_of_convolutions_and_products():
  found = of(GPU)
  assert found['conv'].flops == 2 * (2 * 4 * 4 * 16) * (3 * 3 * 8)
  assert found['product'].flops == 2 * 6 * 32 * 10
  assert found['mean'].flops == found['cast'].flops == 0


@pytest.mark.parametrize('target, operands, result', [
    ('__cudnn$convBackwardInput', 'g, k', 'bf16[2,4,4,8]'),
    ('__cudnn$convBackwardFilter', 'x, g', 'bf16[16,3,3,8]')])
def test_gradients_of_a_convolution_cost_what_it_costs(target, operands, result):
  named = ', '.join(f'%{name}' for name in operands.split(', '))
  text = f'''
ENTRY %main () -> bf16[1] {{
  %x = bf16[2,4,4,8]{{3,2,1,0}} parameter(0)
  %k = bf16[16,3,3,8]{{3,2,1,0}} parameter(1)
  %g = bf16[2,4,4,16]{{3,2,1,0}} parameter(2)
  ROOT %conv = ({result}{{3,2,1,0}}, u8[0]{{0}}) custom-call({named}), REST
}}'''.replace('REST', 'window={size=3x3}, dim_labels=b01f_o01i->b01f, '
                       f'custom_call_target="{target}"')
  assert of(text)['conv'].flops == 2 * (2 * 4 * 4 * 16) * (3 * 3 * 8)


def test_totals_are_per_step():
  found = [k for k in kernels.kernels(hlo.parse(GPU)) if k.loop]
  totals = kernels.totals(found, steps=3)
  assert totals.launches == 4
  assert totals.bytes == sum(kernel.bytes for kernel in found)
  assert totals.by_kind['norms'] == (1, 2 * 4 * 4 * 8 * 2 + 2 * 8 * 4)


def test_what_follows_the_gradient_is_the_optimizer():
  text = '''
%arithmetic (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %b = f32[8]{0} multiply(%a, %a), metadata={op_name="jit(step)/mul"}
}

%gradient (a.1: f32[8]) -> f32[8] {
  %a.1 = f32[8]{0} parameter(0)
  ROOT %b.1 = f32[8]{0} tanh(%a.1), metadata={op_name="jit(step)/transpose(jvp(Net))/tanh"}
}

ENTRY %main (m: f32[8]) -> f32[8] {
  %m = f32[8]{0} parameter(0), metadata={op_name="state.NAME[0].mu"}
  %g = f32[8]{0} fusion(%m), kind=kLoop, calls=%gradient
  ROOT %u = f32[8]{0} fusion(%g), kind=kLoop, calls=%arithmetic
}'''
  assert {k.name: k.kind for k in of(text.replace('NAME', 'opt_state')).values()} == {
      'g': 'other', 'u': 'optimizer'}
  assert {k.kind for k in of(text.replace('NAME', 'weights')).values()} == {'other'}


@pytest.mark.skipif(not gpus.has_compiler(), reason='compiles for H100s with jax-cuda13-plugin')
def test_a_convolution_for_an_absent_gpu_has_the_operations_of_the_traced_one():
  device = jax.sharding.SingleDeviceSharding(gpus.topology('h100', 1)[0])
  def function(x, kernel):
    return jnp.tanh(jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
  arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=device)
               for shape in ((2, 16, 16, 32), (3, 3, 32, 64))]
  text = jax.jit(function).lower(*arguments).compile().as_text()
  found = kernels.kernels(hlo.parse(text))
  conv, = (kernel for kernel in found if kernel.kind == 'convolutions')
  assert conv.flops == flops.count(function, *arguments)
  assert conv.bytes == 2 * (2 * 16 * 16 * (32 + 64) + 3 * 3 * 32 * 64)
