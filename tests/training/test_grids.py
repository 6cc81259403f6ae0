"""Pictures of networks that are told more than noise: what is enlarged, and a student's scale."""

import types

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.data.sources import ArraySource
from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, FixedSmall, V
from adm_jax.training import grids
from adm_jax.training.grids import Grid

SHAPE = (4, 4, 1)
DIFFUSION = Diffusion(schedules.linear(num_steps=40), V(), FixedSmall())


class Told(nn.Module):
  """Answers with what it is told beside the noised image."""

  @nn.compact
  def __call__(self, x, t, y=None, *, low_res=None, scale=None):
    told = (0 if y is None else y / 10) + (0 if scale is None else scale / 10)
    return self.param('one', nn.initializers.ones, ()) * jnp.broadcast_to(
        told.reshape(-1, 1, 1, 1), x.shape)


def _drawn(network, grid, source=None, params=1.0, ema=()):
  grid.check(network)
  draw = grids.drawer(grid, network, source, sharding.mesh(), seed=0)
  return draw(types.SimpleNamespace(params={'one': jnp.asarray(params)}, ema={
      rate: {'one': jnp.asarray(value)} for rate, value in ema}))


def test_the_slowest_average_draws():
  network = Network(Told(), DIFFUSION, SHAPE, scales=(0.0, 4.0))
  average = (('0.5', 0.5), ('0.9999', 1.0), ('0.99', 0.0))
  found, wanted = (_drawn(network, Grid(2, '3'), **more)[0] for more in (
      dict(params=0.0, ema=average), dict(params=1.0)))
  np.testing.assert_array_equal(found, wanted)
  assert (found != _drawn(network, Grid(2, '3'), params=0.0)[0]).any()


def test_an_upsampler_is_told_the_class_of_what_it_enlarges():
  labels = np.array([2, 2, 0, 1, 2], np.int32)
  source = ArraySource('five', np.zeros((5, *SHAPE), np.uint8), labels, ('a', 'b', 'c'))
  network = Network(Told(), DIFFUSION, SHAPE, low_res_shape=(2, 2, 1), num_classes=3)
  images, told = _drawn(network, Grid(7, '3'), source)
  np.testing.assert_array_equal(told, labels[np.arange(7) % 5])
  assert len(images) == 7


@pytest.mark.parametrize('steps', [None, (2,)])
def test_a_student_is_told_the_scale_or_the_middle_of_its_range(steps):
  network = Network(Told(), DIFFUSION, SHAPE, scales=(0.0, 4.0), steps=steps)
  images = {scale: _drawn(network, Grid(2, '3', scale))[0] for scale in (None, 2.0, 4.0)}
  np.testing.assert_array_equal(images[None], images[2.0])
  assert (images[2.0] != images[4.0]).any()


@pytest.mark.parametrize('scales, match', [
    ((0.0, 4.0), 'a scale of 5: the student was distilled for scales from 0 to 4'),
    (None, 'grid.scale=5.0: the network is no student')])
def test_a_scale_that_no_one_was_taught_is_refused(scales, match):
  with pytest.raises(UsageError, match=match):
    Grid(scale=5.0).check(Network(Told(), DIFFUSION, SHAPE, num_classes=3, scales=scales))
