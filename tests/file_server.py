"""A server of one file at 127.0.0.1, which misbehaves as it is told."""

import contextlib
import dataclasses
import hashlib
import http.server
import threading
import time
from typing import Callable, Iterator

BLOCK = 1 << 16


@dataclasses.dataclass
class FileServer:
  """Serves `content` as /model.pt, or as another path.

  Attributes:
    content: of the file.
    path: its name, from the slash on.
    resumes: whether it answers a `Range` by the rest of the file.
    break_at: the byte at which its next answer breaks off.
    etag: whether its answers carry one, and it heeds `If-Range`.
    headers: edit(headers) before they are sent, {name: value}.
    pause: seconds after every block of 64 KiB.
    asked: the `Range` of every request.
  """
  content: bytes
  path: str = '/model.pt'
  resumes: bool = True
  break_at: int | None = None
  etag: bool = False
  headers: Callable[[dict], None] = lambda headers: None
  pause: float = 0
  asked: list = dataclasses.field(default_factory=list)
  address: str = ''

  def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
    wanted, tag = request.headers.get('Range'), f'"{hashlib.md5(self.content).hexdigest()}"'
    self.asked.append(wanted)
    if request.path != self.path:
      return request.send_error(404)
    same = request.headers.get('If-Range') in (None, tag)
    ranged = wanted and self.resumes and same
    begin = int(wanted.removeprefix('bytes=').removesuffix('-')) if ranged else 0
    total = len(self.content)
    if begin >= total:
      return request.send_error(416)
    headers = {'Content-Length': total - begin}
    if begin:
      headers['Content-Range'] = f'bytes {begin}-{total - 1}/{total}'
    if self.etag:
      headers['ETag'] = tag
    self.headers(headers)
    request.send_response(206 if begin else 200)
    for name, value in headers.items():
      request.send_header(name, str(value))
    request.end_headers()
    end, self.break_at = self.break_at or total, None
    with contextlib.suppress(ConnectionError):  # of those who heard enough
      for at in range(begin, end, BLOCK):
        request.wfile.write(self.content[at:min(at + BLOCK, end)])
        time.sleep(self.pause)


@contextlib.contextmanager
def serving(content: bytes, **behavior) -> Iterator[FileServer]:
  served = FileServer(content, **behavior)

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      served.answer(self)

    def log_message(self, *arguments):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
    threading.Thread(target=running.serve_forever, daemon=True).start()
    served.address = f'http://127.0.0.1:{running.server_port}{served.path}'
    yield served
    running.shutdown()
