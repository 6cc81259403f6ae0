"""`adm config`, and configs by name: what can be overridden, and what it means."""

import pathlib

import pytest

from adm_jax import config as config_lib
from adm_jax.cli import config as command
from adm_jax.cli.main import main


@pytest.mark.parametrize('name', config_lib.packaged())
def test_every_override_of_every_packaged_config_is_explained(name):
  for key, _, text in command.explanations(config_lib.load(name)):
    assert text is None or text, key


def test_what_is_listed_can_be_typed(capsys):
  """Every line of `adm config` is an override that changes nothing, or a name that it knows."""
  assert main(['config', 'folder', '--config.size=tiny']) == 0
  words = [line for line in capsys.readouterr().out.splitlines() if line.startswith('--config.')]
  assert '--config.data.image_size=32' in words and len(words) > 60
  assert config_lib.load('folder', words) == config_lib.load('folder', ['--config.size=tiny'])
  assert main(['config']) == 0
  names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
  assert names == list(config_lib.packaged()) and 'imagenet64' in names


def test_a_name_is_the_file_of_that_name():
  path = pathlib.Path(__file__).parents[2] / 'configs' / 'digits_unet.py'
  assert config_lib.load('digits_unet') == config_lib.load(path)


def test_sizes_are_other_networks_whose_parts_can_be_overridden(tmp_path):
  tiny, base = (config_lib.load('folder', [f'--config.size={size}', '--config.batch_size=7'])
                for size in ('tiny', 'base'))
  assert tiny.batch_size == base.batch_size == 7
  assert tiny.task.network.module.channels < base.task.network.module.channels
  assert base == config_lib.load('folder', ['--config.batch_size=7'])
  (tmp_path / 'own.py').write_text('from adm_jax.configs import digits_unet\n'
                                   'def get_config(rate=0.5, name="a"):\n'
                                   '  config = digits_unet.get_config()\n'
                                   '  config.ema_rates = (rate,)\n  return config')
  own = config_lib.load(tmp_path / 'own.py', ['--config.rate=0', '--config.name=b'])
  assert own.ema_rates == (0.0,)


@pytest.mark.parametrize('words, message', [
    ('config fashon', 'as fashion'), ('config configs/imagenet63.py', 'no config'),
    ('config ../elsewhere/imagenet64.py', 'is called imagenet64'),
    ('config folder --config.size=huge', 'give tiny, small, base'),
    ('config own.py --config.rate=fast', 'not of the right type, float'),
    ('config folder --config.sise=tiny', "did you mean 'size'"),
    ('config --config.size=tiny', 'give its name'), ('config bare.py', 'says no function'),
    ('train --config digits --workdir x', 'digits_unet')])
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, words, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'own.py').write_text('def get_config(rate=0.5):\n  return None')
  (tmp_path / 'bare.py').write_text('import ml_collections\n\ndef get_config():\n'
                                    '  return ml_collections.ConfigDict({"path": "photos"})')
  assert main(words.split()) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out
