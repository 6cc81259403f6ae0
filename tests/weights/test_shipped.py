"""Models that come with the package: they are whole, small, and make images."""

import pathlib
import shutil

import numpy as np
import pytest

from adm_jax.cli.main import main
from adm_jax.data.fashion_mnist import fashion_mnist
from adm_jax.data.sources import ArraySource
from adm_jax.errors import UsageError
from adm_jax.evaluation import features
from adm_jax.sampling import pipeline
from adm_jax.sampling.guidance import ClassifierFree
from adm_jax.weights import pretrained, shipped


def test_all_of_them_are_small():
  sizes = {name: sum(path.stat().st_size for path in shipped.folder(name).iterdir())
           for name in shipped.names()}
  assert 'fashion' in sizes
  assert all(size <= 10e6 for size in sizes.values()) and sum(sizes.values()) <= 20e6


@pytest.mark.parametrize('name', shipped.names())
def test_a_shipped_model_says_what_it_is(name, capsys):
  assert main(['models', name]) == 0
  card = capsys.readouterr().out
  for word in ('Data', 'License', 'Limits', 'images seen'):
    assert word in card
  assert main(['models']) == 0
  assert f'{name} ' in capsys.readouterr().out


@pytest.mark.parametrize('name', shipped.names())
def test_a_shipped_model_is_whole(name):
  shipped.check(shipped.folder(name))


def test_a_shipped_model_has_no_other_weights(tmp_path, capsys):
  with pytest.raises(UsageError, match='one set of weights'):
    pretrained.load('fashion', weights=tmp_path / 'mine.pt')
  assert main(['sample', '--weights', 'mine.pt', '--out', str(tmp_path / 'out')]) == 2
  assert '--weights is of a model: name it with --model' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('file', ['weights.safetensors', 'config.json', 'classes.json', None])
def test_a_damaged_file_of_a_shipped_model_is_named_when_it_is_loaded(tmp_path, monkeypatch, file):
  copy = shutil.copytree(shipped.folder('fashion'), tmp_path / 'fashion')
  monkeypatch.setattr(shipped, '_root', lambda: tmp_path)
  if file is None:
    (copy / 'sha256.txt').unlink()
  else:
    whole = bytearray((copy / file).read_bytes())
    whole[-5] ^= 1
    (copy / file).write_bytes(whole)
  with pytest.raises(UsageError, match=f'{file or "sha256.txt"} is .*install adm_jax') as error:
    pretrained.load('fashion')
  assert '\n' not in str(error.value)
  shipped.write_checksums(copy)
  shipped.check(copy)


def test_fashion_samples_by_the_names_of_its_classes(tmp_path):
  trained = pretrained.load('fashion')
  assert trained.network.image_shape == (28, 28, 1) and len(trained.class_names) == 10
  assert {leaf.dtype for leaf in _leaves(trained.params)} == {np.dtype(np.float32)}
  assert main(['sample', '--model', 'fashion', '--classes', 'sneaker,bag', '--respacing', '2',
               '--out', str(tmp_path / 'out')]) == 0
  with np.load(tmp_path / 'out' / 'samples.npz') as arrays:
    np.testing.assert_array_equal(arrays['arr_1'], [7, 8])


def test_without_a_model_one_that_comes_with_the_package_is_sampled(tmp_path, capsys):
  """As its folder says is best, unless options say otherwise."""
  assert main(['sample', '--classes', 'bag', '--respacing', '2', '--out', str(tmp_path / 'a')]) == 0
  assert 'model: --model fashion --cfg-scale 2\n' in capsys.readouterr().out
  assert main(['sample', '--model', 'fashion', '--cfg-scale', '2', '--classes', 'bag',
               '--respacing', '2', '--out', str(tmp_path / 'b')]) == 0
  assert 'model: ' not in capsys.readouterr().out
  np.testing.assert_array_equal(*(np.load(tmp_path / name / 'samples.npz')['arr_0']
                                  for name in 'ab'))


@pytest.mark.parametrize('name', shipped.that_sample())
def test_what_is_best_is_something_that_the_model_can(name):
  best = shipped.sampling(name)
  adm = pipeline.load(name, guidance=(ClassifierFree(best.cfg_scale),), steps=best.respacing)
  assert adm.sampler.num_steps == int(best.respacing)


def test_a_class_that_is_misspelt_is_answered_with_the_nearest(tmp_path, capsys):
  assert main(['sample', '--classes', 'sneakr', '--out', str(tmp_path / 'a')]) == 2
  assert 'did you mean sneaker (7)?' in capsys.readouterr().err


def test_images_of_another_size_than_a_shipped_models_are_refused(tmp_path, capsys):
  assert main(['train', '--config', 'digits_unet', '--workdir', str(tmp_path / 'run'),
               '--init-from', 'fashion']) == 2
  error = capsys.readouterr().err
  assert 'fashion' in error and error.count('\n') == 1


def test_fashion_is_guided_by_its_own_unconditional_prediction():
  """In a few steps, images are dark at the edges, as the photographs are, and bright inside."""
  adm = pipeline.load('fashion', guidance=(ClassifierFree(2.0),), steps='25')
  images = adm(labels=[1, 1, 7, 7], seed=0).astype(float)
  edge = np.concatenate([images[:, 0].ravel(), images[:, -1].ravel()])
  assert images[:, 8:20, 10:18].mean() > 4 * edge.mean()


@pytest.mark.skipif(not pathlib.Path('/usr/share/datasets/fashion-mnist').exists(),
                    reason='apt install dataset-fashion-mnist')
def test_the_judge_of_fashion_is_right_on_real_images():
  """On the first 500 that it was not trained on, which is within 4 % of all 10,000."""
  test = fashion_mnist('test')
  some = ArraySource('some', test.images[:500])
  seen = features.extract(features.by_name('fashion-judge'), some)
  assert (seen.logits.argmax(axis=1) == test.labels[:500]).mean() > 0.9
  assert pretrained.load('fashion-judge').class_names == test.class_names


def _leaves(tree):
  import jax
  return jax.tree.leaves(tree)
