"""Binds a port, and serves until a signal comes."""

import secrets
import socket
from typing import Callable

import uvicorn

from adm_jax.errors import UsageError
from adm_jax.serving.app import Served, app
from adm_jax.serving.guard import is_local
from adm_jax.serving.models import Model

_SECONDS_TO_END = 1  # for answers that are on their way
_MOST_CONNECTIONS = 256


def listen(host: str, port: int) -> socket.socket:
  """Binds a port of `host`; 0 takes any.

  Raises:
    UsageError: it is taken, or the host is none of this machine's.
  """
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)
  except (OSError, UnicodeError) as error:  # the latter of what can be no name of a host
    reason = getattr(error, 'strerror', None) or error
    raise UsageError(f'{host}:{port} cannot be bound ({reason}): give another --host or --port, 0 '
                     'for any') from error


def address(host: str, port: int, token: str | None) -> str:
  """Returns what to open in a browser; of a server at all addresses, by this machine's name."""
  name = socket.gethostname() if host in ('', '0.0.0.0', '::') else host
  name = f'[{name}]' if ':' in name else name
  return f'http://{name}:{port}/' + ('' if token is None else f'?token={token}')


def serve(models: tuple[Model, ...], bound: socket.socket, host: str,
          say: Callable[[str], None] = print) -> None:
  """Serves until SIGINT or SIGTERM, of which the first then goes on as KeyboardInterrupt.

  Args:
    models: that the page offers.
    bound: from `listen`.
    host: what it was bound to: one that others can reach gets a token.
    say: gets a line with the address, and one when the first images can be made.
  """
  token = None if is_local(host) else secrets.token_urlsafe(24)
  served = Served(models, token=token, say=say)
  say(f'the page: {address(host, bound.getsockname()[1], token)}')
  uvicorn.Server(config(app(served))).run(sockets=[bound])


def config(application: Callable) -> uvicorn.Config:
  """How the application is served."""
  return uvicorn.Config(application, log_level='warning', access_log=False, http='h11', ws='none',
                        server_header=False, limit_concurrency=_MOST_CONNECTIONS,
                        timeout_graceful_shutdown=_SECONDS_TO_END,
                        h11_max_incomplete_event_size=1 << 15)
