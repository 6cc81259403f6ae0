"""The classifier of noisy images: its pools, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_networks import rule_params

from adm_jax.errors import UsageError
from adm_jax.models import Classifier
from adm_jax.models.classifier import AttentionPool

POOLS = ['attention', 'adaptive', 'spatial', 'spatial_v2']
SMALL = dict(channels=32, channel_mult=(1, 2), depth=1, attention_resolutions=(4,),
             head_channels=32)


def classifier(pool, **kwargs):
  return Classifier(**(dict(image_size=8, num_classes=5, pool=pool) | SMALL | kwargs))


def inputs(batch=3, height=8, width=8):
  """(x, t)."""
  x = jax.random.normal(jax.random.key(0), (batch, height, width, 3))
  return x, jnp.linspace(3.0, 900.0, batch)


@pytest.fixture(scope='module', params=POOLS)
def network(request):
  """(module, params, its compiled logits): one of each pool for all tests of this module."""
  # Groups of several channels: a norm of single channels would cancel the bias before it.
  module = classifier(request.param, channel_mult=(1,), attention_resolutions=(8,), num_groups=8)
  return module, rule_params(module), jax.jit(
      lambda params, x, t: module.apply({'params': params}, x, t))


def test_images_of_a_batch_do_not_meet(network):
  """Each row of logits is a function of its own image and time, and of all of both."""
  _, params, logits = network
  x, t = inputs()
  together = logits(params, x, t)
  other = logits(params, x.at[1, 0, 0].add(1.0), t)
  np.testing.assert_allclose(other[::2], together[::2], atol=2e-5)
  assert jnp.abs(other[1] - together[1]).max() > 1e-4
  other = logits(params, x, t.at[1].add(0.5))
  np.testing.assert_allclose(other[::2], together[::2], atol=2e-5)
  assert jnp.abs(other[1] - together[1]).max() > 1e-4


def test_the_gradient_reaches_every_parameter(network):
  """Of every pool."""
  module, params, logits = network
  x, t = inputs()

  @jax.jit
  @jax.grad
  def gradient(params):
    return (module.apply({'params': params}, x, t) ** 2).sum()

  for path, leaf in jax.tree.leaves_with_path(gradient(params)):
    assert np.isfinite(leaf).all() and jnp.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


@pytest.mark.parametrize('pool', ['adaptive', 'spatial', 'spatial_v2'])
def test_a_mean_over_pixels_takes_any_size(pool):
  """The transposed network on the transposed image, of another shape than the one it is made for,
  gives the same logits."""
  module = classifier(pool)
  params = rule_params(module)
  x, t = inputs(2, 4, 10)
  transposed = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1) if leaf.ndim == 4 else leaf, params)
  apply = jax.jit(lambda params, x: module.apply({'params': params}, x, t))
  np.testing.assert_allclose(apply(transposed, x.swapaxes(1, 2)), apply(params, x), atol=5e-5)


def test_attention_pool_is_attention_from_the_mean():
  """The query is the mean of the tokens, in place 0 of a table of positions; keys and values are
  the mean and all tokens."""
  pool, x = AttentionPool(5, head_channels=8), jax.random.normal(jax.random.key(0), (2, 3, 4, 16))
  params = jax.tree.map(np.asarray, pool.init(jax.random.key(1), x)['params'])
  tokens = np.asarray(x, np.float64).reshape(2, 12, 16)
  tokens = np.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1) + params['position']
  qkv = (tokens @ params['qkv']['kernel'] + params['qkv']['bias']).reshape(2, 13, 3, 2, 8)
  q, k, v = (qkv[:, :, i] for i in range(3))  # [B L N D]
  p = np.exp(np.einsum('bnd,bmnd->bnm', q[:, 0], k) / np.sqrt(8))
  p /= p.sum(axis=-1, keepdims=True)
  h = np.einsum('bnm,bmnd->bnd', p, v).reshape(2, 16)
  want = h @ params['out']['kernel'] + params['out']['bias']
  np.testing.assert_allclose(pool.apply({'params': params}, x), want, atol=1e-5)


def test_a_fresh_adaptive_classifier_gives_every_class_alike():
  """Its last layer starts at zero."""
  module, (x, t) = classifier('adaptive', channel_mult=(1,), attention_resolutions=()), inputs()
  got, _ = jax.jit(lambda: module.init_with_output(jax.random.key(0), x, t))()
  np.testing.assert_array_equal(got, 0)


def test_bfloat16_logits_are_float32_and_close():
  """Pools compute in float32, after a trunk in bfloat16."""
  module = classifier('attention', dtype=jnp.bfloat16)
  params, (x, t) = rule_params(module), inputs()
  got = jax.jit(lambda: module.apply({'params': params}, x, t))()
  want = jax.jit(lambda: dataclasses.replace(module, dtype=jnp.float32).apply(
      {'params': params}, x, t))()
  assert got.dtype == jnp.float32
  error = jnp.sqrt(((got - want) ** 2).mean() / (want ** 2).mean())
  assert 1e-4 < error < 3e-2


@pytest.mark.parametrize('kwargs, words', [
    (dict(pool='mean'), "pool 'mean' is unknown: give attention"),
    (dict(head_channels=None), "pool 'attention' needs head_channels"),
    (dict(head_channels=48), '64 channels .* heads of 48'),
    (dict(image_size=(8, 7)), '8 x 7 cannot be halved'),
    (dict(attention_resolutions=(2,)), r'attention_resolutions \[2\] never occur'),
    (dict(channels=40), '40 channels .* 32 groups'),
    (dict(remat='some'), "remat 'some' is unknown")])
def test_a_description_that_cannot_work_is_refused_at_once(kwargs, words):
  """When it is written down: one line with the value, the rule and the way out."""
  with pytest.raises(UsageError, match=words) as error:
    classifier(**(dict(pool='attention') | kwargs))
  assert '\n' not in str(error.value)
