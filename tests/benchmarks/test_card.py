"""What a card is asked in one call: each part within its time, and none ends the others."""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sysconfig
import tarfile
import time

import pytest

FOLDER = pathlib.Path(__file__).parent.parent.parent / 'benchmarks'
SCRIPT = FOLDER / 'card.sh'


@pytest.fixture(scope='module')
def card():
  spec = importlib.util.spec_from_file_location('card', FOLDER / 'card.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _part(card, name, *programs, seconds=60.0, row=None, **environment):
  return card.Part(name, 'A title', seconds, tuple(
      card.Command(('-c', program), environment) for program in programs), row)


_TABLE = 'print("| a | b |\\n| --- | --- |\\n| 1 | 2 |", flush=True)\n'


def test_parts_that_fail_or_hang_are_lines_and_the_rest_runs(card, tmp_path):
  hangs = _TABLE + ('import subprocess, sys, time\n'
                    'subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])')
  begin = time.monotonic()
  code = card.run_all([
      _part(card, 'hangs', hangs, seconds=6, row='first'),
      _part(card, 'fails', 'raise SystemExit("no | card")', row='second'),
      _part(card, 'works', _TABLE + 'print(\'{"device": "H100", "jax": "1.2"}\')', row='third'),
      _part(card, 'waits', 'print(1)', seconds=1)], tmp_path, 60)
  assert code == 0 and time.monotonic() - begin < 50
  text = (tmp_path / 'card.md').read_text()
  assert text.startswith('# device H100, jax 1.2\n')
  assert '| hangs | first | 6 | stopped after 6 s' in text
  assert r'failed with 1: no \| card |' in text
  assert '| waits |  | 0 | no time was left: --parts waits |' in text
  assert text.endswith('## A title\n\n| | a | b |\n| --- | --- | --- |\n| first | 1 | 2 |\n'
                       '| third | 1 | 2 |\n')
  kept = json.loads((tmp_path / 'card.json').read_text())
  assert [part['said'][:4] for part in kept] == ['stop', 'fail', 'done', 'no t']
  assert kept[2]['results'] == [{'device': 'H100', 'jax': '1.2'}]


def test_where_nothing_works_the_code_says_so(card, tmp_path):
  assert card.run_all([_part(card, 'fails', 'raise ValueError')], tmp_path, 60) == 1


def test_commands_of_one_part_run_at_the_same_time_in_its_environment(card, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--mine')
  program = ('import os, time; print(time.time()); time.sleep(2);'
             'print(os.environ["XLA_FLAGS"])')
  outcome = card.run(_part(card, 'two', program, program, XLA_FLAGS='--its'), 60)
  lines = outcome.output.split('\n')
  assert outcome.said == 'done' and lines.count('--mine --its') == 2
  begins = [float(line) for line in lines if line[:1].isdigit()]
  assert abs(begins[0] - begins[1]) < 1.9


def test_a_tiny_network_goes_from_the_golden_files_to_a_table_and_a_trace(card, tmp_path):
  golden, timed = (next(part for part in card.parts(tmp_path, tiny=True) if part.name == name)
                   for name in ('golden', 'adm64'))
  assert card.run_all([golden, timed], tmp_path, 300) == 0, (tmp_path / 'log.txt').read_text()
  text = (tmp_path / 'card.md').read_text()
  assert '1 passed' in text and '| tiny | step | 2 | ' in text
  with tarfile.open(tmp_path / 'trace.tar.gz') as archive:
    assert any(name.endswith('process_0.xplane.pb') for name in archive.getnames())


def test_the_plan_of_a_card_switches_every_variant(card, tmp_path):
  parts = card.parts(tmp_path, before=['/elsewhere/old'])
  rows = [part.row for part in parts if part.name == 'switches']
  assert rows == ['as it is', 'old', *(variant.name for variant in card.VARIANTS[1:])]
  words = {word for part in parts for command in part.commands for word in command.words}
  assert {'imagenet64', 'imagenet256', 'adm64', 'adm256', '1', '8', '32'} <= words
  assert 'tiny' not in words


def test_another_checkout_that_is_not_imported_is_no_row(card, tmp_path):
  outcome = card.run(card.Part('switches', 'A title', 60.0, (card.Command(
      ('benchmarks/on_device.py', '--package', str(tmp_path))),)), 60)
  assert outcome.said.endswith(f'not from {tmp_path}') and not outcome.tables


def test_the_script_says_how_it_is_used_and_shellcheck_finds_nothing():
  result = subprocess.run(['bash', SCRIPT], capture_output=True, text=True, timeout=60)
  assert result.returncode == 2 and result.stderr.startswith('usage: ')
  shellcheck = shutil.which('shellcheck', path=sysconfig.get_path('scripts')) or shutil.which(
      'shellcheck')
  if shellcheck is None:
    pytest.skip('no shellcheck: it comes with the extra test')
  result = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True)
  assert result.returncode == 0, result.stdout
