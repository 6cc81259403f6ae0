"""Real images by the name of a config, its path, or files: one way for all commands."""

import pytest

from adm_jax.cli import real_images
from adm_jax.errors import UsageError


def test_a_packaged_config_goes_by_name_unless_files_are_called_so(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  held_out = real_images.of_config('adm nll', 'digits_unet', ['--config.data.split=held_out'])
  assert len(held_out) < len(real_images.of_config('adm nll', 'digits_unet', []))
  (tmp_path / 'digits_unet').mkdir()
  assert real_images.of_config('adm nll', 'digits_unet', []) is None


def test_overrides_of_files_are_refused(tmp_path):
  with pytest.raises(UsageError, match='adm nll does not understand --config.x=1'):
    real_images.of_config('adm nll', str(tmp_path), ['--config.x=1'])
