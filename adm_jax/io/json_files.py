"""Small files of JSON that anyone may have written: read in bounded memory, or refused."""

import json
import pathlib
from typing import Any

from adm_jax.errors import UsageError, of_file, one_line

_MOST = 4 << 20  # bytes; the longest config takes 6,000


def read(path: str | pathlib.Path) -> Any:
  """The value in a file.

  Raises:
    UsageError: no such file, or as `parse`; it names the file.
  """
  return parse(read_text(path), path)


def read_text(path: str | pathlib.Path) -> str:
  """The text of a file.

  Raises:
    UsageError: no such file, one of more than 4 MB, or no UTF-8; it names the file.
  """
  path = pathlib.Path(path) if isinstance(path, str) else path  # which may be a bucket's
  if not path.is_file():
    raise UsageError(f'there is no file {path}')
  with of_file(path), path.open('rb') as file:
    content = file.read(_MOST + 1)
    if len(content) > _MOST:
      raise UsageError(f'it has more than {_MOST:,} bytes, and this program writes no such file')
    try:
      return content.decode()
    except UnicodeDecodeError as error:
      raise UsageError(f'it is no text ({error})') from error


def parse(text: str, path: str | pathlib.Path = 'the text') -> Any:
  """The value that a text is.

  Raises:
    UsageError: it is cut short or no JSON, nested too deeply, or holds NaN; it names `path`.
  """
  try:
    return json.loads(text, parse_constant=_constant)
  except (ValueError, RecursionError) as error:
    raise UsageError(f'{path} is cut short or no JSON ({one_line(error)})') from error


def _constant(word: str) -> float:
  if word == 'NaN':
    raise ValueError('NaN is no number')
  return float(word)
