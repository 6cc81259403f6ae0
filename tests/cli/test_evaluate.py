"""`adm reference` and `adm evaluate`: from files to numbers, or to one line."""

import contextlib
import gzip
import json
import pickle
import urllib.error
import urllib.request

import golden_files
import numpy as np
import pytest
import tiny
import tiny_models

from adm_jax.cli.main import main
from adm_jax.data.digits import digits
from adm_jax.data.sources import ArraySource
from adm_jax.evaluation import features, frechet, inception_weights
from adm_jax.evaluation.features import by_name
from adm_jax.io import downloads, meetings, progress
from adm_jax.weights import state_dicts

RNG = np.random.default_rng(0)
REAL, SAMPLES = (RNG.integers(0, high, (n, 8, 8, 1), dtype=np.uint8)
                 for high, n in ((256, 30), (200, 20)))
FUNCTION = 'def f(images):\n  return images.reshape(len(images), -1)[:, :5] / 255\n'
WORDS = ['--extractor', 'mine.py:f']


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('ADM_CACHE', str(tmp_path / 'cache'))
  np.savez('real.npz', REAL)
  np.savez_compressed('samples.npz', SAMPLES, np.zeros(20, np.int64))
  (tmp_path / 'mine.py').write_text(FUNCTION)
  return tmp_path


def vectors(images):
  return np.float32(images.reshape(len(images), -1)[:, :5] / 255)


@pytest.mark.parametrize('kept', [30, 0])
def test_a_reference_file_serves_for_evaluation(folder, capsys, kept):
  assert main(['reference', '--data', 'real.npz', '--out', 'ref.npz', '--images', str(kept),
               *WORDS]) == 0
  assert '30 images of real.npz' in capsys.readouterr().out
  assert main(['evaluate', 'ref.npz', 'samples.npz', '--json', *WORDS]) == 0
  got = json.loads(capsys.readouterr().out)
  wanted = frechet.frechet_distance(*(frechet.moments(vectors(x)) for x in (REAL, SAMPLES)))
  assert got['values']['frechet_distance']['value'] == pytest.approx(wanted)
  assert (got['n'], got['reference_count'], got['reference_images']) == (20, 30, kept)
  assert got['extractor'] == 'mine.py:f' and got['extractor_hash'] == by_name('mine.py:f').hash


def test_the_data_of_a_config_are_measured(folder, capsys):
  assert main(['reference', '--data', tiny.__file__, '--out', 'ref.npz', '--images', '9', *WORDS,
               '--config.data.split=held_out']) == 0
  with np.load('ref.npz') as file:
    assert file['arr_0'].shape == (9, 8, 8, 1) and file['count'] == 360
    np.testing.assert_allclose(file['mu'], vectors(digits('held_out').images).mean(0), rtol=1e-5)


def test_the_text_begins_with_the_other_extractor(folder, capsys):
  assert main(['evaluate', 'real.npz', 'samples.npz', *WORDS]) == 0
  out = capsys.readouterr().out
  assert out.startswith('With mine.py:f, not the published') and 'FID' not in out


def test_a_classifier_says_how_many_samples_it_gives_their_labels(folder, capsys):
  tiny_models.judge(folder / 'judge')
  images = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
  extractor = by_name('judge')
  given = features.extract(extractor, ArraySource('x', images)).logits.argmax(axis=1)
  labels = given.copy()
  labels[:10] = (labels[:10] + 1) % tiny_models.NUM_CLASSES
  np.savez('real.npz', images)
  for name, arrays in (('labeled', (images, labels)), ('bare', (images,)),
                       ('other', (images, labels + 1 + tiny_models.NUM_CLASSES))):
    np.savez(name, *arrays)
  (folder / 'out').mkdir()
  np.savez('out/samples.npz', images, labels)
  for path in ('labeled.npz', 'out'):
    assert main(['evaluate', 'real.npz', path, '--extractor', 'judge']) == 0
    assert 'Agreement with labels: 0.75\n' in capsys.readouterr().out
  assert main(['evaluate', 'real.npz', 'bare.npz', '--extractor', 'judge']) == 0
  assert 'Agreement' not in capsys.readouterr().out
  assert main(['evaluate', 'real.npz', 'other.npz', '--extractor', 'judge']) == 2
  assert 'knows 5 classes' in capsys.readouterr().err


def test_processes_agree_on_all_that_their_numbers_depend_on(folder, monkeypatch):
  """On another function of the same file, and on how distances are rounded."""
  (folder / 'mine.py').write_text(FUNCTION + FUNCTION.replace('f(', 'g('))
  said = []
  def meeting(folder, part, words):
    said.append(words)
    return contextlib.nullcontext(meetings.ALONE)
  monkeypatch.setattr(meetings, 'meeting', meeting)
  for words in ((), (), ('--extractor', 'mine.py:g'), ('--distances', 'float16')):
    assert main(['evaluate', 'real.npz', 'samples.npz', *WORDS, *words]) == 0
  assert said[0] == said[1] and all(words != said[0] for words in said[2:])


@pytest.fixture(scope='module')
def port(tmp_path_factory):
  """A file like the PyTorch port's, with the weights of the golden features."""
  names = json.loads(gzip.decompress(golden_files.find('inception_names.json.gz').read_bytes()))
  shapes = {tensor['torch']: tensor['torch_shape'] for tensor in names['tensors']}
  path = tmp_path_factory.mktemp('weights') / 'port.pth'
  state_dicts.write(path, golden_files.rule_weights(shapes, seed=77, gain=1.6))
  return path


def test_inception_from_a_file_gives_golden_features(folder, port):
  _, golden = golden_files.load(golden_files.find('inception_features.npz'))
  np.savez('two.npz', golden['image_32'])
  assert main(['reference', '--data', 'two.npz', '--out', 'ref.npz', '--features', str(port),
               '--batch-size', '2']) == 0
  with np.load('ref.npz') as file:
    for key, kind in (('mu', 'pool_32'), ('mu_s', 'spatial_32')):
      wanted = golden[kind].mean(axis=0)
      assert np.abs(file[key] - wanted).max() < 1e-3 * np.sqrt((wanted ** 2).mean())
    assert 'weights not verified' in str(file['extractor'])


def test_only_the_published_weights_in_float32_are_the_published_extractor(port, monkeypatch):
  assert not features.inception(port, progress.bar).published
  # A file that is the published port, by the digits in its name.
  monkeypatch.setattr(inception_weights, 'PORT_SHA256', downloads.digest(port)[:8])
  got = features.inception(port, progress.bar)
  assert got.published and got.name == 'inception-2015'
  half = features.inception(port, progress.bar, dtype='bfloat16')
  assert not half.published and 'bfloat16' in half.name


@pytest.mark.parametrize('words, message', [
    (['evaluate', 'absent.npz', 'samples.npz'], 'no file or folder absent.npz'),
    (['evaluate', 'real.npz', 'other.npz'], 'has no array arr_0'),
    (['evaluate', 'other.npz', 'samples.npz'], 'has no array arr_0'),
    (['evaluate', 'real.npz', 'floats.npz'], 'arr_0 is float32'),
    (['evaluate', 'real.npz', 'nan.npz'], 'arr_0 is float64'),
    (['evaluate', 'real.npz', 'one.npz'], '1 image:'),
    (['evaluate', 'real.npz', 'pickled.npz'], 'unpickling can run any code'),
    (['evaluate', 'real.npz', 'pickle.npz'], 'not a whole .npz'),
    (['evaluate', 'real.npz', 'samples.npz', '--features', 'wrong.pb'], 'not the published'),
    (['evaluate', 'real.npz', 'samples.npz', '--features', 'absent.pb'], 'no file absent.pb'),
    (['evaluate', 'real.npz', 'samples.npz'], 'give your copy with --features'),
    (['evaluate', 'real.npz', 'samples.npz', '--extractor', 'nan.py:f'], 'NaN'),
    (['evaluate', 'ours.npz', 'samples.npz', '--extractor', 'nan.py:f'], 'measured with mine.py:f'),
    (['evaluate', 'real.npz', 'samples.npz', '--batch-size', '0', *WORDS], 'at least 1'),
    (['evaluate', 'real.npz', 'samples.npz', '--features', 'x.pb', *WORDS], 'leave them out'),
    (['evaluate', 'real.npz', 'samples.npz', '--frob'], '--frob'),
    (['reference', '--data', 'real.npz', '--out', 'real.npz', *WORDS], 'exists'),
    (['reference', '--data', 'real.npz', '--out', 'ref.txt', *WORDS], 'end in .npz'),
    (['reference', '--data', 'real.npz', '--out', 'new.npz', '--config.x=1', *WORDS], '--config.x'),
    (['reference', '--data', 'mine.py', '--out', 'new.npz', *WORDS], 'no get_config()'),
    (['reference', '--data', 'one.npz', '--out', 'new.npz', *WORDS], 'at least 2'),
    (['reference', '--data', 'real.npz', '--out', 'new.npz', '--extractor', 'nan.py:f'], 'NaN'),
    (['reference', '--data', 'real.npz', '--out', 'new.npz', '--images', '-1'], 'give 0, or at'),
    (['reference', '--data', 'real.npz', '--out', 'new.npz', '--images', '3'], 'least 4'),
    (['reference', '--data', 'real.npz', '--out', 'gs://name/new.npz'],
     'writes to this machine only')])
def test_a_mistake_is_one_line_without_numbers_and_writes_nothing(folder, monkeypatch, capsys,
                                                                  words, message):
  def unreachable(*arguments, **keywords):
    raise urllib.error.URLError('no network')
  monkeypatch.setattr(urllib.request, 'urlopen', unreachable)
  np.savez('other.npz', images=REAL)
  np.savez('floats.npz', np.float32(REAL))
  np.savez('nan.npz', np.full(REAL.shape, np.nan))
  np.savez('one.npz', REAL[:1])
  np.savez('pickled.npz', np.array([REAL, None], dtype=object))
  np.savez('ours.npz', arr_0=REAL, mu=np.zeros(5), sigma=np.eye(5), extractor='mine.py:f 0123')
  (folder / 'pickle.npz').write_bytes(pickle.dumps(REAL))
  (folder / 'wrong.pb').write_bytes(b'not the graph')
  (folder / 'nan.py').write_text(FUNCTION.replace('255', 'float("nan")'))
  before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
  assert main(words) == 2
  captured = capsys.readouterr()
  lines = [line for line in captured.err.splitlines() if line.startswith('adm: ')]
  assert len(lines) == 1 and message in lines[0] and not captured.out
  assert captured.err.rstrip().endswith(lines[0])
  assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
