"""`adm reproduce`: a row from weights to the table of paper against measured."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_models

from adm_jax.cli.main import main
from adm_jax.evaluation import tables
from adm_jax.evaluation.tables import Row, Sampled

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
  monkeypatch.setattr(tables, 'ROWS', (
      Row(4, 'sampled', 'tiny', {'fid': 3.0}, Sampled('unet', respacing='3')),
      Row(4, 'published', 'tiny', {'fid': 0.0}, batch=f'{address}batch.npz'),
      Row(8, 'early', 'tiny', {'fid': 9.0}, note='the weights were not published')))
  return tmp_path


WORDS = ('--out', 'paper', '--files', 'files', '--extractor', 'mine.py:f', '--samples', '12',
         '--sampling-batch-size', '4')


def test_a_table_end_to_end_and_again_at_once(rows, capsys):
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  text = (rows / 'paper' / 'table.md').read_text()
  page = (rows / 'paper' / 'table.html').read_text()
  assert 'Table 4, sampled' in text and 'Table 4, published' in text and 'mine.py:f' in text
  # Another extractor's numbers are not beside the paper's.
  assert 'FID' not in text.split('\n- ')[0] and '| 3 |' not in text
  assert page.count('data:image/png;base64,') == 2
  assert 'adm sample --model unet --respacing 3 --batch-size 4 --num 12 --seed 0' in page
  report = json.loads(next((rows / 'paper' / 'table4' / 'published').glob('*.json')).read_text())
  assert abs(report['values']['frechet_distance']['value']) < 1e-6  # the same images
  before = {path: path.stat().st_mtime_ns for path in rows.rglob('samples.npz')}
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  assert before == {path: path.stat().st_mtime_ns for path in rows.rglob('samples.npz')}
  assert 'measuring' not in capsys.readouterr().err


def test_other_files_are_measured_again(rows):
  words = ['reproduce', '--row', 'published', *WORDS]
  def distance():
    assert main(words) == 0
    return (rows / 'paper' / 'table.md').read_text()
  first = distance()
  np.savez(rows / 'files' / 'batch.npz', REFERENCE // 2)
  assert distance() != first


def test_rows_that_cannot_be_run_stand_in_the_table_with_their_reason(rows, monkeypatch):
  early = dataclasses.replace(tables.ROWS[2], table=4)
  monkeypatch.setattr(tables, 'ROWS', (tables.ROWS[1], early))
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  text = (rows / 'paper' / 'table.md').read_text()
  assert '| Table 4, early | FID | 9 |  | not run |' in text and 'were not published' in text


@pytest.mark.parametrize('words, message', [
    (('--row', 'early', *WORDS), 'cannot be run: the weights were not published'),
    (('--row', 'sampeld', *WORDS), 'did you mean sampled'), (('--table', '4'), '--out DIR'),
    (('--table', '4', *WORDS, '--files', 'paper'), 'is not there: fetch http'),
    (('--table', '4', *WORDS, '--frob'), '--frob'),
    (('--table', '4', *WORDS, '--classifier-weights', 'x.pt'), 'no classifier is sampled here'),
    (('--table', '4', *WORDS, '--sampling-batch-size', 'x'), 'invalid int'),
    (('--table', '4', *WORDS, '--sampling-batch-size', '0'), 'at least 1'),
    (('--table', '4', *WORDS, '--fsdp', '0'), 'at least 1'),
    (('--table', '4', *WORDS, '--seed', '-1'), 'seed=-1: give 0 to'),
    (('--table', '4', *WORDS, '--sampling-dtype', 'int8'), 'float32'),
    (('--table', '4', *WORDS, '--samples', '0'), 'at least 1')])
def test_a_mistake_is_one_line(rows, capsys, words, message):
  assert main(['reproduce', *words]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out
  assert not list((rows / 'paper').rglob('*.npz'))


def test_a_file_of_weights_is_of_one_model(capsys):
  assert main(['reproduce', '--table', '14', '--weights', 'x.pt', '--dry-run']) == 2
  assert 'the rows are of imagenet128, imagenet256, imagenet512, imagenet64' in (
      capsys.readouterr().err)


def test_weights_stand_in_the_line_of_the_rows_that_they_are_of(capsys):
  assert main(['reproduce', '--table', '5', '--row', '64', '--weights', 'my 64.pt', '--fsdp', '2',
               '--dry-run']) == 0
  assert ("adm sample --model imagenet64 --respacing 250 --weights 'my 64.pt' --fsdp 2 --num 50000 "
          '--seed 0\n') in capsys.readouterr().out


def test_the_real_list_says_what_every_row_needs(capsys):
  assert main(['reproduce']) == 0
  text = capsys.readouterr().out
  assert text.count('\ntable ') + 1 == len(tables.ROWS)
  assert ('adm sample --model imagenet256 --classifier imagenet256-classifier --scale 1.0 '
          '--respacing 250 --num 50000 --seed 0') in text
  assert '12,500,000 of imagenet256,' in text and 'imagenet256 (554 M)' in text
