"""`adm prepare`, and what training says of data that is not there."""

import importlib.util
import pathlib

import numpy as np
import pytest
import tiny
from PIL import Image

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.cli.main import main
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.training import loop

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def _fails(words, message, capsys):
  assert main(words) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


@pytest.mark.skipif(importlib.util.find_spec('tensorflow') is not None, reason='TensorFlow is here')
def test_without_tensorflow_it_says_what_to_install(capsys):
  _fails(['prepare', 'cifar10'], '[prepare]', capsys)


def test_what_it_does_not_understand_is_one_line(capsys):
  _fails(['prepare', 'cifar10', '--frob'], '--frob', capsys)
  _fails(['prepare'], 'NAME', capsys)


@pytest.mark.parametrize('name, words, message', [
    ('cifar10', ['--config.data.data_dir=nowhere'], 'run adm prepare cifar10 --data-dir nowhere'),
    ('folder', [], 'set --config.data.path to a folder'),
    ('folder', ['--config.data.path=absent'], 'there is no absent'),
    ('folder', ['--config.data.path=pets', '--config.data.labels=folders'], 'in no sub-folder'),
    ('folder', ['--config.data.path=pets', '--config.data.crop=None',
                '--config.data.image_size=None'], 'without a crop'),
    ('cifar10_cond', ['--config.data.path=pets', '--config.data.labels=None'], 'has no labels'),
    ('cifar10_cond', ['--config.data.path=pets', '--config.data.labels=prefix',
                      '--config.task.network.module.num_classes=2'],
     'has 3 classes, the network 2'),
])
def test_a_run_without_its_data_is_one_line(name, words, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'pets').mkdir()
  for i in range(3):
    Image.fromarray(np.zeros((9 + i, 9, 3), np.uint8)).save(tmp_path / 'pets' / f'{i}_.png')
  before = sorted(tmp_path.rglob('*'))
  _fails(['train', '--config', str(CONFIGS / f'{name}.py'), '--workdir', 'x', *words], message,
         capsys)
  assert sorted(tmp_path.rglob('*')) == before


def test_training_on_a_folder_with_a_damaged_image_goes_through(tmp_path):
  """Gray levels from a folder of photographs, with the tiny network of the other tests."""
  (tmp_path / 'photos').mkdir()
  for i in range(20):
    pixels = np.random.default_rng(i).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'photos' / f'{i}.jpg')
  (tmp_path / 'photos' / '7.jpg').write_bytes(b'not a photograph')
  config = tiny.get_config(
      data=call(open_source, path=str(tmp_path / 'photos'), image_size=8, crop='random',
                labels=None, channels=1),
      loader=call(Loader, flip=True, max_unreadable=0.1))
  state = loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run')
  assert int(state.step) == 12 and int(state.skipped) == 0
