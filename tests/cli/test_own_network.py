"""A linen module of a user's own, in a file outside of the package, through every command."""

import pathlib
import re

import numpy as np
import pytest
import tiny

from adm_jax.cli.main import main

README = pathlib.Path(__file__).parents[2] / 'README.md'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with the README's transformer.py and a run of it, of 50 steps."""
  folder = tmp_path_factory.mktemp('own')
  code = re.search(r'```python\n(# transformer\.py.*?)```', README.read_text(), re.DOTALL)[1]
  assert len(code.strip().splitlines()) <= 40
  (folder / 'transformer.py').write_text(code)
  config = str(folder / 'transformer.py')
  assert main(['train', '--config', config, '--workdir', str(folder / 'run'),
               '--config.total_steps=50', '--config.save_every=50']) == 0
  assert main(['train', '--config', tiny.__file__, '--workdir', str(folder / 'unet'),
               '--config.total_steps=2', '--config.save_every=2', '--config.log_every=2']) == 0
  return folder


@pytest.fixture
def adm(folder, monkeypatch):
  """adm(words) runs a command in the folder."""
  monkeypatch.chdir(folder)
  return lambda words: main(words.split())


def test_it_samples_guided(adm, folder):
  assert adm('sample --model run --config transformer.py --cfg-scale 2 --classes 0-9 --respacing 5 '
             '--out samples') == 0
  images = np.load(folder / 'samples' / 'samples.npz')['arr_0']
  assert images.shape == (10, 8, 8, 1) and images.std() > 1


def test_it_exports_the_images_that_it_samples(adm, folder):
  pytest.importorskip('flatbuffers')
  from adm_jax.sampling import exported
  assert adm('export --model run --config transformer.py --cfg-scale 2 --respacing 5 '
             '--platforms cpu --out exported') == 0
  assert adm('sample --model run --config transformer.py --cfg-scale 2 --classes 3 --num 4 '
             '--respacing 5 --out again') == 0
  images = np.load(folder / 'again' / 'samples.npz')['arr_0']
  found = exported.load(folder / 'exported')(0, np.arange(4), np.full(4, 3))
  assert (np.abs(found.astype(int) - images) <= 1).all()


def test_it_is_planned(adm, capsys):
  assert adm('plan --config transformer.py --devices 1') == 0
  assert 'parameters: ' in capsys.readouterr().out


def test_its_bits_per_dimension_are_measured(adm, folder):
  assert adm('nll --model run --config transformer.py --data transformer.py --num 8 --respacing 5 '
             '--out nll') == 0
  assert np.isfinite(np.load(folder / 'nll' / 'vb_terms.npz')['arr_0']).all()


def test_it_is_fine_tuned(adm, capsys):
  assert adm('train --config transformer.py --workdir tuned --init-from run --init-config '
             'transformer.py --config.total_steps=2 --config.save_every=2 '
             '--config.log_every=2') == 0
  assert 'starting from run' in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    ('sample --model run --out nothing', 'transformer'),
    ('sample --model unet --config transformer.py --out nothing', 'another architecture'),
    ('convert run --to file.pt', 'transformer')])
def test_what_cannot_be_is_one_line(adm, capsys, words, message):
  assert adm(words) == 2
  error = capsys.readouterr().err
  assert message.lower() in error.lower() and error.count('\n') == 1


@pytest.mark.parametrize('change, message', [
    ("y=None):", "takes 3"), ("reshape(-1, 8, 8, 2)", 'returns'),
    ("nn.Embed(11, 64)", 'TypeError'), ("image_shape=(8, 8, 1)", 'image_shape')])
def test_a_module_that_breaks_the_contract_is_told_how(adm, folder, capsys, change, message):
  replaced = {"y=None):": "):", "reshape(-1, 8, 8, 2)": "reshape(-1, 8, 16)",
              "nn.Embed(11, 64)": "nn.Embed(11)", "image_shape=(8, 8, 1)": "image_shape=(8, 8)"}
  text = (folder / 'transformer.py').read_text()
  assert change in text
  (folder / 'broken.py').write_text(text.replace(change, replaced[change]))
  assert adm('train --config broken.py --workdir broken') == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
