"""The convolution's gradients are JAX's own, and stay fast inside a scan."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.models import convolution


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
