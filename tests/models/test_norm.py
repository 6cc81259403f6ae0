"""The norm in few passes, of accelerators, is the plain one: values, gradients and rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.devices.target import Target, tracing_for
from adm_jax.models import norm

GROUPS = 8


def inputs(mean=0.0, shape=(2, 10, 12, 32), dtype=jnp.bfloat16):
  """(x, gamma, beta, the result's gradient): channels have means and widths of their own."""
  keys = jax.random.split(jax.random.key(0), 6)
  own = jax.random.normal(keys[0], (shape[0], *(1,) * (len(shape) - 2), shape[-1]))
  x = mean + own + jnp.exp(own) * jax.random.normal(keys[1], shape)
  gamma, beta = (jax.random.normal(key, (shape[0], shape[-1])) for key in keys[2:4])
  return x.astype(dtype), 1 + gamma, beta, jax.random.normal(keys[4], shape).astype(dtype)


def value_and_gradients(form, silu, x, gamma, beta, gradient, dtype=jnp.bfloat16):
  y, pull = jax.vjp(lambda *args: form(GROUPS, silu, dtype, *args), x, gamma, beta)
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64),
                      (y, *pull(gradient.astype(dtype))))


def exact(silu, x, gamma, beta, gradient):
  """The plain form, in float32 throughout, of the same rounded numbers."""
  return value_and_gradients(norm._plain, silu, x.astype(jnp.float32), gamma, beta,
                             gradient.astype(jnp.float32), jnp.float32)


def rms(x):
  return np.sqrt((x ** 2).mean())


@pytest.mark.parametrize('silu', [False, True])
@pytest.mark.parametrize('mean', [0.0, 5.0, -100.0])
@pytest.mark.parametrize('side', [8, 12])
def test_few_passes_are_as_exact_as_many(silu, mean, side):
  """Beside float32, which rounds nothing to 8 bits, neither is further off; on means of 100 too."""
  given = inputs(mean, (2, side, 8, 32))
  wanted = exact(silu, *given)
  plain = value_and_gradients(norm._plain, silu, *given)
  split = value_and_gradients(norm._split, silu, *given)
  for name, a, b, c in zip(('y', 'x', 'gamma', 'beta'), plain, split, wanted, strict=True):
    bound = max(1.1 * rms(a - c), 1e-3 * rms(c))
    assert rms(b - c) <= bound, f'{name}: {rms(b - c) / rms(c)} after {rms(a - c) / rms(c)}'


@pytest.mark.parametrize('silu', [False, True])
@pytest.mark.parametrize('side', [8, 12])
def test_few_passes_are_many_but_for_the_last_bits_of_float32(silu, side):
  """The same formula: in float32 values agree to 1e-5, gradients too."""
  x, gamma, beta, gradient = (leaf.astype(jnp.float32) for leaf in inputs(shape=(2, side, 8, 32)))
  split = value_and_gradients(norm._split, silu, x, gamma, beta, gradient, jnp.float32)
  for a, b in zip(split, exact(silu, x, gamma, beta, gradient), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_a_flat_image_is_its_shift():
  """A variance of zero, and what rounding makes of it, is not divided by."""
  x = jnp.full((1, 16, 16, 32), 300.0, jnp.bfloat16)
  beta = jnp.linspace(-1, 1, 32)[None]
  y, by_x, *_ = value_and_gradients(norm._split, False, x, jnp.ones((1, 32)), beta, x / 300)
  np.testing.assert_allclose(y, np.broadcast_to(beta[:, None, None], y.shape), atol=0.02)
  assert np.isfinite(by_x).all()


@pytest.mark.parametrize('platform, shape, dtype, form', [
    ('gpu', (2, 16, 16, 32), 'bfloat16', '_split'), ('tpu', (2, 16, 16, 32), 'bfloat16', '_split'),
    ('cpu', (2, 16, 16, 32), 'bfloat16', '_plain'), (None, (2, 16, 16, 32), 'bfloat16', '_plain'),
    ('gpu', (2, 16, 16, 32), 'float32', '_plain'), ('gpu', (2, 8, 8, 32), 'bfloat16', '_split'),
    ('tpu', (2, 8, 8, 32), 'bfloat16', '_plain'), ('gpu', (2, 256, 32), 'bfloat16', '_plain')])
def test_the_form_goes_by_the_target(monkeypatch, platform, shape, dtype, form):
  """Images of 16 bits, on TPUs large ones; a program for any device has the plain form."""
  x, *_ = inputs(shape=shape, dtype=dtype)
  monkeypatch.setattr(norm, '_split', lambda *args: '_split')
  monkeypatch.setattr(norm, '_plain', lambda *args: '_plain')
  with tracing_for(Target(platform)):
    assert norm.group_norm(x, jnp.ones(32), jnp.zeros(32), None, None, GROUPS, True,
                           x.dtype) == form


def test_scale_and_shift_go_into_both_forms_alike():
  x, scale, shift, _ = inputs()
  gamma, beta = jnp.linspace(0, 2, 32), jnp.linspace(-1, 1, 32)
  found = {}
  for platform in ('cpu', 'gpu'):
    with tracing_for(Target(platform)):
      found[platform] = norm.group_norm(x, gamma, beta, scale, shift, GROUPS, True, jnp.float32)
  np.testing.assert_allclose(found['gpu'], found['cpu'], atol=1e-4)
