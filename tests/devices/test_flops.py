"""Counts of arithmetic: closed forms, and the published networks' own."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import tiny
import tiny_models

from adm_jax.devices import chips, flops
from adm_jax.devices.target import Target, tracing_for
from adm_jax.models import UNet, blocks
from adm_jax.training import distillation
from adm_jax.training.flops import of_step
from adm_jax.weights import catalog, folders, openai


def test_a_convolution_and_a_product():
  x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((5, 5, 3, 7))
  def conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), 'SAME',
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  assert flops.count(conv, x, kernel) == 2 * (2 * 4 * 4 * 7) * (5 * 5 * 3)
  product = flops.count(lambda a, b: jnp.einsum('bij,bjk->bik', a, b), jnp.zeros((3, 4, 5)),
                        jnp.zeros((3, 5, 6)))
  assert product == 2 * 3 * 4 * 5 * 6


def test_each_array_is_moved_once():
  a, b = jnp.zeros((3, 4), 'bfloat16'), jnp.zeros((4, 5), 'bfloat16')
  assert flops.traffic(jnp.dot, a, b) == 2 * (12 + 20 + 15)
  def scanned(a):
    return jax.lax.scan(lambda x, _: (x @ a + jnp.sin(x), None), a, length=10)[0]
  assert flops.traffic(jax.jit(scanned), jnp.zeros((4, 4))) == 10 * 3 * 4 * 16


def test_loops_and_wrappers_are_looked_into():
  a = jnp.zeros((4, 4))
  def scanned(a):
    return jax.lax.scan(lambda x, _: (jax.checkpoint(jnp.dot)(x, a), None), a, length=10)[0]
  assert flops.count(jax.jit(scanned), a) == 10 * 2 * 4 ** 3
  def chosen(a):
    return jax.lax.cond(a[0, 0] > 0, lambda: a @ a @ a, lambda: a @ a)
  assert flops.count(chosen, a) == 2 * 2 * 4 ** 3


@pytest.mark.parametrize('name, teraflops', [
    # Counted by hooks on the reference's modules (multiplications times two).
    ('imagenet64', 0.2194), ('imagenet128', 0.6139), ('imagenet256', 2.2397),
    ('imagenet256-uncond', 2.2397), ('imagenet512', 3.9647), ('64_256', 1.2633),
    ('128_512', 5.0096), ('imagenet64-classifier', 0.0382), ('imagenet128-classifier', 0.0421),
    ('imagenet256-classifier', 0.1467), ('imagenet512-classifier', 0.2255)])
def test_a_published_network(name, teraflops):
  model = catalog.find(name)
  network = openai.create(model.kind, model.flags)[0]
  params = openai.abstract_params(network)
  size = network.image_size if model.kind != 'superres' else network.unet.image_size
  x = jax.ShapeDtypeStruct((1, size, size, 3), 'float32')
  t, y = (jax.ShapeDtypeStruct((1,), 'int32') for _ in range(2))
  labels = [y] if model.kind != 'classifier' and 'uncond' not in name else []
  small = ({'low_res': jax.ShapeDtypeStruct((1, size // 4, size // 4, 3), 'float32')}
           if model.kind == 'superres' else {})
  found = flops.count(lambda p, small, *a: network.apply({'params': p}, *a, **small), params, small,
                      x, t, *labels)
  assert found == pytest.approx(teraflops * 1e12, rel=0.02)


def test_a_compiled_network_does_what_is_counted():
  """The compiler counts elementwise work too, and leaves out what falls on the padding."""
  network = UNet(image_size=64, out_channels=6, channels=128, channel_mult=(1,), depth=1,
                 attention_resolutions=())
  x, t = (jax.ShapeDtypeStruct(shape, 'float32') for shape in ((1, 64, 64, 3), (1,)))
  params = jax.eval_shape(network.init, jax.random.key(0), x, t)
  counted = flops.count(network.apply, params, x, t)
  compiled = jax.jit(network.apply).lower(params, x, t).compile().cost_analysis()['flops']
  assert compiled == pytest.approx(counted, rel=0.02)


def test_a_step_is_three_forward_passes_of_its_batch():
  task = tiny.unet_run().task
  params = task.network.abstract_params()
  x, t = (jax.ShapeDtypeStruct(shape, 'float32') for shape in ((1, 8, 8, 1), (1,)))
  forward = flops.count(lambda p, *a: task.network.apply(p, *a), params, x, t)
  assert of_step(task, 16) == 3 * 16 * forward


def test_a_teacher_is_evaluated_but_not_trained(tmp_path):
  """Three passes of the student, one of its teacher, and one of its own guess or the teacher's."""
  guided = tiny_models.student(tmp_path / 'guided', steps=None)
  student = dataclasses.replace(folders.load(guided).network, steps=(2,))
  forward = flops.count(student.init, jax.random.key(0))
  few = distillation.consistency(student, str(guided), anneal_steps=2, first=2, last=4)
  assert of_step(few, 16) == 5 * 16 * forward
  halved = distillation.progressive(student, str(guided))
  assert of_step(halved, 16) == (3 + 2) * 16 * forward


def test_the_peak_of_an_unknown_device_is_not_made_up():
  assert chips.peak(jax.devices('cpu')[0].device_kind) is None


def test_the_forms_of_a_device_count_as_the_plain_ones():
  """TPUs' attention hides its arithmetic, and their doubling convolution multiplies zeros."""
  blocks_of = (blocks.Attention(2, dtype='bfloat16'), jnp.zeros((1, 32, 32, 64), 'bfloat16')), (
      blocks.Resample(up=True, dtype='bfloat16'), jnp.zeros((1, 8, 8, 64), 'bfloat16'))
  for block, x in blocks_of:
    params = jax.eval_shape(block.init, jax.random.key(0), x)
    def evaluate(params, x, block=block):
      with tracing_for(Target('tpu')):
        return block.apply(params, x)
    jax.jit(evaluate).trace(params, x)  # as a plan's program is, before it is counted
    assert flops.count(evaluate, params, x) == flops.count(block.apply, params, x) > 0
