"""The routes: the page's three files, what it may ask, and streams of what comes of it.

    GET  /, /page.css, /page.js
    GET  /api/offers    the models, solvers, spacings and buckets
    POST /api/run       {visitor, number, runs: [...], film, score, arrows} -> server-sent events
    POST /api/crop      a picture file -> the pixels that the model sees
"""

import asyncio
import contextlib
import dataclasses
import importlib.resources
import io
import json
import math
import re
from typing import Any, AsyncIterator, Callable, Iterator, Sequence

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adm_jax.data import decoding
from adm_jax.data.decoding import Decoder
from adm_jax.errors import UsageError
from adm_jax.sampling import solvers, spacings
from adm_jax.serving import runs, words
from adm_jax.serving.guard import Guard, Refused, body, complaint
from adm_jax.serving.models import Model
from adm_jax.serving.runs import Event, Studio, Wanted
from adm_jax.serving.worker import Busy, Outbox, Outdated, Worker

MOST_WORDS, MOST_UPLOAD = 1 << 20, 8 << 20  # bytes
_MOST_UPLOADED_PIXELS = 1 << 24
_SECONDS_TO_SEND = 10  # a request
_SECONDS_TO_READ = 30  # an event
_SECONDS_OF_SILENCE = 15  # after which a line says that the server is there: proxies give up at 60
_FILES = {'/': ('index.html', 'text/html'), '/page.css': ('page.css', 'text/css'),
          '/page.js': ('page.js', 'text/javascript')}


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
  """What the server is for.

  Attributes:
    models: that it offers, the first one first.
    worker: its thread for JAX, not started.
    studio: that the thread works in.
    token: who may ask, see `Guard`.
    say: gets a line when the first images can be made at once, or why they cannot.
  """
  models: Sequence[Model]
  worker: Worker = dataclasses.field(default_factory=Worker)
  studio: Studio = dataclasses.field(default_factory=Studio)
  token: str | None = None
  say: Callable[[str], None] = lambda line: None


def app(served: Served) -> Guard:
  """Returns the ASGI application."""
  @contextlib.asynccontextmanager
  async def lifespan(_):
    served.worker.start()
    served.worker.submit('(the server)', 0, _warm(served), served.worker.outbox(lambda: None))
    yield
    served.worker.stop()

  routes = [Route(path, _file(*found)) for path, found in _FILES.items()]
  routes += [Route('/api/offers', _offers(served)),
             Route('/api/run', _run(served), methods=['POST']),
             Route('/api/crop', _crop(served), methods=['POST'])]
  return Guard(Starlette(routes=routes, lifespan=lifespan, exception_handlers={
      HTTPException: _http_error, Refused: _refused, UsageError: _mistake, Exception: _fault}),
               served.token)


async def _http_error(_, error: HTTPException) -> Response:
  return complaint(error.status_code, error.detail)


async def _refused(_, error: Refused) -> Response:
  return complaint(error.status, error)


async def _mistake(_, error: UsageError) -> Response:
  return complaint(400, error)


async def _fault(_, error: Exception) -> Response:
  return complaint(500, f'a mistake of the server: {type(error).__name__}')


def _file(name: str, kind: str) -> Callable:
  content = (importlib.resources.files('adm_jax.serving') / 'page' / name).read_bytes()

  async def answer(_: Request) -> Response:
    return Response(content, media_type=f'{kind}; charset=utf-8')
  return answer


def _offers(served: Served) -> Callable:
  makers = {name: make() for name, make in solvers.offered().items()}
  found = {
      'models': [model.described() for model in served.models],
      'solvers': [{'name': name, 'deterministic': solver.deterministic,
                   'neighbors_only': solver.neighbors_only, 'eta': 'eta' in solvers.options(name)}
                  for name, solver in makers.items()],
      'spacings': list(spacings.OFFERED), 'steps': words.STEPS, 'etas': words.ETAS,
      'most_images': words.MOST_IMAGES}

  async def answer(_: Request) -> Response:
    return JSONResponse(found)
  return answer


def _warm(served: Served) -> Iterator[Event]:
  """Compiles what the page shows first."""
  model = served.models[0]
  try:
    for guide in reversed(model.guides):
      for _ in served.studio.run([words.first(model, guide)], Wanted()):
        yield Event('', {})  # visitors take turns with it
  except UsageError as error:
    return served.say(str(error))
  served.say('ready: images come as you ask')


def _run(served: Served) -> Callable:
  most = most_request(served.models)

  async def answer(request: Request) -> Response:
    asked = await _json(request, most)
    visitor, number = _visitor(asked)
    wanted = Wanted(*(_flag(asked, name) for name in ('film', 'score', 'arrows')))
    given = asked.get('runs')
    if not isinstance(given, list) or not 1 <= len(given) <= words.MOST_RUNS:
      raise UsageError(f'runs: give a list of 1 to {words.MOST_RUNS}')
    found = [words.read(value, served.models) for value in given]
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    outbox = served.worker.outbox(lambda: _wake(loop, ready))
    try:
      served.worker.submit(visitor, number, served.studio.run(found, wanted), outbox)
    except Outdated as error:
      raise Refused(409, f'request {number} is not the newest') from error
    except Busy as error:
      raise Refused(503, 'too many visitors, or the server ends: try again') from error
    return _Stream(_events(outbox, ready), lambda: served.worker.leave(visitor, number))
  return answer


def most_request(models: Sequence[Model]) -> int:
  """The bytes of a request: its words, and an image in base64 for each kind of guidance."""
  images = max(len(model.guides) * math.prod(model.network.image_shape) for model in models)
  return MOST_WORDS + 4 * images // 3


def _wake(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> None:
  with contextlib.suppress(RuntimeError):  # the loop of a server that has ended
    loop.call_soon_threadsafe(ready.set)


async def _events(outbox: Outbox, ready: asyncio.Event) -> AsyncIterator[Event | None]:
  """What comes, and None where nothing has come for a while."""
  while True:
    ready.clear()
    closed = outbox.closed  # before events are taken: nothing comes after it
    for event in outbox.take():
      yield event
    if closed:
      return
    try:
      await asyncio.wait_for(ready.wait(), _SECONDS_OF_SILENCE)
    except TimeoutError:
      yield None


@dataclasses.dataclass(frozen=True, eq=False)
class _Stream:
  """An ASGI response of server-sent events, which ends when its reader has gone or reads nothing.

  Attributes:
    events: what to send; of None a comment, which readers pass over.
    leave: called at the end.
  """
  events: AsyncIterator[Event | None]
  leave: Callable[[], None]

  async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
    sending = asyncio.ensure_future(self._send(send))
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
      await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
      self.leave()
      for task in (sending, gone):
        task.cancel()
      await asyncio.gather(sending, gone, return_exceptions=True)

  async def _send(self, send: Callable) -> None:
    await send({'type': 'http.response.start', 'status': 200, 'headers': [
        (b'content-type', b'text/event-stream; charset=utf-8'), (b'x-accel-buffering', b'no')]})
    async for event in self.events:
      text = (': waiting\n\n' if event is None else
              f'event: {event.name}\ndata: {json.dumps(event.data)}\n\n')
      async with asyncio.timeout(_SECONDS_TO_READ):
        await send({'type': 'http.response.body', 'body': text.encode(), 'more_body': True})
    await send({'type': 'http.response.body', 'body': b'', 'more_body': False})


async def _disconnected(receive: Callable) -> None:
  while (await receive())['type'] != 'http.disconnect':
    pass


def _crop(served: Served) -> Callable:
  async def answer(request: Request) -> Response:
    model = _named(served.models, request.query_params.get('model'))
    data = await body(request, MOST_UPLOAD, _SECONDS_TO_SEND)
    # In a thread of its own: it takes as long as the picture is large.
    pixels = await asyncio.to_thread(_decoded, data, model)
    return JSONResponse({'pixels': runs.base64_of(pixels.tobytes()), 'png': runs.png(pixels)})
  return answer


def _named(models: Sequence[Model], name: str | None) -> Model:
  found = {model.name: model for model in models}.get(name)
  if found is None:
    raise UsageError(f'model {str(name)[:60]!r}: there are {", ".join(m.name for m in models)}')
  return found


def _decoded(data: bytes, model: Model) -> np.ndarray:
  """A picture file as the uint8[H W C] that `adm sample --images` makes of it."""
  height, width, channels = model.network.image_shape
  if height != width:
    raise UsageError(f'pictures are cut to squares, and {model.name} makes {height} x {width}')
  try:
    rows, columns = decoding.size(io.BytesIO(data))
    if rows * columns > _MOST_UPLOADED_PIXELS:
      raise UsageError(f'{rows:,} x {columns:,} pixels: at most {_MOST_UPLOADED_PIXELS:,} are read')
    return Decoder(height, channels=channels)(data)
  except UsageError:
    raise
  except Exception as error:  # whatever Pillow raises
    raise UsageError(f'the picture: {decoding.reason(error)}') from error


async def _json(request: Request, most: int) -> dict[str, Any]:
  kind = request.headers.get('content-type', '').partition(';')[0].strip()
  if kind != 'application/json':  # which a foreign page's form cannot send
    raise Refused(415, f'{kind[:40]!r}: give application/json')
  data = await body(request, most, _SECONDS_TO_SEND)
  try:
    found = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise UsageError('the request is no JSON') from error
  if not isinstance(found, dict):
    raise UsageError('the request is no object')
  return found


def _visitor(asked: dict[str, Any]) -> tuple[str, int]:
  visitor, number = asked.get('visitor'), asked.get('number')
  if not isinstance(visitor, str) or not re.fullmatch(r'[0-9a-f]{8,32}', visitor):
    raise UsageError('visitor: give 8 to 32 hexadecimal digits')
  if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**53:
    raise UsageError('number: give a whole number, higher than the last')
  return visitor, number


def _flag(asked: dict[str, Any], name: str) -> bool:
  found = asked.get(name, False)
  if not isinstance(found, bool):
    raise UsageError(f'{name}: give true or false')
  return found
