"""Statistics files: exact there and back, readable by the published evaluator, in one pass."""

import numpy as np
import pytest

from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError
from adm_jax.evaluation import frechet, reference_statistics
from adm_jax.evaluation.features import Extractor
from adm_jax.evaluation.inception import Features

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)


def vectors(images):
  return images.reshape(len(images), -1)[:, :5].astype(np.float32)


EXTRACTOR = Extractor('pixels', '0123456789abcdef',
                      lambda images: Features(vectors(images), 2 * vectors(images)[:, :3]))


def random_moments(dim):
  return frechet.moments(RNG.normal(size=(20, dim)))


def test_ours_come_back_exactly(tmp_path):
  wanted = reference_statistics.Statistics(random_moments(7), random_moments(5), 123, 'a b')
  reference_statistics.write(tmp_path / 'a.npz', wanted)
  got = reference_statistics.read(tmp_path / 'a.npz')
  for ours, theirs in zip(got.pool + got.spatial, wanted.pool + wanted.spatial):
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype
  assert (got.count, got.extractor) == (123, 'a b')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_published_files_come_back_exactly(tmp_path, save):
  pool, spatial = random_moments(6), random_moments(4)
  mean = pool.mean.astype(np.float32)  # as the reference stores it
  save(tmp_path / 'a.npz', arr_0=IMAGES, mu=mean, sigma=pool.covariance, mu_s=spatial.mean,
       sigma_s=spatial.covariance)
  got = reference_statistics.read(tmp_path / 'a.npz')
  np.testing.assert_array_equal(got.pool.mean, mean)
  np.testing.assert_array_equal(got.pool.covariance, pool.covariance)
  np.testing.assert_array_equal(got.spatial.covariance, spatial.covariance)
  assert (got.count, got.extractor) == (None, '')


def test_a_data_set_is_measured_in_one_pass(tmp_path):
  path = tmp_path / 'a.npz'
  images = ArraySource('x', IMAGES)
  written = reference_statistics.measure(path, EXTRACTOR, images, keep=20, batch_size=8)
  # The keys and types that the published evaluator reads.
  with np.load(path, allow_pickle=False) as file:
    np.testing.assert_array_equal(file['arr_0'], IMAGES[np.arange(20) * 50 // 20])
    np.testing.assert_allclose(file['mu'], vectors(IMAGES).mean(axis=0, dtype=np.float64),
                               rtol=1e-12)
    np.testing.assert_allclose(file['sigma'], np.cov(vectors(IMAGES), rowvar=False), rtol=1e-9)
    np.testing.assert_array_equal(file['mu_s'], 2 * file['mu'][:3])
    assert file['sigma_s'].shape == (3, 3)
  got = reference_statistics.read(path)
  np.testing.assert_array_equal(got.pool.covariance, written.pool.covariance)
  assert (got.count, got.extractor) == (50, 'pixels 0123456789abcdef')


class Streamed(ArraySource):
  """Is read in order, and counts the images that are taken."""
  taken = 0

  def stream(self, size):
    for i in range(0, len(self), size):
      part = self.images[i:i + size]
      Streamed.taken += len(part)
      yield part


def test_a_stream_is_read_once_for_the_same_bytes(tmp_path):
  shown = []
  for name, kind in (('indexed', ArraySource), ('streamed', Streamed)):
    reference_statistics.measure(tmp_path / f'{name}.npz', EXTRACTOR, kind('x', IMAGES), keep=20,
                                 batch_size=8, advance=shown.append)
  assert Streamed.taken == 50 and sum(shown) == 2 * 50
  assert (tmp_path / 'indexed.npz').read_bytes() == (tmp_path / 'streamed.npz').read_bytes()


def test_a_file_of_images_alone_has_none(tmp_path):
  np.savez(tmp_path / 'a.npz', IMAGES)
  assert reference_statistics.read(tmp_path / 'a.npz') is None


@pytest.mark.parametrize('changes, message', [
    ({'mu': np.full(4, np.nan)}, 'NaN'), ({'sigma': np.eye(3)}, r'\(D, D\)'),
    ({'sigma': None}, 'has no array sigma'), ({'mu': np.array([None])}, 'unpickling')])
def test_moments_that_are_none_are_one_line(tmp_path, changes, message):
  arrays = {'mu': np.zeros(4), 'sigma': np.eye(4)} | changes
  np.savez(tmp_path / 'a.npz', **{k: v for k, v in arrays.items() if v is not None})
  with pytest.raises(UsageError, match=message):
    reference_statistics.read(tmp_path / 'a.npz')


def test_one_image_or_nan_leaves_no_file(tmp_path):
  nan = Extractor('nan', '', lambda images: Features(np.full((len(images), 2), np.nan)))
  for extractor, images in ((EXTRACTOR, IMAGES[:1]), (nan, IMAGES)):
    with pytest.raises(UsageError):
      reference_statistics.measure(tmp_path / 'a.npz', extractor, ArraySource('x', images))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('changed, match', [
    ({'count': np.arange(3)}, 'count is int64'), ({'count': np.float64('nan')}, 'count is float64'),
    ({'extractor': np.asarray(7)}, 'extractor is int64'),
    ({'mu': np.array(['a'] * 4)}, 'moments are numbers')])
def test_statistics_of_the_wrong_kind_are_refused(tmp_path, changed, match):
  np.savez(tmp_path / 'a.npz', **{'mu': np.zeros(4), 'sigma': np.eye(4)} | changed)
  with pytest.raises(UsageError, match=match):
    reference_statistics.read(tmp_path / 'a.npz')
