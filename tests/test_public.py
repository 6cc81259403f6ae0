"""`import adm_jax`: quick, lazy, and enough for the README's lines."""

import pathlib
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import tiny_models

import adm_jax


def test_importing_the_package_imports_nothing_but_python_s_own():
  script = ("import sys; before = set(sys.modules); import adm_jax; "
            "found = {name.partition('.')[0] for name in set(sys.modules) - before}; "
            "found -= {'adm_jax', *sys.stdlib_module_names}; assert not found, found")
  subprocess.run([sys.executable, '-c', script], check=True, timeout=60)


def test_everything_named_is_there():
  for name in adm_jax.__all__:
    assert getattr(adm_jax, name) is not None
  assert set(adm_jax.__all__) <= set(dir(adm_jax))
  with pytest.raises(AttributeError, match='no attribute'):
    adm_jax.nothing


def test_a_few_lines_make_images_and_a_job(tmp_path):
  unet = tiny_models.unet(tmp_path / 'unet', tiny_models.NUM_CLASSES)
  guidance = (adm_jax.guidance.ByClassifier(tiny_models.classifier(tmp_path / 'guide'), scale=2.0),)
  adm = adm_jax.load(unet, guidance=guidance, steps=3)
  images = adm(labels=range(5), seed=0)
  assert images.shape == (5, 8, 8, 3) and images.dtype == np.uint8
  made = adm_jax.SamplingJob(adm, num=5, seed=0, classes=range(5)).write(tmp_path / 'out')
  assert (np.abs(made.images.astype(int) - images) <= 1).all()
  np.testing.assert_array_equal(made.labels, np.arange(5))
  again = adm_jax.SamplingJob(adm, num=5, seed=0, classes='0-4').write(tmp_path / 'out')
  assert again.checksum == made.checksum
  with pytest.raises(adm_jax.UsageError, match='another job'):
    adm_jax.SamplingJob(adm, num=5, seed=1, classes=range(5)).write(tmp_path / 'out')


@pytest.mark.parametrize('kwargs, message', [
    ({'num': 0}, 'num=0'), ({'seed': -1}, 'seed=-1'), ({'batch_size': 0}, 'batch_size=0'),
    ({'classes': '7'}, 'class 7'), ({'classes': [7]}, 'label 7'),
    ({'class_order': 'any'}, 'any'), ({'base': 'x.npz'}, 'base')])
def test_a_job_that_cannot_be_is_refused_at_once(tmp_path, kwargs, message):
  unet = tiny_models.unet(tmp_path / 'unet', tiny_models.NUM_CLASSES)
  with pytest.raises(adm_jax.UsageError, match=message):
    adm_jax.SamplingJob(adm_jax.load(unet, steps=3), **kwargs)


def test_every_package_is_installed():
  """A folder with modules that pyproject.toml does not name would be missing from a wheel."""
  root = pathlib.Path(adm_jax.__file__).parent
  project = tomllib.loads((root.parent / 'pyproject.toml').read_text())
  packages = {'.'.join(('adm_jax', *path.parent.relative_to(root).parts))
              for path in root.rglob('__init__.py')}
  assert set(project['tool']['setuptools']['packages']) == packages | {'adm_jax.configs'}


def test_files_that_are_no_modules_are_installed():
  """The page, the weights and the names of ImageNet's classes are read by installed programs."""
  root = pathlib.Path(adm_jax.__file__).parent
  project = tomllib.loads((root.parent / 'pyproject.toml').read_text())
  patterns = project['tool']['setuptools']['package-data']
  installed = {path for package, globs in patterns.items() for pattern in globs
               for path in root.joinpath(*package.split('.')[1:]).glob(pattern)}
  files = {path for path in root.rglob('*') if path.is_file()
           and '__pycache__' not in path.parts and path.suffix != '.py'}
  assert files and files <= installed, files - installed
