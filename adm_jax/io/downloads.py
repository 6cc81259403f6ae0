"""Files from the network: fetched once, resumed, checked, and kept."""

import contextlib
import hashlib
import http.client
import logging
import pathlib
import re
import urllib.error
import urllib.parse
from typing import Callable, Iterator, NamedTuple

from adm_jax.errors import UsageError, one_line
from adm_jax.io import cache, locks, transfers
from adm_jax.io.files import written_whole

_log = logging.getLogger(__name__)


def fetch(name: str, address: str, bar: Callable, *, sizes: range, sha256: str | None,
          otherwise: str) -> pathlib.Path:
  """The path of a published file, downloaded to `io.cache.folder()` if it is not there.

  Only a file of the right size and content gets its name. One that is found there and is not right
  is fetched again; it stays until the new one is whole. Where no SHA-256 is known, that of the
  first use is recorded beside the file, and counts from then on. Several processes may ask for one
  file at once: one fetches it, and the others wait.

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
  if path.exists() and _fault(path, sizes, sha256) is None:
    return path
  with _locked(path):
    wanted = sha256 or (_expected(path) if path.exists() else None)
    if path.exists():
      fault = _fault(path, sizes, sha256)
      if fault is None:  # another process was faster
        return path
      _log.warning('%s is not the published %s (%s): it is fetched again', path, name, fault)
    try:
      download(address, path, bar, otherwise, sizes=sizes, sha256=wanted)
    except transfers.Refused as error:
      record = '' if wanted == sha256 else f' (and remove {_record_path(path)}, if it has changed)'
      raise UsageError(f'what {address} sends is not the published {name} ({error}): fetch it '
                       f'elsewhere and put it at {path}{record}, or {otherwise}') from error
  return path


def download(address: str, path: pathlib.Path, bar: Callable, otherwise: str, *, sizes: range,
             sha256: str | None) -> None:
  """Fetches `address` to `path`, which appears when it is whole; goes on from `path`.part.

  Raises:
    UsageError: it cannot be fetched.
    transfers.Refused: what comes is of the wrong size or content.
  """
  part = path.with_name(path.name + '.part')
  resumed = True
  while resumed:
    try:
      resumed = transfers.resume(address, part, bar, most=sizes[-1],
                                 title=f'fetching {path.name}')
    except transfers.BrokenOff as error:
      raise UsageError(f'{address} {error}: the same command goes on from there') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
      reason = one_line(getattr(error, 'reason', None) or error)
      code = f'{error.code} ' if isinstance(error, urllib.error.HTTPError) else ''
      raise UsageError(f'{address} cannot be fetched ({code}{reason}): fetch it elsewhere and put '
                       f'it at {path}, or {otherwise}') from error
    found, fault = _checked(part, sizes, sha256)
    if fault is None:
      transfers.finish(part, path)
      _record(path, found)
      return
    transfers.discard(part)  # if its beginning was of another file, all of it is fetched, once
  raise transfers.Refused(fault)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      stack.enter_context(locks.held(path.with_name(f'.{path.name}.lock'),
                                     f'another process fetches {path.name}: waiting for it'))
    except OSError as error:
      raise UsageError(f'{path.parent}, where downloads are kept, cannot be written '
                       f'({one_line(error)}): set ADM_CACHE to a folder of yours') from error
    yield


def _fault(path: pathlib.Path, sizes: range, sha256: str | None) -> str | None:
  """Why a file is not the published one, or None. Gigabytes are read once, until they change."""
  record, status = _recorded(path), path.stat()
  wanted = sha256 or _expected(path)
  if status.st_size in sizes and record == _Record(wanted, status.st_size, status.st_mtime_ns):
    return None
  found, fault = _checked(path, sizes, wanted)
  if fault is None:
    _record(path, found)
  elif found and not sha256:
    fault += ' as at its first use'
  return fault


def _checked(path: pathlib.Path, sizes: range, sha256: str | None) -> tuple[str, str | None]:
  """(a file's SHA-256, what is wrong with it); a file of the wrong size is not read."""
  size = path.stat().st_size
  if size not in sizes:
    right = f'{sizes[0]:,}' + ('' if len(sizes) == 1 else f' to {sizes[-1]:,}')
    return '', f'{size:,} bytes, not {right}'
  found = digest(path)
  if sha256 and found != sha256:
    return found, f'sha256 {found[:16]}..., not {sha256[:16]}...'
  return found, None


class _Record(NamedTuple):
  """The file that was right: its SHA-256, how many bytes it has, and when it was changed."""
  sha256: str
  size: int
  mtime_ns: int


def _record_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'.{path.name}.sha256')


def _recorded(path: pathlib.Path) -> _Record | None:
  try:
    text = _record_path(path).read_text()
  except (OSError, ValueError):
    return None
  match = re.fullmatch(r'([0-9a-f]{64}) ([0-9]{1,18}) ([0-9]{1,20})', text)
  return _Record(match[1], int(match[2]), int(match[3])) if match else None


def _expected(path: pathlib.Path) -> str | None:
  """The SHA-256 that a file had at its first use."""
  record = _recorded(path)
  return record.sha256 if record else None


def _record(path: pathlib.Path, sha256: str) -> None:
  status = path.stat()
  # A folder that cannot be written, or another process at the same: the file is as good.
  with contextlib.suppress(OSError), written_whole(_record_path(path)) as part:
    part.write_text(f'{sha256} {status.st_size} {status.st_mtime_ns}')


def digest(path: pathlib.Path) -> str:
  """The SHA-256 of a file, in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
