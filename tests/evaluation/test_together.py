"""On any number of processes, every measured number is the same, to the last digit."""

import dataclasses

import numpy as np
import pytest
import tiny_models
from processes import together

from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError
from adm_jax.evaluation import kernel_distance, nll, precision_recall, reference_statistics, report
from adm_jax.evaluation.features import Extractor
from adm_jax.evaluation.inception import Features
from adm_jax.io import meetings, progress
from adm_jax.process.diffusion import respaced
from adm_jax.weights import folders

RNG = np.random.default_rng(0)
REAL, SAMPLES = (ArraySource(name, RNG.integers(0, high, (n, 8, 8, 3), np.uint8))
                 for name, high, n in (('real', 256, 200), ('samples', 200, 150)))


def _features(images):
  """Of every kind, and not linear."""
  flat = images.reshape(len(images), -1).astype(np.float32) / 255
  return Features(np.sin(flat[:, :7] * 5), flat[:, 7:12] ** 2, flat[:, 12:20] * 9)


EXTRACTOR = Extractor('of pixels', '0123', _features)


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Blocks so small that every process has several."""
  monkeypatch.setattr(meetings, '_PAUSE', 0.01)
  monkeypatch.setattr(precision_recall, '_BLOCK', 50)
  monkeypatch.setattr(precision_recall, '_REFERENCE_BLOCK', 50)
  monkeypatch.setattr(kernel_distance, '_BLOCK', 50)


def _evaluated(folder, count, distances='float32', samples=SAMPLES):
  return together(folder, count, lambda meeting: report.evaluate(
      report.ImageSet('real', REAL), report.ImageSet('samples', samples), EXTRACTOR,
      bar=progress.no_bar, distances=distances, batch_size=8, meeting=meeting))


@pytest.mark.parametrize('distances', ['float32', 'float16'])
def test_an_evaluation(tmp_path, distances):
  alone, = _evaluated(tmp_path, 1, distances)
  assert {value.key for value in alone.values} == {
      'class_score', 'frechet_distance', 'spatial_frechet_distance', 'precision', 'recall',
      'kernel_distance'}
  assert not np.isnan([value.value for value in alone.values]).any()
  for count in (2, 21):  # of 19 batches of samples
    first, *others = _evaluated(tmp_path, count, distances)
    assert first == alone and others == [None] * (count - 1)


def test_a_feature_that_is_not_finite_ends_all(tmp_path):
  """On whichever process it is seen."""
  def broken(images):
    found = _features(images)
    return dataclasses.replace(found, pool=np.where(images[:, :1, 0, 0] == 7, np.nan, found.pool))
  images = np.full((40, 8, 8, 3), 8, np.uint8)
  images[35] = 7
  first, second = together(tmp_path, 2, lambda meeting: report.evaluate(
      report.ImageSet('real', REAL), report.ImageSet('samples', ArraySource('bad', images)),
      dataclasses.replace(EXTRACTOR, function=broken), bar=progress.no_bar, batch_size=8,
      meeting=meeting))
  assert isinstance(first, UsageError) and 'process 1 refused' in str(first)
  assert isinstance(second, UsageError) and 'NaN or infinity' in str(second)


def test_a_statistics_file(tmp_path):
  files = []
  for count in (1, 2, 4):
    path = tmp_path / f'{count}.npz'
    first, *others = together(tmp_path, count, lambda meeting: reference_statistics.measure(
        path, EXTRACTOR, REAL, keep=60, batch_size=3, meeting=meeting))
    assert first.count == 200 and others == [None] * (count - 1)
    files.append(path.read_bytes())
  assert files[0] == files[1] == files[2]
  with np.load(tmp_path / '1.npz') as file:
    np.testing.assert_array_equal(file['arr_0'], REAL.images[np.arange(60) * 200 // 60])
    np.testing.assert_allclose(file['mu'], _features(REAL.images).pool.mean(axis=0), rtol=1e-6)


def test_bits_per_dimension(tmp_path):
  trained = folders.load(tiny_models.unet(tmp_path / 'unet'))
  images = REAL.images[:13]
  def read(only):
    for i in range(only.start, only.stop, 2):
      index = np.arange(i, min(i + 2, only.stop))
      yield nll.Batch(images[index], None, index)

  def measured(meeting):
    return nll.measure(trained.network, respaced(trained.network.diffusion, '3'), trained.params,
                       read, num=13, batch_size=2, seed=0, meeting=meeting)
  alone, = together(tmp_path, 1, measured)
  assert alone.count == 13 and np.isfinite(alone.total)
  first, *others = together(tmp_path, 3, measured)
  assert others == [None] * 2
  for field in dataclasses.fields(alone):
    np.testing.assert_array_equal(getattr(first, field.name), getattr(alone, field.name))
