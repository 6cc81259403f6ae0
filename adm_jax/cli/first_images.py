"""How long it takes from a command to its first images, by stage.

    clock = Clock()
    ...                          # get the models
    clock.end('weights')
    for images in clock.first(batches):
      ...
    print(clock.report())
"""

import time
from typing import Any, Iterable, Iterator

_BEGIN = time.perf_counter()  # commands import this module first, and JAX later
# JAX's names for what it does between a Python function and its first result.
_EVENTS = {'/jax/core/compile/jaxpr_trace_duration': 'tracing',
           '/jax/core/compile/jaxpr_to_mlir_module_duration': 'tracing',
           '/jax/core/compile/backend_compile_duration': 'compiling'}


class Clock:
  """Seconds of each stage that has ended, `stages`; what came before the clock is 'imports'."""

  def __init__(self):
    self.stages: dict[str, float] = {}
    self._last = _BEGIN
    self.end('imports')

  def end(self, stage: str) -> None:
    """Everything since the last stage was `stage`."""
    now = time.perf_counter()
    self.stages[stage] = now - self._last
    self._last = now

  def first(self, batches: Iterable[Any]) -> Iterator[Any]:
    """Passes batches on; the time to the first is tracing, compiling and sampling."""
    import jax

    spans = []

    def listen(event: str, seconds: float, **_):
      if event in _EVENTS:
        end = time.perf_counter()
        # Functions are traced inside of others, and reported first.
        spans[:] = [span for span in spans if span[1] < end - seconds]
        spans.append((_EVENTS[event], end - seconds, end))
    jax.monitoring.register_event_duration_secs_listener(listen)
    batches = iter(batches)
    try:
      batch = next(batches, None)
    finally:
      jax.monitoring.unregister_event_duration_listener(listen)
    self.end('all')
    of = {stage: sum(end - begin for name, begin, end in spans if name == stage)
          for stage in ('tracing', 'compiling')}
    self.stages |= of | {'sampling': self.stages.pop('all') - sum(of.values())}
    if batch is not None:
      yield batch
      yield from batches

  def report(self) -> str:
    """'6.1 s: imports 1.2, weights 0.9, ...'."""
    parts = ', '.join(f'{stage} {seconds:.1f}' for stage, seconds in self.stages.items())
    return f'{sum(self.stages.values()):.1f} s: {parts}'
