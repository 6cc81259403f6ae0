"""`adm reproduce`: a row from weights to the table of paper against measured."""

import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tiny_models

from adm_jax.cli.main import main
from adm_jax.devices import chips
from adm_jax.errors import UsageError
from adm_jax.evaluation import features, report, reproduce, row_cost, tables
from adm_jax.evaluation.tables import Row, Sampled
from adm_jax.io import progress
from adm_jax.io.parts import Part

FUNCTION = '''
def f(images):
  return images.reshape(len(images), -1)[:, :5] / 255

def g(images):
  return f(images) ** 2
'''
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
  for name, value in SMALL_WORLD.items():
    monkeypatch.setattr(tables, name, value)
  return tmp_path


ADDRESS = 'http://127.0.0.1:9/'
SMALL_WORLD = {
    'REFERENCES': {'tiny': f'{ADDRESS}real.npz'},
    'ROWS': (Row(4, 'sampled', 'tiny', {'fid': 3.0}, Sampled('unet', respacing='3')),
             Row(4, 'published', 'tiny', {'fid': 0.0}, batch=f'{ADDRESS}batch.npz'),
             Row(8, 'early', 'tiny', {'fid': 9.0}, note='the weights were not published'))}
# `adm` in the small world, for other processes.
SCRIPT = '''
import sys
import test_reproduce
from adm_jax.cli.main import main
from adm_jax.evaluation import tables
vars(tables).update(test_reproduce.SMALL_WORLD)
sys.exit(main(sys.argv[1:]))
'''

WORDS = ('--out', 'paper', '--files', 'files', '--extractor', 'mine.py:f', '--samples', '12',
         '--sampling-batch-size', '4')


def test_a_table_end_to_end_and_again_at_once(rows, monkeypatch):
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  text = (rows / 'paper' / 'table.md').read_text()
  page = (rows / 'paper' / 'table.html').read_text()
  assert 'Table 4, sampled' in text and 'Table 4, published' in text and 'mine.py:f' in text
  # Another extractor's numbers are not beside the paper's.
  assert 'FID' not in text.split('\n- ')[0] and '| 3 |' not in text
  assert page.count('data:image/png;base64,') == 2
  assert 'adm sample --model unet --respacing 3 --batch-size 4 --num 12 --seed 0' in page
  path, = (rows / 'paper' / 'table4' / 'published').glob('report*.json')
  values = json.loads(path.read_text())['values']
  assert abs(values['frechet_distance']['value']) < 1e-6  # the same images
  before = {path: path.stat().st_mtime_ns for path in rows.rglob('samples.npz')}
  monkeypatch.setattr(report, 'evaluate', None)  # nothing is measured again
  assert main(['reproduce', '--table', '4', *WORDS]) == 0
  assert before == {path: path.stat().st_mtime_ns for path in rows.rglob('samples.npz')}


def test_two_processes_reproduce_what_one_does(rows):
  """Samples, every number and the pages; what each process does is not done again."""
  tests = pathlib.Path(__file__).parent
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(
      [str(tests), str(tests.parent), *filter(None, [os.environ.get('PYTHONPATH')])])}
  words = ['--table', '4', *WORDS, '--coordinator', '127.0.0.1:9', '--num-processes', '2']
  both = [subprocess.Popen(
      [sys.executable, '-c', SCRIPT, 'reproduce', *words, '--out', 'two', '--process', process],
      env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
      for process in '01']
  options = reproduce.SampleOptions(num=12, batch_size=4)
  def run(out, part):
    return list(reproduce.run(tables.ROWS[:2], out, features.by_name('mine.py:f'), options,
                              files='files', batch_size=64, bar=progress.no_bar, part=part))
  alone = run('one', Part())
  said = [running.communicate(timeout=120) for running in both]
  assert [running.returncode for running in both] == [0, 0], said
  assert (rows / 'one/table4/sampled/samples/samples.npz').read_bytes() == (
      rows / 'two/table4/sampled/samples/samples.npz').read_bytes()
  text = (rows / 'two/table.md').read_text()
  assert 'time: sampling ' in text and 'Table 4, published' in text
  ours = run('two', Part(0, 2))  # with nothing left to do, nobody waits for the other
  for theirs, wanted in zip(ours, alone, strict=True):
    assert theirs.report['values'] == wanted.report['values']
    assert theirs.time().endswith('on 2 processes with 1 x cpu') and 'measuring ' in theirs.time()


def test_rows_of_several_tables(rows):
  assert [row.name for row in tables.select_all('8,4/sampled,sampled')] == ['early', 'sampled']
  for words, match in (('4/', 'TABLE/NAME'), ('x/sampled', 'TABLE/NAME'), ('5', 'table 5 has no'),
                       ('4/early', "no row 'early'")):
    with pytest.raises(UsageError, match=match):
      tables.select_all(words)


def test_a_plan_says_what_is_to_be_done_yet(rows):
  options = reproduce.SampleOptions(num=12, batch_size=4)
  assert reproduce.plan(tables.ROWS, options, 'paper', 2) == [
      'table 4, sampled: 12 samples, work unknown']
  (rows / 'paper/table4/sampled/samples').mkdir(parents=True)
  (rows / 'paper/table4/sampled/samples/samples.npz').touch()
  assert reproduce.plan(tables.ROWS, options, 'paper', 2) == []


def test_a_plan_counts_hours_and_money(monkeypatch, rows):
  published = Row(4, 'published', 'tiny', {}, Sampled('imagenet64', respacing='250'))
  monkeypatch.setattr(row_cost, '_flops', lambda name: 1e12)
  monkeypatch.setattr(chips, 'peak', lambda kind: 1e15)
  options = reproduce.SampleOptions(num=1000)
  one, cost = reproduce.plan([published], options, 'paper', 1, price=3.0)
  two, same = reproduce.plan([published], options, 'paper', 2, price=3.0)
  hours = 1000 * 250 * 1e12 / (row_cost._SHARE * 1e15) / 3600
  assert f'{hours:.3g} hours on the devices here' in one and same == cost
  assert f'{hours / 2:.3g} hours on those of 2 processes' in two
  assert cost.startswith(f'cost: {hours * 3:,.0f} for {hours:,.1f} hours of one cpu at 3')


def test_other_files_are_measured_again_and_by_another_function_of_one_file(rows):
  words = ['reproduce', '--row', 'published', *WORDS]
  def table(*others):
    assert main([*words, *others]) == 0
    return (rows / 'paper' / 'table.md').read_text()
  first = table()
  np.savez(rows / 'files' / 'batch.npz', REFERENCE // 2)
  assert table() != first
  assert 'mine.py:g' in table('--extractor', 'mine.py:g')


def test_the_time_of_a_report_is_that_of_all_starts_and_of_no_other_report(rows, monkeypatch):
  clock = itertools.count()  # whatever is timed takes a second
  monkeypatch.setattr(reproduce, 'time', types.SimpleNamespace(monotonic=lambda: next(clock)))
  def seconds(extractor):
    result, = reproduce.run(tables.ROWS[1:2], 'paper', features.by_name(extractor), files='files',
                            bar=progress.no_bar)
    return result.took['measuring']
  def stopped(*args, **kwargs):
    raise KeyboardInterrupt
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(report, 'evaluate', stopped)
    seconds('mine.py:f')
  assert [seconds(f'mine.py:{name}') for name in 'fgf'] == [2, 1, 2]


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
