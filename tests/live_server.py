"""A server of the live page in this process, and someone who asks it."""

import contextlib
import http.client
import itertools
import json
import threading
import time
from typing import Any, Iterator

import uvicorn

from adm_jax.serving import server
from adm_jax.serving.app import Served, app


class Visitor:
  """Asks a server, one request after another.

  Attributes:
    port: of the server at 127.0.0.1.
    name: hexadecimal digits.
  """
  _numbers = itertools.count()

  def __init__(self, port: int, name: str = '00c0ffee'):
    self.port, self.name = port, name

  def ask(self, runs: list, **more: Any) -> list[tuple[str, dict]]:
    """All events of a request; more is of the request."""
    status, text = self.post({'runs': runs, **more})
    assert status == 200, text
    return events(text)

  def post(self, request: dict[str, Any]) -> tuple[int, str]:
    return self.send('POST', '/api/run', json.dumps(
        {'visitor': self.name, 'number': next(self._numbers), **request}))

  def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """(status, text) of a request."""
    line = http.client.HTTPConnection('127.0.0.1', self.port, timeout=300)
    with contextlib.closing(line):
      line.request(method, path, body, {'Content-Type': 'application/json', **headers})
      answer = line.getresponse()
      return answer.status, answer.read().decode()


def events(text: str) -> list[tuple[str, dict]]:
  """(name, data) of server-sent events."""
  lines = (block.split('\n') for block in text.split('\n\n')
           if block and not block.startswith(':'))
  return [(name.removeprefix('event: '), json.loads(data.removeprefix('data: ')))
          for name, data in lines]


@contextlib.contextmanager
def serving(served: Served) -> Iterator[int]:
  """Serves on a port of this machine until the block ends."""
  bound = server.listen('127.0.0.1', 0)
  running = uvicorn.Server(server.config(app(served)))
  thread = threading.Thread(target=running.run, kwargs={'sockets': [bound]})
  thread.start()
  try:
    while not running.started:
      assert thread.is_alive()
      time.sleep(0.01)
    yield bound.getsockname()[1]
  finally:
    running.should_exit = True
    thread.join(20)
    bound.close()
    served.worker._thread.join(60)  # what compiles when the interpreter ends is an abort
  assert not thread.is_alive()
