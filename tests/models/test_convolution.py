"""The convolution's gradients are JAX's own, and fast in a scan; images are never transposed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.devices import flops
from adm_jax.models import Classifier, UNet, convolution
from adm_jax.weights import openai


@pytest.mark.parametrize('size', [1, 3, 5])
def test_gradients_are_those_that_jax_derives(size):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 6, 7, 3))
  kernel = jax.random.normal(keys[1], (size, size, 3, 4))
  y, vjp = jax.vjp(convolution.convolve, x, kernel)
  gradient = jax.random.normal(keys[2], y.shape)
  wanted = jax.vjp(lambda x, k: jax.lax.conv_general_dilated(
      x, k, (1, 1), [(size // 2, size // 2)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')),
      x, kernel)[1](gradient)
  for got, want in zip(vjp(gradient), wanted):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_on_a_cpu_no_convolution_in_a_scan_leaves_the_fast_layout():
  """Any other layout than the forward one is computed by plain loops there."""
  x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

  def loss(x, kernel):
    return jnp.sin(convolution.convolve(x, kernel)).sum()

  def body(carry, _):
    return jax.grad(loss, (0, 1))(*carry), None

  program = jax.jit(functools.partial(jax.lax.scan, body, length=3)).lower((x, kernel))
  text = program.compile().as_text()
  layouts = set(re.findall(r'dim_labels=(\S+?),', text))
  if jax.default_backend() == 'cpu':
    assert layouts == {'b01f_01io->b01f'}


@pytest.mark.parametrize('network', [
    UNet(16, out_channels=6, channels=32, channel_mult=(1, 2), depth=1,
         attention_resolutions=(8,), head_channels=32),
    Classifier(16, num_classes=4, channels=32, channel_mult=(1, 2), depth=1,
               attention_resolutions=(8,), head_channels=32)])
def test_no_transposition_lies_between_convolutions(network):
  """Of a forward pass and of the gradient by the image, as guidance needs them.

  Kernels are turned for the gradient, and attention turns queries, keys and values.
  """
  x, t = jnp.zeros((2, 16, 16, 3)), jnp.zeros(2, jnp.int32)

  def both(params, x):
    return jax.value_and_grad(lambda x: network.apply({'params': params}, x, t).sum())(x)
  text = jax.jit(both).lower(openai.abstract_params(network), x).compile().as_text()
  turned = [(shape, name) for shape, name in re.findall(
      r'= \w+\[([\d,]+)\]\S* (?:transpose|copy)\(.*?op_name="([^"]*)"', text)
      if shape.count(',') == 3 and 'attn' not in name and 'pool' not in name]
  assert [entry for entry in turned if not entry[0].startswith(('1,1,', '3,3,'))] == []


@pytest.mark.parametrize('gradient', [convolution._derived, convolution._for_cpus])
def test_either_gradient_costs_two_convolutions(gradient):
  x, kernel, y = jnp.zeros((2, 8, 8, 16)), jnp.zeros((3, 3, 16, 4)), jnp.zeros((2, 8, 8, 4))
  assert flops.count(gradient, x, kernel, y) == 2 * flops.count(convolution.convolve, x, kernel)
  for got, want in zip(gradient(x + 1, kernel + 2, y + 3),
                       convolution._derived(x + 1, kernel + 2, y + 3)):
    np.testing.assert_allclose(got, want, rtol=1e-5)
