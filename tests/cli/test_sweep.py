"""`adm sweep`: from files to a table and pictures, or to one line."""

import json

import numpy as np
import pytest
import tiny_models

from adm_jax.cli.main import main

WORDS = ['sweep', '--model', 'unet', '--judge', 'judge', '--reference', 'real.npz', '--num', '6',
         '--respacing', '2', '--out', 'out']


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  tiny_models.unet(tmp_path / 'unet', tiny_models.NUM_CLASSES, with_null_label=True)
  tiny_models.judge(tmp_path / 'judge')
  images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
  np.savez('real.npz', images, np.arange(20) % tiny_models.NUM_CLASSES)
  return tmp_path


def test_a_sweep_writes_its_table_and_its_pictures(folder, capsys):
  words = [*WORDS, '--cfg-scales', '1,3', '--training', 'real.npz']
  assert main(words) == 0
  said = capsys.readouterr().out
  assert 'classifier-free 1: agreement' in said and 'classifier-free 3: agreement' in said
  assert (folder / 'out' / 'table.md').read_text() in said
  for name in ('curve.png', 'neighbors.png'):
    assert (folder / 'out' / name).read_bytes().startswith(b'\x89PNG')
  found = json.loads((folder / 'out' / 'sweep.json').read_text())
  assert [point['scale'] for point in found['points']] == [1, 3] and found['model'] == 'unet'
  assert main(words) == 0
  again = json.loads((folder / 'out' / 'sweep.json').read_text())
  assert again == found


def test_the_steps_may_lie_along_a_spacing(folder, capsys):
  words = [word for word in WORDS if word not in ('--respacing', '2')]
  assert main([*words, '--cfg-scales', '1', '--solver', 'dpm++2m', '--steps', '3', '--spacing',
               'karras']) == 0
  assert 'dpm++2m, 3 evaluations each' in capsys.readouterr().out
  assert main([*WORDS, '--cfg-scales', '1', '--steps', '3']) == 2
  assert '--steps and --respacing' in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    ([], '--cfg-scales, --scales or'),
    (['--cfg-scales', '1,x'], '--cfg-scales 1,x'),
    (['--cfg-scales', '1,nan'], '--cfg-scales 1,nan'),
    (['--cfg-scales', '1,1.0'], 'each once'),
    (['--scales', '0,1'], '--classifier'),
    (['--cfg-scales', '1', '--classifier', 'unet'], '--classifier guides with'),
    (['--cfg-scales', '1', '--num', '0'], '--num 0'),
    (['--cfg-scales', '1', '--out', 'gs://name/out'], 'writes to this machine only'),
    (['--cfg-scales', '1', '--num', '2'], 'num=2'),
    (['--cfg-scales', '1', '--judge', 'unet'], 'not a classifier'),
    (['--cfg-scales', '1', '--judge', 'absent'], 'absent'),
    (['--cfg-scales', '1', '--reference', 'absent'], 'absent'),
    (['--cfg-scales', '1', '--seed', '-1'], '--seed -1'),
    (['--cfg-scales', '1', '--config.data.split=test'], 'does not understand')])
def test_a_mistake_is_one_line_and_nothing_is_made(folder, capsys, words, message):
  assert main([*WORDS, *words]) == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert message in said[-1] and said[-1].startswith('adm: ') and len(said) == 1
  assert not (folder / 'out').exists()
