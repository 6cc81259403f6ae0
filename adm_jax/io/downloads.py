"""Files from the network: fetched once, resumed, checked, and kept."""

import hashlib
import http.client
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from typing import Callable

from adm_jax.errors import UsageError
from adm_jax.io import cache
from adm_jax.io.files import written_whole

_CHUNK = 1 << 20


def fetch(name: str, address: str, bar: Callable, *, sizes: range, sha256: str | None,
          otherwise: str) -> pathlib.Path:
  """The path of a published file, downloaded to `io.cache.folder()` if it is not there.

  Args:
    name: what it is, for messages.
    address: where it lies.
    bar: bar(total, title) is a context that gives advance(count).
    sizes: how many bytes it may have.
    sha256: where known.
    otherwise: what a user without a network may do instead of putting it there.

  Raises:
    UsageError: no network, or a file of the wrong size or content.
  """
  path = cache.folder() / urllib.parse.urlparse(address).path.rsplit('/', 1)[-1]
  if not path.exists():
    download(address, path, bar, otherwise)
  size = path.stat().st_size
  if size not in sizes or (sha256 and not _has_digest(path, sha256)):
    raise UsageError(f'{path} ({size:,} bytes) is not the published {name} '
                     f'({"" if len(sizes) == 1 else "at least "}{sizes[0]:,} bytes'
                     f'{", sha256 " + sha256 if sha256 else ""}): remove it, and it is fetched '
                     'again')
  return path


def download(address: str, path: pathlib.Path, bar: Callable, otherwise: str) -> None:
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
      reason = f'{error.code} {error.reason}'
      raise UsageError(_unreachable(address, path, reason, otherwise)) from error
    total = have
  except (OSError, http.client.HTTPException) as error:
    reason = getattr(error, 'reason', None) or error
    raise UsageError(_unreachable(address, path, reason, otherwise)) from error
  size = part.stat().st_size
  if total and size != total:
    raise UsageError(f'{address} broke off at {size:,} of {total:,} bytes: the same command goes '
                     'on from there')
  part.rename(path)


def _unreachable(address: str, path: pathlib.Path, reason: object, otherwise: str) -> str:
  return (f'{address} cannot be fetched ({reason}): fetch it elsewhere and put it at {path}, or '
          f'{otherwise}')


def _has_digest(path: pathlib.Path, sha256: str) -> bool:
  """Whether a file has this SHA-256; gigabytes are read once, and then only if it has changed."""
  status, seen = path.stat(), path.with_name(f'.{path.name}.sha256')
  stamp = f'{sha256} {status.st_size} {status.st_mtime_ns}'
  if seen.exists() and seen.read_text() == stamp:
    return True
  if digest(path) != sha256:
    return False
  with written_whole(seen) as part:
    part.write_text(stamp)
  return True


def digest(path: pathlib.Path) -> str:
  """The SHA-256 of a file, in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
