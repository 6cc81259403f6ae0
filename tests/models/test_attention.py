"""Attention against its formula, in every form that a device may be given."""

import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulated_devices
from jax.experimental.pallas import tpu as pltpu

from adm_jax.devices.target import ANY, Target, tracing_for
from adm_jax.models import attention, blocks

HOPPER, AMPERE, TURING = Target('gpu', 9.0), Target('gpu', 8.0), Target('gpu', 7.5)
TPU = Target('tpu')


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def formula(q, k, v):
  """softmax(q k / sqrt(D)) v of [B L N D], in float64."""
  q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
  logits = np.einsum('blnd,bmnd->bnlm', q, k) / np.sqrt(q.shape[-1])
  p = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return np.einsum('bnlm,bmnd->blnd', p / p.sum(axis=-1, keepdims=True), v)


def test_attention_is_its_formula():
  q, k, v = (normal(i, 2, 10, 4, 8) for i in range(3))
  np.testing.assert_allclose(attention.attend(q, k, v), formula(q, k, v), atol=1e-5)


@pytest.mark.parametrize('target, dtype, length, width, wanted', [
    (HOPPER, 'bfloat16', 1024, 64, 'cudnn'), (HOPPER, 'bfloat16', 256, 192, 'cudnn'),
    (HOPPER, 'bfloat16', 256, 256, 'cudnn'), (HOPPER, 'float16', 1024, 96, 'cudnn'),
    (AMPERE, 'bfloat16', 256, 192, 'xla'), (AMPERE, 'bfloat16', 1024, 128, 'cudnn'),
    (TURING, 'bfloat16', 1024, 64, 'xla'), (TURING, 'float16', 1024, 64, 'xla'),
    (HOPPER, 'float32', 1024, 64, 'xla'), (HOPPER, 'bfloat16', 64, 64, 'xla'),
    (HOPPER, 'bfloat16', 1024, 60, 'xla'), (Target('gpu'), 'bfloat16', 1024, 64, 'xla'),
    (TPU, 'bfloat16', 1024, 64, 'flash'), (TPU, 'bfloat16', 4096, 64, 'flash'),
    (TPU, 'bfloat16', 256, 64, 'xla'), (TPU, 'bfloat16', 1600, 64, 'xla'),
    (TPU, 'float32', 1024, 64, 'xla'), (ANY, 'bfloat16', 1024, 64, 'xla'),
    (Target('cpu'), 'bfloat16', 1024, 64, 'xla')])
def test_a_fused_kernel_is_chosen_where_it_runs_and_pays(target, dtype, length, width, wanted):
  """The shapes of ADM 64, 128 and the upsamplers, on Hopper, Ampere, Turing and TPUs."""
  assert attention.attention_implementation(dtype, length, width, target) == wanted


def rms(x):
  return np.sqrt((np.asarray(x, np.float64) ** 2).mean())


def test_the_kernel_for_tpus_is_no_further_from_float32_than_xla_s(monkeypatch):
  """Values and gradients in bfloat16, over several blocks; the kernel interpreted."""
  monkeypatch.setattr(attention, '_BLOCK', 128)
  arrays = [normal(i, 1, 256, 1, 16).astype(jnp.bfloat16) for i in range(4)]

  def found(implementation, *arrays):
    *arrays, gradient = arrays
    h, pull = jax.vjp(lambda *a: attention.attend(*a, implementation), *arrays)
    return (h, *pull(gradient))
  exact = found('xla', *(a.astype(jnp.float32) for a in arrays))
  plain = found('xla', *arrays)
  with pltpu.force_tpu_interpret_mode():
    flash = found('flash', *arrays)
  for name, a, b, c in zip('hqkv', plain, flash, exact, strict=True):
    assert b.dtype == jnp.bfloat16
    assert rms(b - c) <= 1.1 * rms(a - c), f'{name}: {rms(b - c)} after {rms(a - c)}'


ON_A_MESH = '''
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas import tpu as pltpu

from adm_jax.devices import sharding
from adm_jax.models import attention

def gradients(*arrays):
  def norm(q, k, v):
    return (attention.attend(q, k, v, 'flash').astype(jnp.float32) ** 2).sum()
  return jax.grad(norm, (0, 1, 2))(*arrays)

mesh = sharding.mesh(fsdp=2)
split = sharding.tracing_for(mesh)(gradients)
shape = jax.ShapeDtypeStruct((2, 1024, 1, 64), jnp.bfloat16, sharding=sharding.over_batch(mesh))
jax.jit(split).trace(shape, shape, shape).lower(lowering_platforms=('tpu',))

arrays = [jax.random.normal(jax.random.key(i), (2, 128, 1, 16), jnp.bfloat16) for i in range(3)]
placed = jax.device_put(arrays, sharding.over_batch(mesh))
attention._BLOCK = 128
with pltpu.force_tpu_interpret_mode():
  jax.tree.map(np.testing.assert_array_equal, jax.jit(gradients)(*arrays), jax.jit(split)(*placed))
'''


def test_the_kernel_for_tpus_runs_on_a_mesh():
  """Each device has its rows, with the numbers of one device; the compiler for TPUs accepts it."""
  done = subprocess.run(
      [sys.executable, '-c', ON_A_MESH], capture_output=True, text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu',
           'XLA_FLAGS': simulated_devices.flags(2)})
  assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------
# Queries, keys and values.


def linear(qkv_first, dtype='float32'):
  return blocks.queries_keys_values(4, 32, qkv_first, dtype=dtype, param_dtype='float32',
                                    name='qkv')


class One(nn.Module):
  """The linear map, called 'qkv', alone."""
  qkv_first: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x):
    return linear(self.qkv_first, self.dtype)(x)


class Reference(nn.Module):
  """The layer that its parameters are of."""

  @nn.compact
  def __call__(self, x):
    return blocks.dense(96, 32, dtype=jnp.float32, param_dtype=jnp.float32, name='qkv')(x)


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu', None])
@pytest.mark.parametrize('qkv_first', [False, True])
def test_all_ways_to_cut_are_one_layer_s(platform, qkv_first):
  """Heads inside of (q k v) or the other way around; parameters that start as the layer's do."""
  x = normal(0, 2, 10, 32)
  with tracing_for(Target(platform)):
    found, variables = One(qkv_first).init_with_output(jax.random.key(1), x)
  wanted, same = Reference().init_with_output(jax.random.key(1), x)
  jax.tree.map(np.testing.assert_array_equal, variables, same)
  wanted = wanted.reshape(2, 10, *((3, 4, 8) if qkv_first else (4, 3, 8)))
  wanted = jnp.moveaxis(wanted, 2 if qkv_first else 3, 0)
  np.testing.assert_allclose(jnp.stack(found), wanted, atol=1e-6)


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_products_apart_have_the_gradients_of_one(platform):
  x, weights = normal(0, 2, 10, 32), normal(2, 3, 2, 10, 4, 8)
  params = One().init(jax.random.key(1), x)

  def gradients(platform):
    with tracing_for(Target(platform)):
      return jax.grad(lambda params, x: (jnp.stack(One().apply(params, x)) * weights).sum(),
                      (0, 1))(params, x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradients(platform),
               gradients('cpu'))


def test_products_apart_round_to_the_same_16_bits():
  x = normal(0, 2, 10, 32).astype(jnp.bfloat16)
  params = One().init(jax.random.key(1), x)
  found = {}
  for platform in ('cpu', 'gpu', 'tpu'):
    with tracing_for(Target(platform)):
      found[platform] = np.stack(One(dtype='bfloat16').apply(params, x))
  np.testing.assert_array_equal(found['gpu'], found['cpu'])
  np.testing.assert_array_equal(found['tpu'], found['cpu'])
