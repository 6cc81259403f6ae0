"""Sweeps over scales: each point once, killed or not, and the numbers are those of its samples."""

import dataclasses

import numpy as np
import pytest
import tiny_models

from adm_jax.data.sources import ArraySource, UnreadableImage
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, frechet, sweep, sweep_pages
from adm_jax.evaluation.precision_recall import precision_recall
from adm_jax.sampling import pipeline
from adm_jax.sampling.pipeline import Pipeline
from adm_jax.weights import folders

NUM = 12
NAMES = tuple(map(str, range(tiny_models.NUM_CLASSES)))


def real(name: str, count: int, seed: int) -> ArraySource:
  images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
  return ArraySource(name, images, np.arange(count, dtype=np.int32) % len(NAMES), NAMES)


REFERENCE, TRAINING = real('held out', 30, 0), real('training', 40, 1)


class Damaged(ArraySource):
  """Holds no image that can be read."""

  def __getitem__(self, index):
    raise UnreadableImage(f'{index}.png: it is damaged')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A model, a classifier that guides it, a judge."""
  folder = tmp_path_factory.mktemp('models')
  tiny_models.unet(folder / 'unet', tiny_models.NUM_CLASSES, with_null_label=True)
  tiny_models.classifier(folder / 'guide')
  tiny_models.judge(folder / 'judge')
  return folder


def asked(folder, scales=(1.0, 2.0, 4.0), **changes) -> sweep.Sweep:
  return dataclasses.replace(sweep.Sweep(
      folder / 'unet', (sweep.classifier_free(scales),), str(folder / 'judge'), REFERENCE,
      TRAINING, NUM, options=dict(steps='2')), **changes)


@pytest.fixture(scope='module')
def whole(folder, tmp_path_factory):
  """(what an uninterrupted sweep found, its folder)."""
  out = tmp_path_factory.mktemp('whole')
  return sweep.run(asked(folder), out), out


def no_samples(self, *args, **kwargs):
  raise AssertionError('nothing is to be sampled')


def test_the_numbers_of_a_point_are_those_of_its_samples(folder, whole):
  found, out = whole
  extractor = features.by_name(str(folder / 'judge'))
  held_out = features.extract(extractor, REFERENCE)
  assert found.accuracy == (held_out.logits.argmax(axis=1) == REFERENCE.labels).mean()
  assert [point.scale for point in found.points] == [1, 2, 4]
  for point in found.points:
    with np.load(out / 'points' / f'classifier-free_{point.scale:g}' / 'samples.npz') as file:
      images, labels = file['arr_0'], file['arr_1']
    np.testing.assert_array_equal(labels, np.arange(NUM) % len(NAMES))
    seen = features.extract(extractor, ArraySource('samples', images))
    assert point.measures == sweep.Measures(
        NUM, (seen.logits.argmax(axis=1) == labels).mean(),
        pytest.approx(frechet.frechet_distance(*(frechet.moments(x.pool)
                                                 for x in (held_out, seen))), rel=1e-4),
        *precision_recall(held_out.pool, seen.pool))
  assert len({point.measures.frechet_distance for point in found.points}) == 3


def test_training_images_are_measured_like_samples(folder, whole):
  found, _ = whole
  assert [measures.num for measures in found.training] == [NUM, 30]
  extractor = features.by_name(str(folder / 'judge'))
  some = TRAINING.images[np.arange(NUM) * 40 // NUM]
  wanted = frechet.frechet_distance(*(
      frechet.moments(features.extract(extractor, source).pool)
      for source in (REFERENCE, ArraySource('some', some))))
  assert found.training[0].frechet_distance == pytest.approx(wanted, rel=1e-4)


def test_training_images_that_are_fewer_than_samples_and_reference_are_one_row(folder, whole):
  _, out = whole
  found = sweep.run(asked(folder, training=real('few', 10, 1)), out)
  assert [measures.num for measures in found.training] == [10]
  sweep.run(asked(folder), out)


def test_what_is_there_is_neither_sampled_nor_measured_again(folder, whole, monkeypatch):
  found, out = whole
  monkeypatch.setattr(Pipeline, 'batches', no_samples)
  monkeypatch.setattr(features, 'extract', no_samples)
  assert sweep.run(asked(folder), out) == found
  few = sweep.run(asked(folder, (2.0,), training=None), out)
  assert few.points == found.points[1:2]


def test_a_sweep_that_was_stopped_goes_on_and_finds_the_same(folder, whole, tmp_path, monkeypatch):
  def stop(point):
    raise KeyboardInterrupt
  with pytest.raises(KeyboardInterrupt):
    sweep.run(asked(folder), tmp_path, told=stop)
  sampled, batches = [], Pipeline.batches
  monkeypatch.setattr(Pipeline, 'batches', lambda self, *args, **kwargs: (
      sampled.append(self.guidance[0].scale) or batches(self, *args, **kwargs)))
  assert sweep.run(asked(folder), tmp_path) == whole[0]
  assert sampled == [2, 4]


def test_measures_are_made_anew_for_another_judge_or_other_samples(folder, whole, tmp_path):
  found, out = whole
  tiny_models.judge(tmp_path / 'judge')
  same = sweep.run(asked(folder, judge=str(tmp_path / 'judge')), out)
  assert same.points == found.points  # the same weights elsewhere
  other = sweep.run(asked(folder, reference=real('other', 30, 2)), out)
  assert other.points[0].measures.frechet_distance != found.points[0].measures.frechet_distance
  with pytest.raises(UsageError, match='another job'):
    sweep.run(asked(folder, seed=1), out)
  assert sweep.run(asked(folder), out) == found


def test_networks_are_loaded_once_for_all_scales_of_a_kind(folder, tmp_path, monkeypatch):
  loaded, load = [], pipeline.load
  monkeypatch.setattr(pipeline, 'load', lambda model, **kwargs: (
      loaded.append([type(value).__name__ for value in kwargs['guidance']])
      or load(model, **kwargs)))
  guide = str(folder / 'guide')
  kinds = (sweep.by_classifier(guide, (0.0, 1.0)),
           sweep.unconditional_by_classifier(guide, (0.0, 1.0)))
  found = sweep.run(asked(folder, kinds=kinds, training=None), tmp_path)
  assert loaded == [['ByClassifier'], ['ClassifierFree', 'ByClassifier']]
  assert [(point.guidance, point.scale) for point in found.points] == [
      ('classifier', 0), ('classifier', 1), ('unconditional+classifier', 0),
      ('unconditional+classifier', 1)]
  # Without a scale, what the model is told makes the only difference.
  samples = [np.load(tmp_path / 'points' / name / 'samples.npz')['arr_0']
             for name in ('classifier_0', 'unconditional+classifier_0')]
  assert (samples[0] != samples[1]).any()


def test_a_judge_of_other_classes_is_refused_before_anything_is_sampled(folder, tmp_path,
                                                                        monkeypatch):
  tiny_models.judge(tmp_path / 'judge', num_classes=7)
  monkeypatch.setattr(Pipeline, 'batches', no_samples)
  with pytest.raises(UsageError, match='7 classes, the model makes .* give a judge') as error:
    sweep.run(asked(folder, judge=str(tmp_path / 'judge')), tmp_path / 'out')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('which, source', [('reference', REFERENCE), ('training', TRAINING)])
def test_images_of_other_classes_than_the_judges_are_refused(folder, tmp_path, monkeypatch, which,
                                                             source):
  """By their names, where both have names; what is only numbered is trusted."""
  tiny_models.judge(tmp_path / 'judge')
  folders.write_class_names(tmp_path / 'judge', tuple('abcde'))
  monkeypatch.setattr(Pipeline, 'batches', no_samples)
  for names, error, message in ((tuple('abdce'), UsageError, f'{source.name} has other classes'),
                                (tuple('abcde'), AssertionError, 'sampled'),
                                (NAMES, AssertionError, 'sampled')):
    images = dataclasses.replace(source, class_names=names)
    with pytest.raises(error, match=message):
      sweep.run(asked(folder, judge=str(tmp_path / 'judge'), **{which: images}), tmp_path / 'out')


@pytest.mark.parametrize('changes, message', [
    ({'num': 3}, 'num=3'), ({'kinds': ()}, 'no kind'),
    ({'reference': real('few', 3, 0)}, 'few has 3 images'),
    ({'reference': Damaged('hurt', REFERENCE.images, REFERENCE.labels, NAMES)},
     '0.png: it is damaged: remove it'),
    ({'reference': ArraySource('bare', REFERENCE.images)}, 'bare has no labels')])
def test_a_sweep_that_cannot_be_is_refused_in_one_line(folder, tmp_path, changes, message):
  with pytest.raises(UsageError, match=message) as error:
    sweep.run(asked(folder, **changes), tmp_path)
  assert '\n' not in str(error.value)


def test_scales_that_are_given_twice_are_refused():
  with pytest.raises(UsageError, match='give each once'):
    sweep.classifier_free((1.0, 2.0, 1.0))


def test_what_was_found_is_read_again(whole):
  found, out = whole
  assert sweep.from_json((out / 'sweep.json').read_text()) == found


def test_samples_that_are_copies_are_found(folder, whole, tmp_path):
  """Among the training images are the samples themselves."""
  found, out = whole
  name = found.copies.point
  with np.load(out / 'points' / name / 'samples.npz') as file:
    images = np.concatenate([TRAINING.images, file['arr_0']])
  training = ArraySource('copied', images, np.zeros(len(images), np.int32), NAMES)
  copied = sweep.run(asked(folder, training=training), out).copies
  assert copied.samples < 1e-3 < found.copies.samples and copied.reference > 0.1
  wanted = np.arange(40, 40 + NUM)
  for nearest in (copied.in_pixels, copied.in_features):
    np.testing.assert_array_equal(np.array(nearest)[:, 0], wanted)
  sweep.run(asked(folder), out)


def test_the_pages_show_every_point(whole, tmp_path):
  found, out = whole
  sweep_pages.write(found, out, TRAINING)
  text = (out / 'table.md').read_text()
  for point in found.points:
    assert f'| {point.guidance} | {point.scale:g} | 12 | {point.measures.agreement:.1%} |' in text
  assert 'not FID' in text and text.count('| training images |') == 2
  assert all((out / name).stat().st_size > 1000 for name in ('curve.png', 'neighbors.png'))
  charts = sweep_pages.curve(found)
  assert [chart.lines[0].x for chart in charts] == [(1, 2, 4)] * 4
  assert charts[2].lines[0].y == tuple(point.measures.precision for point in found.points)
