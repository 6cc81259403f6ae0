"""Lists of labels that are damaged: one line with the file's path."""

import json
import pathlib

import numpy as np
import pytest

from adm_jax.data import labels
from adm_jax.errors import UsageError

NAMES = [f'cat/{i}.png' for i in range(9)]
TABLE = {name: i % 3 for i, name in enumerate(NAMES)}
CSV = ''.join(f'{name},{label}\n' for name, label in TABLE.items()).encode()


def _read(path):
  return labels.from_list(NAMES, path, pathlib.Path('pets'))


def _refused(path, match='labels?'):
  with pytest.raises(UsageError, match=match) as error:
    _read(path)
  assert str(path) in str(error.value) and len(str(error.value)) < 1000
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [
    b'[' * 10**6, b'{"a":' * 10**6, b'{"cat/0.png": ' + b'9' * 10**5, b'', b'\xff\xfe', b'null',
    b'{"labels": [[["cat"], 0]]}', b'{"labels": [["cat/0.png"]]}', b'{"labels": [0]}',
    b'{"cat/0.png": [0]}', b'{"cat/0.png": 1e400}', b'\0' * 100])
def test_json_that_is_no_list_is_one_line(tmp_path, content):
  (tmp_path / 'list.json').write_bytes(content)
  _refused(tmp_path / 'list.json', 'no list of labels')


@pytest.mark.parametrize('content', [
    b'x' * 10**6 + b',0\n', b'"' + b'x,0\n' * 10**5, b'\xff\xfe,0\n', b'\0,\0\n' * 9, b'',
    b',,,\n'])
def test_a_csv_that_is_no_list_is_one_line(tmp_path, content):
  (tmp_path / 'list.csv').write_bytes(content)
  _refused(tmp_path / 'list.csv')


@pytest.mark.parametrize('label', ['9' * 5000, '1' * 19, '0' * 30])
def test_a_label_of_many_digits_is_one_line(tmp_path, label):
  """Python refuses to read an integer of more than 4,300 digits."""
  (tmp_path / 'list.csv').write_bytes(CSV + f'{NAMES[0]},{label}\n'.encode())
  _refused(tmp_path / 'list.csv', 'has the label')


@pytest.mark.parametrize('suffix, content', [
    ('.csv', CSV + f'{NAMES[0]},-1\n'.encode()),
    ('.json', json.dumps(TABLE | {NAMES[0]: -1}).encode())])
def test_a_number_below_0_is_one_line_and_makes_no_names_of_the_others(tmp_path, suffix, content):
  (tmp_path / f'list{suffix}').write_bytes(content)
  _refused(tmp_path / f'list{suffix}', 'has the label -1: labels count the classes from 0')


def test_a_file_of_gigabytes_is_no_list(tmp_path):
  with open(tmp_path / 'list.csv', 'wb') as file:
    file.truncate(2**30 + 1)  # a hole, of no blocks
  _refused(tmp_path / 'list.csv', '1,073,741,825 bytes')


@pytest.mark.parametrize('suffix, content', [('.csv', CSV), ('.json', json.dumps(TABLE).encode())])
def test_any_damage_is_labels_or_one_line(tmp_path, suffix, content):
  path, rng, refused = tmp_path / f'list{suffix}', np.random.default_rng(0), 0
  for at in rng.integers(0, len(content), 300):
    data = bytearray(content)
    data[at] = rng.integers(256)
    path.write_bytes(data if at % 4 else data[:at])
    try:
      got, class_names = _read(path)
      assert got.shape == (9,) and got.max() < len(class_names)
    except UsageError as error:
      assert str(path) in str(error) and '\n' not in str(error)
      refused += 1
  assert refused > 100


def test_the_mark_that_spreadsheets_begin_with_is_no_part_of_a_name(tmp_path):
  (tmp_path / 'list.csv').write_bytes(b'\xef\xbb\xbf' + CSV)
  np.testing.assert_array_equal(_read(tmp_path / 'list.csv')[0], list(TABLE.values()))
