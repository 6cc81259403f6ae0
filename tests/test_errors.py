"""What a user reads is one line that a terminal shows as it is."""

import sys

import numpy as np
import pytest

from adm_jax.cli import main as main_lib
from adm_jax.errors import TrainingStopped, UsageError, of_file, printable
from adm_jax.evaluation import comparison, tables
from adm_jax.io import markdown, pictures

HOSTILE = 'a\x1b[2J\x07\nb\u202e\udc80|c'  # clears the screen, rings, ends the line, turns it round
SHOWN = r'a\x1b[2J\x07\nb\u202e\udc80|c'


def test_what_a_terminal_would_obey_becomes_escapes():
  assert printable(HOSTILE) == SHOWN == str(UsageError(HOSTILE))
  assert printable('Müller, 犬, é: "x" \\ /tmp') == 'Müller, 犬, é: "x" \\ /tmp'
  assert len(printable('x' * 10**6)) < 2100


@pytest.mark.parametrize('error', [
    UsageError(HOSTILE), TrainingStopped(HOSTILE), OSError(5, 'Input/output error', HOSTILE)])
def test_commands_print_mistakes_in_one_line(monkeypatch, capsys, error):
  def run(arguments, rest):
    raise error
  monkeypatch.setattr(main_lib.COMMANDS['models'], 'run', run)
  monkeypatch.setattr(main_lib.os, '_exit', sys.exit)
  try:
    code = main_lib.main(['models'])
  except SystemExit as ended:
    code = ended.code
  assert code == (1 if isinstance(error, TrainingStopped) else 2)
  printed = capsys.readouterr().err
  assert SHOWN in printed and printed.count('\n') == 1 and '\x1b' not in printed


def test_a_file_is_named_once():
  for text in ('is damaged', '/a/b.pt is damaged'):
    with pytest.raises(UsageError) as error:
      with of_file('/a/b.pt'):
        raise UsageError(text)
    assert str(error.value).count('/a/b.pt') == 1 and 'is damaged' in str(error.value)


def test_no_text_ends_its_cell_or_line_of_a_table():
  table = markdown.table(('name', 'value'), [(HOSTILE, '1')])
  assert table.splitlines() == ['| name | value |', '| --- | --- |',
                                '| ' + SHOWN.replace('|', r'\|') + ' | 1 |']


def test_a_note_of_a_comparison_is_one_line():
  row = next(row for row in tables.ROWS if row.note == '')
  text = comparison.markdown([comparison.Result(row, source=HOSTILE)])
  assert SHOWN in text and '\x1b' not in text


def test_a_grid_is_captioned_whatever_its_classes_are_called(tmp_path):
  images = np.zeros((2, 8, 8, 3), np.uint8)
  pictures.write_grid(tmp_path / 'grid.png', images, np.arange(2), [(HOSTILE,), ('x' * 10**6,)])
  assert (tmp_path / 'grid.png').stat().st_size > 0
