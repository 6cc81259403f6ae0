"""Weights that a program only reads in 16 bits, and those that it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.devices import narrowing, sharding

HALF, WHOLE = np.dtype(jnp.bfloat16), np.dtype(np.float32)


def half(x):
  return x.astype(jnp.bfloat16)


CASES = {
    'converted': (lambda w, x: half(w) * half(x), HALF),
    'converted twice': (lambda w, x: half(w) * half(x) + half(w), HALF),
    'also read as it is': (lambda w, x: half(w) * half(x) + half(w.sum()), WHOLE),
    'returned too': (lambda w, x: (half(w), w), WHOLE),
    'converted to two dtypes': (lambda w, x: half(w).sum() + w.astype(jnp.float16).sum(), WHOLE),
    'never read': (lambda w, x: x, WHOLE),
    'in a jit': (lambda w, x: jax.jit(lambda w: half(w) * half(x))(w), HALF),
    'in a checkpoint': (lambda w, x: jax.checkpoint(lambda w: half(w) * half(x))(w), HALF),
    'in one branch': (lambda w, x: jax.lax.cond(
        x[0] > 0, lambda: half(w) * half(x), lambda: half(x)), HALF),
    'in one branch alone': (lambda w, x: jax.lax.cond(
        x[0] > 0, lambda: half(w) * half(x), lambda: half(w + 1)), WHOLE),
    'in both branches': (lambda w, x: jax.lax.cond(
        x[0] > 0, lambda: half(w) * half(x), lambda: half(w)), HALF),
    'in a scan': (lambda w, x: jax.lax.scan(
        lambda y, _: (y * half(w), None), half(x), length=3)[0], HALF),
    'carried by a scan': (lambda w, x: jax.lax.scan(
        lambda y, _: (y * 2, half(y)), w, length=3)[1], WHOLE),
    'by another of its gradient': (lambda w, x: jax.grad(
        lambda x: (half(w) * half(x)).sum().astype(jnp.float32))(x), HALF),
    'by its own gradient': (lambda w, x: jax.grad(
        lambda w: (half(w) * half(x)).sum().astype(jnp.float32))(w), HALF),
    'the condition of a loop': (lambda w, x: jax.lax.while_loop(
        lambda y: (y < half(w)).all(), lambda y: y + 1, half(x)), WHOLE),
}


@pytest.mark.parametrize('name', CASES)
def test_only_what_is_read_in_16_bits_alone_narrows(name):
  function, wanted = CASES[name]
  found = narrowing.read_dtypes(lambda params, x: function(params['w'], x), {'w': jnp.ones(4)},
                                jnp.ones(4))
  assert found == {'w': wanted}


def test_integers_and_16_bits_stay():
  params = {'table': jnp.arange(4), 'scale': jnp.ones(4, jnp.bfloat16)}
  found = narrowing.read_dtypes(
      lambda params: half(params['table']) * params['scale'].astype(jnp.float32), params)
  assert found == {'table': np.dtype(np.int32), 'scale': HALF}


def test_placing_converts_as_a_device_would():
  """Bit for bit, ties and tiny numbers included."""
  values = np.concatenate([np.random.default_rng(0).normal(size=1000), [1 + 2**-8, 1 + 3 * 2**-8,
                          1e-40, -0.0, 3.3e38]]).astype(np.float32)
  placed, = sharding.place_params([values], sharding.mesh(devices=jax.devices()[:1]), [HALF])
  assert placed.dtype == HALF
  np.testing.assert_array_equal(np.asarray(placed).view(np.uint16),
                                np.asarray(jax.jit(half)(values)).view(np.uint16))
