"""What computes in float32 multiplies in float32, on devices whose default is coarser, too."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from adm_jax.errors import UsageError
from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.weights import openai

HIGHEST = jax.lax.Precision.HIGHEST
SMALL = dict(image_size=16, channels=32, channel_mult=(1, 2), depth=1, attention_resolutions=(8,),
             head_channels=32)
NETWORKS = [
    UNet(out_channels=6, **SMALL), UNet(out_channels=6, **SMALL, resblock_updown=False),
    UNet(out_channels=6, **SMALL, remat='blocks', num_classes=3),
    SuperRes(UNet(out_channels=6, in_channels=6, **SMALL)),
    *(Classifier(num_classes=4, pool=pool, **SMALL)
      for pool in ('attention', 'adaptive', 'spatial', 'spatial_v2'))]


def _inner(value):
  if isinstance(value, (core.Jaxpr, core.ClosedJaxpr)):
    yield getattr(value, 'jaxpr', value)
  elif isinstance(value, (list, tuple)):
    for item in value:
      yield from _inner(item)


def _products(jaxpr):
  """All convolutions and products of a program."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ('conv_general_dilated', 'dot_general'):
      yield equation
    for value in equation.params.values():
      for inner in _inner(value):
        yield from _products(inner)


def _of_a_gradient(network):
  """All of them in a forward pass and its gradients by the parameters and the image."""
  x, t = jnp.zeros((2, 16, 16, 3)), jnp.zeros(2)
  unet = getattr(network, 'unet', network)
  labels = () if getattr(unet, 'num_classes', None) is None or isinstance(unet, Classifier) else (
      jnp.zeros(2, jnp.int32),)
  low = {'low_res': jnp.zeros((2, 4, 4, 3))} if isinstance(network, SuperRes) else {}
  def loss(params, x):
    return network.apply({'params': params}, x, t, *labels, **low).sum()
  program = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(openai.abstract_params(network), x)
  return list(_products(program.jaxpr))


def _is_exact(equation):
  precision = equation.params['precision']
  return precision == HIGHEST or precision == (HIGHEST, HIGHEST)


@pytest.mark.parametrize('network', NETWORKS)
def test_a_float32_network_multiplies_in_float32(network):
  found = _of_a_gradient(network)
  names = {equation.primitive.name for equation in found}
  assert names == {'conv_general_dilated', 'dot_general'} and len(found) > 40
  assert [equation for equation in found if not _is_exact(equation)] == []


@pytest.mark.parametrize('network', [UNet(out_channels=6, dtype='bfloat16', **SMALL),
                                     Classifier(num_classes=4, dtype='bfloat16', **SMALL)])
def test_a_bfloat16_network_does_so_in_its_float32_parts_alone(network):
  found = _of_a_gradient(network)
  trunk = [equation for equation in found
           if {value.aval.dtype for value in equation.invars} == {jnp.dtype('bfloat16')}]
  rest = [equation for equation in found if equation not in trunk]
  assert len(trunk) > 20 and not any(map(_is_exact, trunk))
  assert rest and all(_is_exact(equation) for equation in rest if {
      value.aval.dtype for value in equation.invars} == {jnp.dtype('float32')})


@pytest.mark.parametrize('name', ['dtype', 'param_dtype'])
def test_float16_is_refused_in_one_line(name):
  with pytest.raises(UsageError, match=f'{name}=float16.*bfloat16') as error:
    UNet(out_channels=6, **SMALL, **{name: 'float16'})
  assert '\n' not in str(error.value)
