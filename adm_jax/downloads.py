"""Files from the network: fetched once, resumed, checked, and kept."""

import hashlib
import http.client
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from typing import Callable

from adm_jax import zoo
from adm_jax.errors import UsageError

_CHUNK = 1 << 20


def fetch_model(model: zoo.Model, bar: Callable) -> pathlib.Path:
  """The path of a published model's file, downloaded to `zoo.cache_folder()` if it is not there.

  Args:
    model: which.
    bar: bar(total, title) is a context that gives advance(count).

  Raises:
    UsageError: no network, or a file of the wrong size or content; says what to fetch, and where
      to put it.
  """
  name = urllib.parse.urlparse(model.address).path.rsplit('/', 1)[-1]
  path = zoo.cache_folder() / name
  if not path.exists():
    download(model.address, path, bar)
  size = path.stat().st_size
  wanted = model.file_bytes or model.least_bytes
  wrong_size = size != wanted if model.file_bytes else not wanted <= size <= 1.01 * wanted + 1e6
  if wrong_size or (model.sha256 and _sha256(path) != model.sha256):
    raise UsageError(f'{path} ({size:,} bytes) is not the published {model.name} '
                     f'({"" if model.file_bytes else "at least "}{wanted:,} bytes'
                     f'{", sha256 " + model.sha256 if model.sha256 else ""}): remove it, and it is '
                     'fetched again')
  return path


def download(address: str, path: pathlib.Path, bar: Callable) -> None:
  """Fetches `address` to `path`, which appears when it is whole; goes on from `path`.part."""
  part = path.with_name(path.name + '.part')
  path.parent.mkdir(parents=True, exist_ok=True)
  have = part.stat().st_size if part.exists() else 0
  request = urllib.request.Request(address, headers={'Range': f'bytes={have}-'} if have else {})
  try:
    with urllib.request.urlopen(request, timeout=60) as response:
      if have and response.status != 206:  # the server does not resume: from the start
        have = 0
      total = have + int(response.headers.get('Content-Length', 0))
      mode = 'ab' if have else 'wb'
      with open(part, mode) as file, bar(total, f'fetching {path.name}') as advance:
        advance(have)
        while chunk := response.read(_CHUNK):
          file.write(chunk)
          advance(len(chunk))
  except urllib.error.HTTPError as error:
    if error.code != 416:  # nothing is left to fetch: the part is whole already
      raise UsageError(_unreachable(address, path, f'{error.code} {error.reason}')) from error
    total = have
  except (OSError, http.client.HTTPException) as error:
    reason = getattr(error, 'reason', None) or error
    raise UsageError(_unreachable(address, path, reason)) from error
  size = part.stat().st_size
  if total and size != total:
    raise UsageError(f'{address} broke off at {size:,} of {total:,} bytes: the same command goes '
                     'on from there')
  part.rename(path)


def _unreachable(address: str, path: pathlib.Path, reason: object) -> str:
  return (f'{address} cannot be fetched ({reason}): fetch it elsewhere and put it at {path}, or '
          'name your copy instead of the model')


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
