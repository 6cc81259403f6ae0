"""`adm reproduce`: a row from weights to the table of paper against measured."""

import json

import numpy as np
import pytest
import tiny_models

from adm_jax.cli.main import main
from adm_jax.evaluation import tables
from adm_jax.evaluation.tables import Recipe

FUNCTION = 'def f(images):\n  return images.reshape(len(images), -1)[:, :5] / 255\n'
REFERENCE = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)


@pytest.fixture
def rows(tmp_path, monkeypatch):
  """Two rows of a small world: a model to sample, and a batch that was published."""
  monkeypatch.chdir(tmp_path)
  tiny_models.unet(tmp_path / 'unet')
  (tmp_path / 'mine.py').write_text(FUNCTION)
  (tmp_path / 'files').mkdir()
  np.savez(tmp_path / 'files' / 'real.npz', REFERENCE)
  np.savez(tmp_path / 'files' / 'batch.npz', REFERENCE[::-1])
  address = 'http://127.0.0.1:9/'
  monkeypatch.setattr(tables, 'REFERENCES', {'tiny': f'{address}real.npz'})
  monkeypatch.setattr(tables, 'RECIPES', (
      Recipe(4, 'sampled', 'tiny', {'fid': 3.0}, '--model unet --respacing 3 --batch-size 4'),
      Recipe(4, 'published', 'tiny', {'fid': 0.0}, batch=f'{address}batch.npz'),
      Recipe(8, 'early', 'tiny', {'fid': 9.0}, note='the weights were not published')))
  return tmp_path


WORDS = ('--out', 'paper', '--files', 'files', '--extractor', 'mine.py:f', '--samples', '12')


def test_a_table_end_to_end_and_again_at_once(rows, capsys):
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  text = (rows / 'paper' / 'table.md').read_text()
  page = (rows / 'paper' / 'table.html').read_text()
  assert 'Table 4, sampled' in text and 'Table 4, published' in text and 'mine.py:f' in text
  assert 'FID' not in text.replace('Frechet', '').split('\n- ')[0]  # another extractor
  assert page.count('data:image/png;base64,') == 2 and 'adm sample --model unet' in page
  report = json.loads(next((rows / 'paper' / 'table4' / 'published').glob('*.json')).read_text())
  assert abs(report['values']['frechet_distance']['value']) < 1e-6  # the same images
  before = {path: path.stat().st_mtime_ns for path in rows.rglob('samples.npz')}
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  assert before == {path: path.stat().st_mtime_ns for path in rows.rglob('samples.npz')}
  assert 'measuring' not in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    (('--row', 'early', *WORDS), 'cannot be run: the weights were not published'),
    (('--row', 'sampeld', *WORDS), 'did you mean sampled'), (('--table', '4'), '--out DIR'),
    (('--table', '4', *WORDS, '--files', 'paper'), 'is not there: fetch http'),
    (('--table', '4', *WORDS, '--frob'), '--frob'),
    (('--table', '4', *WORDS, '--samples', '0'), 'at least 1')])
def test_a_mistake_is_one_line(rows, capsys, words, message):
  assert main(['reproduce', *words]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out
  assert not (rows / 'paper').exists()


def test_the_real_list_says_what_every_row_needs(capsys):
  assert main(['reproduce']) == 0
  text = capsys.readouterr().out
  assert text.count('\ntable ') + 1 == len(tables.RECIPES)
  assert ('adm sample --model imagenet256 --classifier imagenet256-classifier --scale 1.0 '
          '--respacing 250 --num 50000') in text
  assert '12,500,000 of imagenet256,' in text and 'imagenet256 (554 M)' in text
