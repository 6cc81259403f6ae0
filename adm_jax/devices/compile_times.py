"""How long JAX traces and compiles, as it reports it itself."""

import contextlib
import time
from typing import Iterator, NamedTuple

import jax

# JAX's names for what it does between a Python function and its first result.
_EVENTS = {'/jax/core/compile/jaxpr_trace_duration': 'tracing',
           '/jax/core/compile/jaxpr_to_mlir_module_duration': 'tracing',
           '/jax/core/compile/backend_compile_duration': 'compiling'}


class Span(NamedTuple):
  """What JAX did from one reading of `time.perf_counter` to another: 'tracing' or 'compiling'."""
  what: str
  begin: float
  end: float


class Spans:
  """What was traced and compiled so far; none lies inside of another."""

  def __init__(self):
    self._spans: list[Span] = []

  def add(self, what: str, seconds: float) -> None:
    """Adds what ends now."""
    end = time.perf_counter()
    # Functions are traced inside of others, and reported first.
    self._spans[:] = [span for span in self._spans if span.end < end - seconds]
    self._spans.append(Span(what, end - seconds, end))

  def seconds(self, *which: str) -> float:
    """In all, or of these alone."""
    return sum(span.end - span.begin for span in self._spans if not which or span.what in which)


@contextlib.contextmanager
def listening() -> Iterator[Spans]:
  """Gives the spans of all threads, which grow until the block ends."""
  spans = Spans()

  def listen(event: str, seconds: float, **_):
    if event in _EVENTS:
      spans.add(_EVENTS[event], seconds)
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield spans
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
