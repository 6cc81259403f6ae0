"""Reports: every number says of what it is, and none is given where one cannot be."""

import contextlib
import dataclasses

import numpy as np
import pytest

from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError
from adm_jax.evaluation import frechet, reference_statistics, report
from adm_jax.evaluation.features import Extractor
from adm_jax.evaluation.inception import Features
from adm_jax.evaluation.precision_recall import precision_recall
from adm_jax.evaluation.reference_statistics import Statistics
from adm_jax.evaluation.report import ImageSet

RNG = np.random.default_rng(0)
REAL, SAMPLES = (RNG.integers(0, high, (n, 4, 4, 3), dtype=np.uint8)
                 for high, n in ((256, 60), (200, 40)))


def vectors(images):
  return images.reshape(len(images), -1)[:, :6].astype(np.float32) / 255


INCEPTION = Extractor('inception-2015', 'a' * 16,
                      lambda x: Features(vectors(x), vectors(x)[:, :3], 5 * vectors(x)[:, :4]),
                      published=True)
OTHER = Extractor('mine.py:f', 'b' * 16, lambda x: Features(vectors(x)))


@contextlib.contextmanager
def bar(total, title):
  yield lambda count: None


def images(name, array):
  return ImageSet(name, ArraySource(name, array))


def measure(reference=images('REF', REAL), samples=images('SAM', SAMPLES), extractor=INCEPTION,
            **kwargs):
  return report.evaluate(reference, samples, extractor, bar=bar, batch_size=16, **kwargs)


def moments(array, extractor=INCEPTION):
  found = extractor.function(array)
  return Statistics(frechet.moments(found.pool),
                    None if found.spatial is None else frechet.moments(found.spatial),
                    extractor=reference_statistics.signature(extractor))


def test_fewer_than_50_000_samples_are_labeled_and_have_error_bars():
  got = measure()
  assert [value.label for value in got.values] == [
      'Inception Score', 'FID-40', 'sFID-40', 'Precision', 'Recall', 'KID']
  assert [value.error is not None for value in got.values] == [False, True, True, False, False,
                                                               True]
  assert 'n = 40' in got.title and 'REF' in got.title and 'SAM' in got.title
  assert 'inception-2015, hash ' + 'a' * 16 in got.text()
  assert 'FID-40: ' in got.text() and '\nFID: ' not in got.text()


def test_50_000_samples_print_the_published_five_lines(monkeypatch):
  monkeypatch.setattr(report, 'FULL', 40)
  got = measure()
  lines = got.text().splitlines()[1:6]
  assert [line.partition(': ')[0] for line in lines] == [
      'Inception Score', 'FID', 'sFID', 'Precision', 'Recall']
  assert [float(line.partition(': ')[2]) for line in lines] == [
      value.value for value in got.values[:5]]


def test_the_numbers_are_those_of_the_metrics():
  values = {value.key: value.value for value in measure().values}
  assert values['fid'] == pytest.approx(frechet.frechet_distance(
      frechet.moments(vectors(REAL)), frechet.moments(vectors(SAMPLES))))
  assert (values['precision'], values['recall']) == precision_recall(vectors(REAL),
                                                                     vectors(SAMPLES))


def test_statistics_stand_for_the_images_they_came_with():
  stated = moments(RNG.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8))
  got = measure(dataclasses.replace(images('REF', REAL), statistics=stated))
  wanted = frechet.frechet_distance(stated.pool, frechet.moments(vectors(SAMPLES)))
  assert {v.key: v.value for v in got.values}['fid'] == pytest.approx(wanted)
  alone = measure(ImageSet('REF', None, stated))
  assert [value.key for value in alone.values] == ['inception_score', 'fid', 'sfid']
  assert 'holds no images' in alone.text()


def test_another_extractor_is_named_in_the_title_and_nothing_is_called_fid():
  got = measure(extractor=OTHER)
  assert got.title.startswith('With mine.py:f, not the published Inception network')
  assert [value.label for value in got.values] == ['Frechet distance', 'Precision', 'Recall',
                                                   'Kernel distance']
  assert 'FID' not in got.text() and 'KID' not in got.text()
  assert not {'fid', 'sfid', 'kid'} & set(got.as_json()['values'])
  unverified = measure(extractor=dataclasses.replace(INCEPTION, published=False))
  assert 'FID' not in unverified.text() and 'Inception Score' not in unverified.text()


def test_json_has_every_number_and_what_it_is_of():
  plain = measure().as_json()
  assert plain['n'] == 40 and plain['extractor_hash'] == 'a' * 16
  assert plain['reference'] == 'REF' and plain['reference_images'] == 60
  assert plain['values']['fid'].keys() == {'label', 'value', 'error'}


def test_published_statistics_of_inception_do_not_serve_another_extractor():
  """Its images do, if there are any."""
  published = dataclasses.replace(moments(REAL), extractor='')
  got = measure(dataclasses.replace(images('REF', REAL), statistics=published), extractor=OTHER)
  assert got.values == measure(extractor=OTHER).values
  with pytest.raises(UsageError, match='measured with Inception'):
    measure(ImageSet('REF', None, published), extractor=OTHER)


def refused():
  """(reference, samples, extractor, message)."""
  real, samples = images('REF', REAL), images('SAM', SAMPLES)
  other = dataclasses.replace(real, statistics=moments(REAL, OTHER))
  mine = dataclasses.replace(samples, statistics=moments(SAMPLES))
  yield pytest.param(other, samples, INCEPTION, 'REF was measured with mine.py:f', id='reference')
  yield pytest.param(other, mine, OTHER, 'measure both with one extractor', id='two')
  yield pytest.param(real, images('SAM', SAMPLES[:1]), INCEPTION, 'SAM has 1 image:', id='one')
  yield pytest.param(images('REF', REAL[:1]), samples, INCEPTION, 'REF has 1 image:', id='one real')
  yield pytest.param(real, ImageSet('SAM', None, moments(SAMPLES)), INCEPTION, 'no arr_0', id='no')
  narrow = dataclasses.replace(moments(REAL), pool=frechet.moments(vectors(REAL)[:, :2]))
  yield pytest.param(dataclasses.replace(real, statistics=narrow), samples, INCEPTION,
                     'statistics of 2 features', id='narrow')
  nan = dataclasses.replace(OTHER, function=lambda x: Features(np.full((len(x), 3), np.nan)))
  yield pytest.param(real, samples, nan, 'NaN', id='nan')


@pytest.mark.parametrize('reference, samples, extractor, message', list(refused()))
def test_what_cannot_be_compared_is_one_line(reference, samples, extractor, message):
  with pytest.raises(UsageError, match=message) as error:
    measure(reference, samples, extractor)
  assert '\n' not in str(error.value)
