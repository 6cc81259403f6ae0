"""The U-Net: what it ignores, what it does not, and that options change cost but not values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_networks import rule_params

from adm_jax.errors import UsageError
from adm_jax.models import SuperRes, UNet
from adm_jax.weights import openai

SMALL = dict(channels=32, channel_mult=(1, 2), depth=1, attention_resolutions=(4,), num_heads=2)
UNET = UNet(8, 6, num_classes=5, **SMALL)
# For what takes several compilations.
ONE_LEVEL = dataclasses.replace(UNET, channel_mult=(1,), attention_resolutions=(8,))


@jax.jit
def apply(params, x, t, y):
  """The compiled network that the tests of this module share."""
  return UNET.apply({'params': params}, x, t, y)


@pytest.fixture(scope='module')
def params():
  return rule_params(UNET)


def inputs(batch=2, height=8, width=8, channels=3):
  """(x, t, y)."""
  x = jax.random.normal(jax.random.key(0), (batch, height, width, channels))
  return x, jnp.linspace(3.0, 900.0, batch), jnp.arange(batch) % 5


# ---------------------------------------------------------------------------------------------
# Values.


def test_a_fresh_network_predicts_zero():
  """Its last convolution starts at zero, whatever goes in."""
  x, t, y = inputs()
  unet = dataclasses.replace(UNET, channel_mult=(1,), attention_resolutions=())
  got, variables = jax.jit(lambda: unet.init_with_output(jax.random.key(0), x, t, y))()
  np.testing.assert_array_equal(got, 0)
  last = variables['params']['conv_out']
  assert not last['kernel'].any() and not last['bias'].any()


def test_images_of_a_batch_do_not_meet(params):
  """Each output is a function of its own image, time and class."""
  x, t, y = inputs(3)
  together = apply(params, x, t, y)
  other = apply(params, x.at[1].set(0.5), t.at[1].set(77.0), y.at[1].set(4))
  np.testing.assert_allclose(other[::2], together[::2], atol=2e-5)
  assert jnp.abs(other[1] - together[1]).max() > 0.1


@pytest.mark.parametrize('change', ['x', 't', 'y'])
def test_every_input_matters(params, change):
  """A pixel, half a timestep, or the class: the output moves everywhere in the image."""
  x, t, y = inputs()
  changed = {'x': (x.at[:, 0, 0, 0].add(1.0), t, y), 't': (x, t + 0.5, y),
             'y': (x, t, y + 1)}[change]
  moved = jnp.abs(apply(params, *changed) - apply(params, x, t, y)).max(axis=-1)
  assert (moved > 1e-6).all()


def transpose_kernels(params):
  """Swaps the two spatial axes of every convolution."""
  return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1) if leaf.ndim == 4 else leaf, params)


@pytest.mark.parametrize('height, width', [(8, 16), (2, 6)])
def test_height_and_width_are_alike(params, height, width):
  """The transposed network on the transposed image gives the transposed output, at any H x W that
  the levels divide, also not the one it was made for."""
  x, t, y = inputs(1, height, width)
  got = apply(transpose_kernels(params), x.swapaxes(1, 2), t, y).swapaxes(1, 2)
  want = apply(params, x, t, y)
  assert jnp.abs(want).max() > 0.1
  np.testing.assert_allclose(got, want, atol=5e-5)


def test_without_classes_is_with_a_table_of_zeros(params):
  """The class enters by its row, added to the time's embedding, and nowhere else."""
  x, t, y = inputs()
  zeros = jax.tree.map(jnp.zeros_like, params['embedding']['label'])
  without = {name: leaf for name, leaf in params['embedding'].items() if name != 'label'}
  unet = dataclasses.replace(UNET, num_classes=None)
  got = jax.jit(lambda params: unet.apply({'params': params}, x, t))(
      params | {'embedding': without})
  want = apply(params | {'embedding': without | {'label': zeros}}, x, t, y)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize('kwargs', [
    dict(in_channels=4, out_channels=7, resblock_updown=False, scale_shift=False),
    dict(image_size=(4, 8), channel_mult=(1.5, 0.5), num_heads=1, attention_resolutions=(2,)),
    dict(in_channels=1, out_channels=1, num_classes=3, channels=16, channel_mult=(1,),
         attention_resolutions=())])
def test_the_gradient_reaches_every_parameter(kwargs):
  """For any channels, classes, levels and groups: no part of the network is left out."""
  # Groups of several channels: a norm of single channels would cancel the bias before it.
  unet = UNet(**(dict(image_size=8, out_channels=6, num_groups=8) | SMALL | kwargs))
  side = unet.image_size if isinstance(unet.image_size, tuple) else (8, 8)
  x, t, y = inputs(3, *side, unet.in_channels)
  y = y % 3 if unet.num_classes else None
  params = rule_params(unet)

  @jax.jit
  @jax.grad
  def gradient(params):
    out = unet.apply({'params': params}, x, t, y)
    assert out.shape == (*x.shape[:-1], unet.out_channels)
    return (out ** 2).sum()

  for path, leaf in jax.tree.leaves_with_path(gradient(params)):
    assert np.isfinite(leaf).all() and jnp.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)


# ---------------------------------------------------------------------------------------------
# Options of computation.


@pytest.fixture(scope='module')
def one_level():
  """(params, loss and gradient) of the one-level network with everything stored."""
  params = rule_params(ONE_LEVEL)
  return params, *value_and_gradient('none', params)


def value_and_gradient(policy, params):
  unet, (x, t, y) = dataclasses.replace(ONE_LEVEL, remat=policy), inputs()
  return jax.jit(jax.value_and_grad(
      lambda params: (unet.apply({'params': params}, x, t, y) ** 2).mean()))(params)


@pytest.mark.parametrize('policy', ['attention', 'blocks', 'full'])
def test_rematerialization_changes_no_value_and_no_gradient(one_level, policy):
  """It trades memory for time; parameters have the same names, so checkpoints fit any policy."""
  params, value, gradient = one_level
  got_value, got_gradient = value_and_gradient(policy, params)
  np.testing.assert_allclose(got_value, value, rtol=1e-5)
  scale = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
  jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, atol=1e-5 * scale),
               got_gradient, gradient)


def stored_for_backward(policy):
  """Bytes that the backward pass of a small ADM takes from the forward one, but for parameters."""
  unet = UNet(32, 6, channels=64, channel_mult=(1, 2, 2), attention_resolutions=(16, 8),
              head_channels=64, remat=policy)
  params = openai.abstract_params(unet)
  def residuals(params):
    x, t = jnp.zeros((4, 32, 32, 3)), jnp.zeros(4)
    return jax.vjp(lambda params: (unet.apply({'params': params}, x, t) ** 2).mean(), params)[1]
  every = jax.tree.leaves(jax.eval_shape(residuals, params))
  return sum(leaf.size * leaf.dtype.itemsize for leaf in every) - sum(
      4 * leaf.size for leaf in jax.tree.leaves(params))


def test_rematerialized_blocks_store_a_quarter():
  """At most half is asked for; what XLA then allocates differs from device to device."""
  stored = {policy: stored_for_backward(policy) for policy in ('none', 'blocks', 'full')}
  assert stored['full'] < stored['blocks'] < 0.25 * stored['none']


@pytest.mark.parametrize('policy', ['none', 'full'])
def test_dropout_acts_in_training_only(one_level, policy):
  """Without keys it is the network without dropout; with them, they decide."""
  params, value, _ = one_level
  unet, (x, t, y) = dataclasses.replace(ONE_LEVEL, dropout=0.5, remat=policy), inputs()
  still = jax.jit(lambda: unet.apply({'params': params}, x, t, y))()
  np.testing.assert_allclose((still ** 2).mean(), value, rtol=1e-5)

  @jax.jit
  def train(seed):
    return unet.apply({'params': params}, x, t, y,
                      dropout_keys=jax.random.split(jax.random.key(seed), len(x)))

  np.testing.assert_array_equal(train(0), train(0))
  assert jnp.abs(train(0) - train(1)).max() > 0.1 < jnp.abs(train(0) - still).max()


def test_bfloat16_is_close_to_float32(params):
  """The trunk computes in 8 bits of mantissa; time, statistics and the last layers do not, so that
  the output is float32 and off by rounding alone."""
  unet, (x, t, y) = dataclasses.replace(UNET, dtype=jnp.bfloat16), inputs()
  got, want = jax.jit(lambda: unet.apply({'params': params}, x, t, y))(), apply(params, x, t, y)
  assert got.dtype == jnp.float32
  error = jnp.sqrt(((got - want) ** 2).mean() / (want ** 2).mean())
  assert 1e-4 < error < 2e-2  # 0 would mean that bfloat16 was not used


def test_param_dtype_is_that_of_every_parameter():
  """And apart from the output's, which stays float32."""
  unet, (x, t, y) = dataclasses.replace(UNET, param_dtype=jnp.bfloat16), inputs()
  out, variables = jax.eval_shape(
      lambda: unet.init_with_output(jax.random.key(0), x, t, y))
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('bfloat16')}
  assert out.dtype == jnp.float32


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_parameters_do_not_depend_on_the_compute_dtype(dtype):
  """They are float32 whatever the trunk computes in."""
  unet, (x, t, y) = dataclasses.replace(UNET, dtype=dtype), inputs()
  shapes = jax.eval_shape(lambda: unet.init(jax.random.key(0), x, t, y))
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}


# ---------------------------------------------------------------------------------------------
# The upsampler.


def superres():
  module = SuperRes(UNet(8, 3, in_channels=6, **SMALL))
  return module, rule_params(module)


def test_low_resolution_is_enlarged_bilinearly_beside_the_image():
  """A ramp stays a ramp: the U-Net gets the same from 4 x 4 as from the ramp's own 8 x 8."""
  module, params = superres()
  x, t, _ = inputs()
  large = np.linspace(-1, 1, 8)  # pixel centers at (i + 1/2) / 8
  small = (large[::2] + large[1::2]) / 2
  low_res = jnp.broadcast_to(jnp.asarray(small, jnp.float32)[None, :, None, None], (2, 4, 4, 3))
  wanted = large.copy()
  wanted[[0, -1]] = small[[0, -1]]  # beyond the outer centers there is nothing to interpolate with
  enlarged = jnp.broadcast_to(jnp.asarray(wanted, jnp.float32)[None, :, None, None], x.shape)

  got = jax.jit(lambda: module.apply({'params': params}, x, t, low_res=low_res))()
  want = jax.jit(lambda: module.unet.apply(
      {'params': params['unet']}, jnp.concatenate([x, enlarged], axis=-1), t))()
  np.testing.assert_allclose(got, want, atol=5e-5)


@pytest.mark.parametrize('shape', [(1, 4, 4, 3), (2, 4, 4, 1)])
def test_low_resolution_of_another_batch_or_channels_is_refused(shape):
  module, params = superres()
  x, t, _ = inputs()
  with pytest.raises(UsageError, match='low_res of shape'):
    module.apply({'params': params}, x, t, low_res=jnp.zeros(shape))


# ---------------------------------------------------------------------------------------------
# What cannot work is refused.


@pytest.mark.parametrize('kwargs, words', [
    (dict(image_size=9), '9 x 9 cannot be halved 1 times .* divisible by 2'),
    (dict(image_size=(8, 6), channel_mult=(1, 1, 1)), '8 x 6 .* divisible by 4'),
    (dict(attention_resolutions=(16, 4, 3)), r'attention_resolutions \[16, 3\] never .* \[8, 4\]'),
    (dict(channels=48), '48 channels .* 32 groups'),
    (dict(channel_mult=(1, 1.25)), '40 channels .* 32 groups'),
    (dict(num_heads=3), '64 channels .* by 3 attention heads'),
    (dict(num_heads_upsample=3), '64 channels .* by 3 attention heads'),
    (dict(num_heads_upsample=-1), 'num_heads_upsample=-1: give at least 1, or None'),
    (dict(attention_implementation='fast'), "'fast' is unknown: give xla, cudnn, flash, or None"),
    (dict(attention_implementation='flash'), 'multiples of 1024 tokens, and a level .* has 16'),
    (dict(head_channels=48), '64 channels .* heads of 48'),
    (dict(remat='some'), "remat 'some' is unknown: give none")])
def test_a_description_that_cannot_work_is_refused_at_once(kwargs, words):
  """When it is written down: one line with the value, the rule and the way out."""
  with pytest.raises(UsageError, match=words) as error:
    UNet(**(dict(image_size=8, out_channels=6) | SMALL | kwargs))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('change, words', [
    (dict(height=7), '7 x 8 cannot be halved'), (dict(channels=4), 'images of 4 channels')])
def test_images_that_do_not_fit_are_refused(params, change, words):
  x, t, y = inputs(**change)
  with pytest.raises(UsageError, match=words):
    UNET.apply({'params': params}, x, t, y)


def test_a_scale_goes_with_networks_that_take_one(params):
  x, t, y = inputs()
  with pytest.raises(UsageError, match='takes no guidance scale'):
    UNET.apply({'params': params}, x, t, y, scale=jnp.ones(2))
  with pytest.raises(UsageError, match='takes a guidance scale: give one for each'):
    dataclasses.replace(UNET, takes_scale=True).apply({'params': params}, x, t, y)


def test_labels_go_with_classes(params):
  """A class-conditional network wants them, an unconditional one does not."""
  x, t, y = inputs()
  with pytest.raises(UsageError, match='give a label y'):
    UNET.apply({'params': params}, x, t)
  with pytest.raises(UsageError, match='without labels y'):
    dataclasses.replace(UNET, num_classes=None).apply({'params': params}, x, t, y)
