"""A network, data, a metric and guidance of a user's own, the files of docs/your_own.md."""

import pathlib
import re

import numpy as np
import pytest
import tiny

from adm_jax.cli.main import main

PAGE = (pathlib.Path(__file__).parents[2] / 'docs' / 'your_own.md').read_text()


def _write(folder, *names):
  """Writes files of the page, each the block that begins with its name."""
  for name in names:
    code = re.search(rf'```python\n(# {re.escape(name)}.*?)```', PAGE, re.DOTALL)[1]
    assert len(code.strip().splitlines()) <= 40
    (folder / name).write_text(code)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder with the page's files, a run of its transformer and one of a U-Net on its shapes."""
  folder = tmp_path_factory.mktemp('own')
  _write(folder, 'transformer.py', 'shapes.py', 'my_features.py', 'symmetric.py')
  config = str(folder / 'transformer.py')
  assert main(['train', '--config', config, '--workdir', str(folder / 'run'),
               '--config.total_steps=50', '--config.save_every=50']) == 0
  assert main(['train', '--config', tiny.__file__, '--workdir', str(folder / 'unet'),
               '--config.total_steps=2', '--config.save_every=2', '--config.log_every=2']) == 0
  assert main(['train', '--config', str(folder / 'shapes.py'), '--workdir', str(folder / 'shapes'),
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
  pytest.importorskip('flatbuffers', reason='jax.export writes its files with flatbuffers')
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


# ---------------------------------------------------------------------------------------------
# Data, a metric, guidance.


def test_what_was_trained_on_own_data_needs_no_config_to_sample(adm, folder, capsys):
  """Then its own features measure it, beside those of the data."""
  assert adm('sample --model shapes --num 16 --respacing 3 --out drawn') == 0
  assert adm('reference --data shapes.py --config.data.num=64 --out shapes.npz '
             '--extractor my_features.py:embed') == 0
  capsys.readouterr()
  assert adm('evaluate shapes.npz drawn --extractor my_features.py:embed --json') == 0
  assert 'my_features.py' in capsys.readouterr().out


def test_own_guidance_pulls_as_hard_as_its_scale(adm, folder, monkeypatch):
  from adm_jax.sampling import pipeline
  monkeypatch.syspath_prepend(str(folder))
  from symmetric import Symmetric
  guided = pipeline.load(folder / 'shapes', guidance=(Symmetric(0.25),), steps='10')

  def unlike(images):
    images = images.astype(int)
    return np.abs(images - images[:, :, ::-1]).mean()
  weak, strong = (unlike(guided(num=8, scale=scale)) for scale in (0.01, 0.5))
  assert strong < 0.8 * weak
  words = 'sample --model shapes --num 8 --respacing 10 --guidance symmetric.py:strongly --out same'
  assert adm(words) == 0
  images = np.load(folder / 'same' / 'samples.npz')['arr_0']
  np.testing.assert_array_equal(images, guided(num=8, scale=0.5))
  (folder / 'symmetric.py').write_text((folder / 'symmetric.py').read_text() + '\n# changed')
  assert adm(words) == 2  # another file is another job


@pytest.mark.parametrize('change, message', [
    (("  name = 'shapes'\n", ''), 'for want of name'),
    (('def __len__', 'def length'), 'for want of __len__'),
    (("'label': np", "'class': np"), 'a dict of image and label'),
    (('np.uint8(255', 'np.float32(255'), 'an image float32 of shape (8, 8, 1): it should be uint8'),
    (('[..., None]', ''), 'an image uint8 of shape (8, 8)'),
    (('index % 2', 'index.half'), 'AttributeError'),
    (('num: int = 1000', 'num: int = 0'), 'holds no images')])
def test_a_source_that_breaks_the_contract_is_told_how(adm, folder, capsys, change, message):
  text = (folder / 'shapes.py').read_text()
  assert change[0] in text
  (folder / 'broken.py').write_text(text.replace(*change))
  assert adm('train --config broken.py --workdir broken') == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


@pytest.mark.parametrize('code, message', [
    ('def f():\n  return 3', 'f returns a int, which has no bind'),
    ('class G:\n  def bind(self, run, dtype, loaded=None):\n    return None\nf = G',
     'bind returns a NoneType'),
    ('class G:\n  def bind(self):\n    pass\nf = G', 'TypeError'),
    ('def g():\n  pass', "has no function 'f'")])
def test_guidance_that_breaks_the_contract_is_told_how(adm, folder, capsys, code, message):
  (folder / 'broken.py').write_text(code)
  assert adm('sample --model shapes --guidance broken.py:f --out nothing') == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
