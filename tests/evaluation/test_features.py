"""Extractors: padded batches, other networks by name, and what is refused."""

import dataclasses
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulated_devices
import tiny
from golden_networks import rule_params

from adm_jax import config as config_lib
from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError
from adm_jax.evaluation import features
from adm_jax.evaluation.features import Extractor, extract
from adm_jax.evaluation.inception import Features
from adm_jax.io.pixels import to_float
from adm_jax.models import Classifier, Judge
from adm_jax.networks import Network
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion
from adm_jax.weights import folders

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
STREAM = ArraySource('x', IMAGES)


def test_every_image_counts_and_the_extractor_sees_one_size():
  seen = []
  def function(images):
    seen.append(images.shape)
    flat = images.reshape(len(images), -1).astype(np.float32)
    return Features(flat, logits=flat[:, :3])
  got = extract(Extractor('x', '', function), STREAM, batch_size=4)
  np.testing.assert_array_equal(got.pool, IMAGES.reshape(10, -1))
  np.testing.assert_array_equal(got.logits, IMAGES.reshape(10, -1)[:, :3])
  assert got.spatial is None and got.pool.dtype == np.float32
  assert set(seen) == {(4, 8, 8, 1)} and len(seen) == 3


@pytest.mark.parametrize('answer, message', [
    (lambda n: np.full((n, 2), np.nan), 'NaN'), (lambda n: np.zeros((n, 2, 2)), 'one vector'),
    (lambda n: np.zeros(n), 'one vector')])
def test_answers_that_are_no_features_are_refused(answer, message):
  with pytest.raises(UsageError, match=message):
    extract(Extractor('bad', '', lambda images: Features(answer(len(images)))), STREAM)


def test_no_images_are_refused():
  with pytest.raises(UsageError, match='no images'):
    extract(Extractor('x', '', None), ArraySource('none', IMAGES[:0]))


def test_a_users_function_is_an_extractor(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('def half(images):\n  return images.reshape(len(images), -1) / 2\n')
  extractor = features.by_name(f'{path}:half')
  np.testing.assert_array_equal(extract(extractor, STREAM).pool, IMAGES.reshape(10, -1) / 2)
  assert extractor.name == 'mine.py:half' and not extractor.published
  path.write_text('def half(images):\n  return images.reshape(len(images), -1) / 3\n')
  assert features.by_name(f'{path}:half').hash != extractor.hash


@pytest.mark.parametrize('text, name, message', [
    ('x = 1', 'f', "no function 'f'"), ('x = 1', 'x', "no function 'x'"),
    ('1 / 0', 'f', 'ZeroDivisionError'),
    ('def f(images):\n  raise KeyError("no")', 'f', 'fails on images')])
def test_a_users_mistake_is_one_line(tmp_path, text, name, message):
  (tmp_path / 'mine.py').write_text(text)
  with pytest.raises(UsageError, match=message) as error:
    extract(features.by_name(f'{tmp_path / "mine.py"}:{name}'), STREAM)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['absent', 'absent.py:f'])
def test_an_unknown_extractor_is_one_line(name):
  with pytest.raises(UsageError, match='there is no'):
    features.by_name(name)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Of a classifier that was never trained."""
  folder = tmp_path_factory.mktemp('classifier') / 'weights'
  network = tiny.classifier_config().task.network
  folders.save(folder, network, rule_params(config_lib.build(network).module))
  return folder


def test_a_classifier_gives_what_its_last_layer_sees(workdir):
  extractor = features.by_name(str(workdir))
  got = extract(extractor, STREAM, batch_size=4)
  trained = folders.load(workdir)
  out = trained.params['pool']['out']
  logits = trained.network.module.apply({'params': trained.params}, to_float(IMAGES), jnp.zeros(10))
  np.testing.assert_allclose(got.pool @ out['kernel'] + out['bias'][None], logits, atol=1e-4)
  assert not extractor.published and len(extractor.hash) == 16


@pytest.mark.parametrize('pool', ['adaptive', 'spatial', 'spatial_v2'])
def test_every_pool_has_a_last_layer(workdir, pool):
  trained = folders.load(workdir)
  model = dataclasses.replace(trained.network.module, pool=pool, parent=None)
  assert isinstance(model, Classifier)
  params = rule_params(model)
  x, t = to_float(IMAGES[:2]), jnp.zeros(2)
  got = features.last_layer(model, params, x, t)
  out = params['out']
  kernel = out['kernel'].reshape(-1, 10)
  logits = model.apply({'params': params}, x, t)
  np.testing.assert_allclose(got.pool @ kernel + out['bias'][None], logits, atol=1e-4)
  np.testing.assert_array_equal(got.logits, logits)


class _Own(nn.Module):
  """A user's classifier, whose last layer has any name."""
  last: str

  @nn.compact
  def __call__(self, x, t):
    return nn.Dense(10, name=self.last)(nn.relu(nn.Dense(3)(x.reshape(len(x), -1))))


def _trained(module) -> folders.Trained:
  process = Diffusion(schedules.linear(num_steps=1))
  network = Network(module, process, (8, 8, 1), num_classes=10, classifies=True)
  return folders.Trained(network, network.init(jax.random.key(0)))


@pytest.mark.parametrize('module, width', [
    (Judge(num_classes=10, channels=(4, 8), features=6), 6), (_Own('out'), 3)])
def test_any_classifier_whose_last_layer_is_out_gives_features_and_logits(module, width):
  trained = _trained(module)
  got = extract(features.of_classifier(trained, 'mine'), STREAM)
  out = trained.params['out']
  assert got.pool.shape == (10, width) and (got.pool >= 0).all() and got.pool.any()
  np.testing.assert_allclose(got.pool @ out['kernel'] + out['bias'][None], got.logits, atol=1e-5)


def test_a_classifier_without_a_layer_out_is_told_to_have_one():
  with pytest.raises(UsageError, match='_Own has no layer called out') as error:
    extract(features.of_classifier(_trained(_Own('head')), 'mine'), STREAM)
  assert '\n' not in str(error.value)


def test_what_makes_images_gives_no_features():
  with pytest.raises(UsageError, match='UNet, not a classifier'):
    features.by_name('fashion')


def test_images_that_the_classifier_cannot_see_are_one_line(workdir):
  with pytest.raises(UsageError, match=r'\(4, 4, 3\)'):
    extract(features.by_name(str(workdir)),
            ArraySource('x', np.zeros((3, 4, 4, 3), np.uint8)))


def test_batches_are_split_over_all_devices():
  """On 3 devices, a batch of 4 is rounded up to 6, and the features are the same."""
  code = """
import jax, numpy as np
from adm_jax.data.sources import ArraySource
from adm_jax.evaluation import features
from adm_jax.evaluation.inception import Features
placed = []
def function(params, images):
  jax.debug.inspect_array_sharding(images, callback=placed.append)
  return Features(images.reshape(len(images), -1) * params)
extractor = features.Extractor('x', '', features.over_devices(function, np.float32(2)))
images = np.arange(80, dtype=np.uint8).reshape(20, 2, 2, 1)
got = features.extract(extractor, ArraySource('x', images), batch_size=4)
np.testing.assert_array_equal(got.pool, 2.0 * images.reshape(20, -1))
assert jax.device_count() == 3 and placed[0].shard_shape((6, 2, 2, 1)) == (2, 2, 2, 1)
"""
  environment = os.environ | {'XLA_FLAGS': simulated_devices.flags(3),
                              'JAX_PLATFORMS': 'cpu'}
  result = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                          text=True)
  assert result.returncode == 0, result.stderr
