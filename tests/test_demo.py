"""The demo from end to end, with networks and steps too few to look at."""

import numpy as np
import pytest
from PIL import Image

from adm_jax import demo
from adm_jax.errors import UsageError
from adm_jax.io import progress

SETTINGS = demo.Settings(num=20, respacing='5', batch_size=16, likelihood_images=4,
                         likelihood_respacing='10', encoded=2, encoding_respacing='5',
                         first_rows=0)
SMALL = ('--config.task.network.module.channel_mult=1',
         '--config.task.network.module.attention_resolutions=()',
         '--config.batch_size=16', '--config.total_steps=8', '--config.log_every=2',
         '--config.save_every=4')


@pytest.fixture(scope='module')
def out(tmp_path_factory):
  folder = tmp_path_factory.mktemp('demo')
  demo.run(folder, SETTINGS, progress.bar, SMALL, SMALL)
  return folder


def test_it_writes_what_it_promises(out):
  width, height = Image.open(out / 'samples.png').size
  assert width > 3 * 2 * 8 * 5 and height > 10 * 8 * 5  # three panels, a row per digit
  for name in ('guided', 'unguided'):
    with np.load(out / f'samples_{name}.npz') as file:
      assert file['arr_0'].shape == (20, 8, 8, 1) and file['arr_0'].dtype == np.uint8
      np.testing.assert_array_equal(file['arr_1'], np.arange(20) % 10)
      assert file['arr_1'].dtype == np.int64


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_a_seed_without_a_key_is_refused_before_anything_is_trained(seed):
  with pytest.raises(UsageError, match=f'seed={seed}: give a whole number'):
    demo.Settings(seed=seed)


def test_its_first_picture_is_a_job_that_is_done_once(tmp_path):
  path = demo.first_picture(tmp_path, rows=1, steps=2)
  assert Image.open(path).size[0] > 10 * 28
  before = path.stat().st_mtime_ns
  assert demo.first_picture(tmp_path, rows=1, steps=2) == path and path.stat().st_mtime_ns == before
  with np.load(tmp_path / 'fashion' / 'samples.npz') as file:
    np.testing.assert_array_equal(file['arr_1'], np.arange(10))


def test_the_report_has_every_promised_number(out):
  text = (out / 'report.md').read_text()
  for words in ('judge names held-out', 'asked class', 'unguided samples from the same noise',
                'the training digits', 'bits per dimension', 'encoding and decoding'):
    assert words in text
  assert 'step 4' in text and 'step 8' in text and 'nan' not in text.lower()


def test_guided_and_unguided_differ_but_not_by_their_noise(out):
  a, b = (np.load(out / f'samples_{name}.npz')['arr_0'].astype(float)
          for name in ('guided', 'unguided'))
  same = np.abs(a - b).mean()
  other = np.abs(a - np.roll(b, 1, axis=0)).mean()
  assert 0 < same < other


def test_a_second_run_reuses_everything(out):
  before = {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.is_file()}
  text = demo.run(out, SETTINGS, progress.bar, SMALL, SMALL)
  assert text == (out / 'report.md').read_text()
  assert before == {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.is_file()}


def test_other_settings_reuse_the_networks(out):
  def trained():
    return {path: path.stat().st_mtime_ns for path in (out / 'unet').rglob('_METADATA')}

  before = trained()
  other = demo.Settings(**{**vars(SETTINGS), 'scale': 3.0})
  assert 'scale 3' in demo.run(out, other, progress.bar, SMALL, SMALL)
  assert trained() == before
