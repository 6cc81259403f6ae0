"""Which class each file belongs to: by its folder, by its name, or by a list."""

import csv
import json
import pathlib
from typing import Mapping

import numpy as np

from adm_jax.errors import UsageError, one_line

_MOST_CLASSES = 10**6
_MOST_DIGITS = 20  # with zeros in front; Python refuses to read thousands
_MOST_BYTES = 1 << 30
_ENCODING = 'utf-8-sig'  # which passes over the mark that spreadsheets begin with
Labels = tuple[np.ndarray, tuple[str, ...]]  # i32[N], and the name of each class


def label(names: list[str], labels: str | None, where: pathlib.Path) -> Labels:
  """The labels of the files `names`, paths with slashes below `where`.

  Args:
    labels: one of
      'folders': the first folder below the one that holds all of them;
      'prefix': the file's name up to its first '_' (`n01440764_18.JPEG`), as the reference;
      the path of a .json or .csv: see `from_list`;
      None: no classes, every label 0.

  Raises:
    UsageError: a file has no label.
  """
  if labels is None:
    return np.zeros(len(names), np.int32), ()
  if labels == 'folders':
    return _numbered(_folders(names, where))
  if labels == 'prefix':
    return _numbered([_prefix(name, where) for name in names])
  return from_list(names, pathlib.Path(labels).expanduser(), where)


def _numbered(classes: list[str]) -> Labels:
  class_names, labels = np.unique(classes, return_inverse=True)
  return labels.astype(np.int32), tuple(map(str, class_names))


def _folders(names: list[str], where: pathlib.Path) -> list[str]:
  parts = [name.split('/')[:-1] for name in names]
  for folders, name in zip(parts, names):
    if not folders:
      raise UsageError(f'{where / name} lies in no sub-folder, which would be its class: '
                       "set labels to 'prefix', to a .json or .csv file, or to None")
  # A wrapping folder that holds everything is no class, unless it is all there is.
  least = min(map(len, parts))
  depth = 0
  while depth < least - 1 and len({folders[depth] for folders in parts}) == 1:
    depth += 1
  return [folders[depth] for folders in parts]


def _prefix(name: str, where: pathlib.Path) -> str:
  prefix, underscore, _ = name.split('/')[-1].partition('_')
  if not underscore:
    raise UsageError(f"{where / name} has no '_' after its class: labels='prefix' reads "
                     "names like cat_0001.png; set labels to 'folders', to a .json or .csv file, "
                     'or to None')
  return prefix


def from_list(names: list[str], path: pathlib.Path, where: pathlib.Path) -> Labels:
  """Labels from a file: names of classes, or their numbers from 0.

  Args:
    names: files whose label is wanted.
    path: a .csv with two columns, file and label, with or without a heading; or a .json, either
      {file: label} or {"labels": [[file, label], ...]}, the dataset.json of StyleGAN and EDM.
    where: the data set, for messages.
  """
  if not path.is_file():
    raise UsageError(f"labels={str(path)!r} is no file: give 'folders', 'prefix', None, or the "
                     'path of a .json or .csv')
  if path.stat().st_size > _MOST_BYTES:
    raise UsageError(f'{path} has {path.stat().st_size:,} bytes, and at most {_MOST_BYTES:,} are '
                     'read of a list of labels: is it the right file?')
  try:
    table = _read_csv(path) if path.suffix.lower() == '.csv' else _read_json(path)
  except (OSError, ValueError, TypeError, RecursionError, csv.Error) as error:
    raise UsageError(f'{path} is no list of labels ({one_line(error)}): write file and label in a '
                     '.csv, or {"file": label} in a .json') from error
  missing = [name for name in names if name not in table]
  if missing:
    raise UsageError(f'{path} has no label for {missing[0]} and {len(missing) - 1} more of '
                     f'the {len(names)} images of {where}: add them')
  found = [table[name] for name in names]
  if all(str(value).removeprefix('-').isdecimal() for value in found):
    longest = max(found, key=lambda value: len(str(value)))
    if len(str(longest)) > _MOST_DIGITS:
      raise UsageError(f'{path} has the label {str(longest)[:_MOST_DIGITS]}... of '
                       f'{len(str(longest)):,} digits: labels count the classes from 0')
    numbers = [int(value) for value in found]
    if min(numbers) < 0:
      raise UsageError(f'{path} has the label {min(numbers)}: labels count the classes from 0; '
                       'give names instead, if these are others')
    class_names = names_up_to(max(numbers), path)
    return np.array(numbers, np.int32), class_names
  return _numbered([str(value) for value in found])


def names_up_to(largest: int, where: pathlib.Path) -> tuple[str, ...]:
  """The names of classes that are numbers, '0' to `largest`, as labels of `where` say."""
  if largest >= _MOST_CLASSES:
    raise UsageError(f'{where} has the label {largest}: labels count the classes from 0; give '
                     'names instead, if these are others')
  return tuple(map(str, range(largest + 1)))


def _read_csv(path: pathlib.Path) -> Mapping[str, str]:
  with open(path, newline='', encoding=_ENCODING) as file:
    return {row[0].strip(): row[1].strip() for row in csv.reader(file) if len(row) >= 2}


def _read_json(path: pathlib.Path) -> Mapping[str, str | int]:
  content = json.loads(path.read_text(_ENCODING))
  if isinstance(content, dict) and isinstance(content.get('labels'), list):
    content = {name: value for name, value in content['labels']}
  if not isinstance(content, dict) or not all(isinstance(value, (str, int))
                                              for value in content.values()):
    raise ValueError('not an object of files and labels')
  return content
