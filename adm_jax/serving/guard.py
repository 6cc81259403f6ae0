"""Who may ask, and how much: hosts, origins, tokens and sizes, before anything is read."""

import asyncio
import dataclasses
import hmac
import ipaddress
import urllib.parse
from typing import Any, Callable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from adm_jax.errors import UsageError

COOKIE = 'adm_token_{port}'  # browsers send a host's cookies to all its ports
# Nothing from elsewhere, so that the page works offline, and nobody's page can frame it.
HEADERS = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "img-src 'self' data: blob:; connect-src 'self'; "
                               "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store'}


class Refused(Exception):
  """A request that is not served; `status` is HTTP's."""

  def __init__(self, status: int, why: str):
    super().__init__(why)
    self.status = status


def is_local(host: str) -> bool:
  """Whether only this machine can reach a server bound to `host`."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def complaint(status: int, why: object) -> Response:
  """An answer that says in one line what is wrong."""
  return JSONResponse({'error': str(UsageError(str(why)))}, status)


@dataclasses.dataclass(frozen=True, eq=False)
class Guard:
  """ASGI middleware that lets in whom the server is for.

  Attributes:
    app: what it guards.
    token: who has it, in the address or in the cookie that this leaves, may ask; None: anyone who
      calls this machine by a name of its own, which a foreign page cannot (DNS rebinding).
  """
  app: Callable
  token: str | None = None

  async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
    if scope['type'] != 'http':
      return await self.app(scope, receive, send)
    cookie = False
    try:
      cookie = self._check(Request(scope))
    except Refused as error:
      return await complaint(error.status, error)(scope, receive, _with_headers(send))
    await self.app(scope, receive, _with_headers(
        send, f'{_cookie(scope)}={self.token}' if cookie else None))

  def _check(self, request: Request) -> bool:
    """Whether the token came in the address, so that a cookie should follow.

    Raises:
      Refused: a foreign host or origin, or no token.
    """
    headers = request.headers
    host = headers.get('host', '')
    if self.token is None and not is_local(_name(host)):
      raise Refused(421, f'host {host[:80]!r}: call this machine localhost or 127.0.0.1')
    _check_origin(headers, host)
    if self.token is None:
      return False
    given = request.query_params.get('token')
    if given is not None and _same(given, self.token):
      return True
    if not _same(request.cookies.get(_cookie(request.scope), ''), self.token):
      raise Refused(401, 'open the address that adm serve has printed, with its token')
    return False


def _check_origin(headers: Headers, host: str) -> None:
  origin = headers.get('origin')  # which browsers send with every POST
  if origin is not None and origin.partition('://')[2] != host:
    raise Refused(403, f'a page of {origin[:80]!r} may not ask')


def _name(host: str) -> str:
  """The host of HOST:PORT or [HOST]:PORT."""
  try:
    return urllib.parse.urlsplit(f'//{host}').hostname or ''
  except ValueError:
    return ''


def _same(given: str, token: str) -> bool:
  return hmac.compare_digest(given.encode(errors='replace'), token.encode())


def _cookie(scope: dict[str, Any]) -> str:
  return COOKIE.format(port=scope['server'][1])


def _with_headers(send: Callable, cookie: str | None = None) -> Callable:
  async def send_with_headers(message):
    if message['type'] == 'http.response.start':
      extra = dict(HEADERS)
      if cookie:
        extra['Set-Cookie'] = f'{cookie}; HttpOnly; SameSite=Strict; Path=/'
      message = {**message, 'headers': [*message['headers'], *(
          (name.lower().encode(), value.encode()) for name, value in extra.items())]}
    await send(message)
  return send_with_headers


async def body(request: Request, most: int, timeout: float) -> bytes:
  """Reads a request's body.

  Args:
    request: whose.
    most: bytes.
    timeout: seconds.

  Raises:
    Refused: it has more, or does not come.
  """
  length = request.headers.get('content-length', '0')
  if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
    raise Refused(413, f'{length[:20]} bytes: at most {most:,} are read')
  found = bytearray()
  try:
    async with asyncio.timeout(timeout):
      async for chunk in request.stream():
        found += chunk
        if len(found) > most:
          raise Refused(413, f'more than the {most:,} bytes that are read')
  except ClientDisconnect as error:  # nobody reads the answer, but the server's log stays quiet
    raise Refused(400, 'the visitor has left') from error
  except TimeoutError as error:
    raise Refused(408, f'the request did not come within {timeout:g} s') from error
  return bytes(found)
