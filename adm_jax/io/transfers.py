"""One file over HTTP, into a part that a later call goes on with."""

import http.client
import json
import pathlib
import re
import urllib.error
import urllib.request
from typing import Callable

from adm_jax.io.files import written_whole

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


class Refused(Exception):
  """The server's answer cannot be the file; the message says why."""


class BrokenOff(Exception):
  """Some bytes came, and stay; the message says how many."""


def resume(address: str, part: pathlib.Path, bar: Callable, *, most: int, title: str) -> bool:
  """Fetches `address` to the end of `part`, which is whole when this returns.

  What the part holds is kept if the server still has the file that it began with: by its ETag or
  date (`If-Range`), its length, and where the answer says that it begins. Else all is fetched anew.

  Args:
    address: http or https.
    part: the file to write.
    bar: bar(total, title) is a context that gives advance(count).
    most: bytes that the file may have; what is longer is cut off and removed.
    title: for the bar.

  Returns:
    Whether bytes of an earlier call were kept.

  Raises:
    Refused, BrokenOff: see there.
    OSError, http.client.HTTPException: no network, or no such file.
  """
  have = part.stat().st_size if part.exists() else 0
  if have > most:
    discard(part)
    have = 0
  begun = _begun(part) if have else {}
  try:
    with _answer(address, have, begun.get('validator')) as response:
      begin = _begin(response, have, begun.get('total'))
      if begin is not None:
        _receive(response, part, begin, bar, most, title)
        return begin > 0
  except urllib.error.HTTPError as error:
    if error.code != 416 or not have:
      raise
    if _range(error.headers)[1] in (None, have):  # nothing is left to fetch
      return True
  discard(part)
  with _answer(address, 0, None) as response:
    if response.status != 200:
      raise Refused(f'it answers {response.status} when asked for the whole file')
    _receive(response, part, 0, bar, most, title)
  return False


def discard(part: pathlib.Path) -> None:
  """Removes a part, and what is noted of it."""
  for path in (part, _notes(part)):
    path.unlink(missing_ok=True)


def finish(part: pathlib.Path, path: pathlib.Path) -> None:
  """Moves a whole part to its name."""
  with written_whole(path) as temporary:
    part.rename(temporary)
  discard(part)


def _answer(address: str, have: int, validator: str | None) -> http.client.HTTPResponse:
  headers = {}
  if have:
    headers['Range'] = f'bytes={have}-'
    if validator:
      headers['If-Range'] = validator
  return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT)


def _begin(response: http.client.HTTPResponse, have: int, total: int | None) -> int | None:
  """The byte at which an answer begins; None if that is not where the part ends."""
  if response.status == 200:
    return 0
  first, said = _range(response.headers)
  fits = response.status == 206 and have and first == have and total in (None, said)
  return have if fits else None


def _receive(response: http.client.HTTPResponse, part: pathlib.Path, begin: int, bar: Callable,
             most: int, title: str) -> None:
  total = _total(response, begin)
  if total is not None and total > most:
    raise Refused(f'it has {total:,} bytes, and at most {most:,} are expected')
  if not begin:
    discard(part)
    _note(part, response, total)
  size, limit = begin, most if total is None else total
  with open(part, 'ab') as file, bar(total or 0, title) as advance:
    advance(begin)
    while chunk := response.read(_CHUNK):
      size += len(chunk)
      if size > limit:
        break
      file.write(chunk)
      advance(len(chunk))
  if size > limit:
    discard(part)
    raise Refused(f'it sends more than the {limit:,} bytes that are expected')
  if total is not None and size != total:
    raise BrokenOff(f'broke off at {size:,} of {total:,} bytes')


def _total(response: http.client.HTTPResponse, begin: int) -> int | None:
  """How many bytes the whole file has, where the answer says so."""
  length = response.headers.get('Content-Length')
  if length is not None and not re.fullmatch('[0-9]{1,18}', length.strip()):
    raise Refused(f'its Content-Length is {length[:40]!r}, no number of bytes')
  by_length = None if length is None else begin + int(length)
  by_range = _range(response.headers)[1] if response.status == 206 else None
  if None not in (by_length, by_range) and by_length != by_range:
    raise Refused(f'its headers disagree: {by_length:,} bytes by Content-Length, {by_range:,} by '
                  'Content-Range')
  return by_range if by_length is None else by_length


def _range(headers: http.client.HTTPMessage) -> tuple[int | None, int | None]:
  """(the first byte, the file's length) of a Content-Range, each None where it is not said."""
  match = re.fullmatch(r'\s*bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/(?:([0-9]{1,18})|\*)\s*',
                       headers.get('Content-Range') or '')
  return tuple(None if digits is None else int(digits)
               for digits in (match.groups() if match else (None, None)))


def _notes(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f'.{part.name}.json')


def _note(part: pathlib.Path, response: http.client.HTTPResponse, total: int | None) -> None:
  etag = response.headers.get('ETag', '')
  # Of two files with one weak ETag the bytes may differ, and If-Range takes none.
  validator = etag if etag.startswith('"') else response.headers.get('Last-Modified')
  with written_whole(_notes(part), sync=False) as temporary:
    temporary.write_text(json.dumps({'validator': validator, 'total': total}))


def _begun(part: pathlib.Path) -> dict:
  """What `_note` noted, or nothing."""
  try:
    found = json.loads(_notes(part).read_text())
    return found if isinstance(found, dict) else {}
  except (OSError, ValueError):
    return {}
