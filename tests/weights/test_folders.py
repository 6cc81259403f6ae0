"""Folders of weights from elsewhere: what their files may say, and what is refused in a line."""

import json

import numpy as np
import pytest
import tiny_models

from adm_jax.errors import UsageError
from adm_jax.weights import folders, safetensors_files


@pytest.fixture()
def folder(tmp_path):
  return tiny_models.unet(tmp_path / 'unet')


def _refused(folder, match):
  with pytest.raises(UsageError, match=match) as error:
    folders.load(folder)
  assert str(folder) in str(error.value) and '\n' not in str(error.value)


def test_a_network_that_names_what_reads_files_is_refused(folder):
  config = json.loads((folder / 'config.json').read_text())
  config['network']['module'] = {'fn': {'$name': 'adm_jax.data.open:open_source'}, 'path': '/etc'}
  (folder / 'config.json').write_text(json.dumps(config))
  _refused(folder, 'config.json.*open_source, which is not one of the functions')


@pytest.mark.parametrize('change, match', [
    (lambda config: config.pop('network'), 'describes no network'),
    (lambda config: config.update(network=7), 'describes no network, but a int'),
    (lambda config: config['network']['module'].update(channels=10**12), 'at most 65536'),
    (lambda config: config['network']['module'].update(image_size=2**70), 'config.json'),
    (lambda config: config['network']['module'].update(num_classes='9'), 'cannot be built'),
    (lambda config: config['network'].pop('fn'), 'says no function')])
def test_a_damaged_config_is_refused(folder, change, match):
  config = json.loads((folder / 'config.json').read_text())
  change(config)
  (folder / 'config.json').write_text(json.dumps(config))
  _refused(folder, match)


def test_an_absent_config_is_named(folder):
  (folder / 'config.json').unlink()
  _refused(folder, 'there is no file .*config.json')


@pytest.mark.parametrize('text', [
    '{}', '[1, 2]', '"tench"', '["a"', '[["a"]]', '[' * 100_000, 'NaN'])
def test_names_of_classes_are_a_list_of_texts(folder, text):
  (folder / 'classes.json').write_text(text)
  _refused(folder, r'classes.json')


@pytest.mark.parametrize('name', ['encoder', 'encoder/conv_in/kernel/x', 'a/' * 5000 + 'a'])
def test_tensors_below_one_another_are_refused(folder, name):
  tensors = {name: np.asarray(array) for name, array in safetensors_files.read(
      folder / 'weights.safetensors').items()}
  safetensors_files.write(folder / 'weights.safetensors', tensors | {name: np.zeros(3, np.float32)})
  _refused(folder, 'weights.safetensors.*no name of a tensor beside the others')
