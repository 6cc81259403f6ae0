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

_BEGIN = time.perf_counter()  # `main` imports this module before the commands; JAX comes later


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
    from adm_jax.devices import compile_times  # which imports JAX

    batches = iter(batches)
    with compile_times.listening() as spans:
      batch = next(batches, None)
    self.end('all')
    of = {stage: spans.seconds(stage) for stage in ('tracing', 'compiling')}
    self.stages |= of | {'sampling': self.stages.pop('all') - sum(of.values())}
    if batch is not None:
      yield batch
      yield from batches

  def report(self) -> str:
    """'6.1 s: imports 1.2, weights 0.9, ...'."""
    parts = ', '.join(f'{stage} {seconds:.1f}' for stage, seconds in self.stages.items())
    return f'{sum(self.stages.values()):.1f} s: {parts}'
