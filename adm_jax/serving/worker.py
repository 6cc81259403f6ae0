"""The one thread that owns JAX: visitors take turns, part by part, and of one the newest wins."""

import collections
import dataclasses
import threading
import traceback
from typing import Callable, Iterator

from adm_jax.errors import UsageError, one_line
from adm_jax.serving.runs import Event

# Events that wait for a visitor who does not read; then the visitor's run waits, and others go on.
MOST_WAITING = 8
MOST_VISITORS = 64


class Busy(RuntimeError):
  """There are as many visitors as are served at once."""


class Outdated(RuntimeError):
  """The visitor has asked for something else since."""


class Outbox:
  """What a visitor is still to read of one request; both ends may be in threads of their own."""

  def __init__(self, wake: Callable[[], None], room: Callable[[], None] = lambda: None):
    """Makes an empty one.

    Args:
      wake: called after an event was put in, by whichever thread did.
      room: called after events were taken out.
    """
    self._events: collections.deque[Event] = collections.deque()
    self._wake, self._room = wake, room
    self.closed = False

  @property
  def is_full(self) -> bool:
    return len(self._events) >= MOST_WAITING

  def put(self, event: Event) -> None:
    if not self.closed:
      self._events.append(event)
      self._wake()

  def close(self) -> None:
    """Nothing more will come."""
    self.closed = True
    self._wake()

  def take(self) -> list[Event]:
    """Returns what has come since."""
    found = [self._events.popleft() for _ in range(len(self._events))]
    if found:
      self._room()
    return found


@dataclasses.dataclass(eq=False)
class _Job:
  number: int
  events: Iterator[Event]
  outbox: Outbox


class Worker:
  """A thread that runs what visitors ask for.

  Each visitor has at most one request, the one with the highest number. Requests take turns: a part
  of a scan of each, so that nobody waits for the whole of another's.
  """

  def __init__(self):
    self._jobs: collections.OrderedDict[str, _Job] = collections.OrderedDict()
    self._latest: collections.OrderedDict[str, int] = collections.OrderedDict()
    self._changed = threading.Condition()
    self._stopping = False
    # A daemon: what compiles when the server ends cannot be interrupted, and is not waited for.
    self._thread = threading.Thread(target=self._work, name='jax', daemon=True)

  def start(self) -> None:
    self._thread.start()

  def stop(self) -> None:
    """Drops all requests; a part that is computed still ends, but nobody waits for it."""
    with self._changed:
      self._stopping = True
      for visitor in list(self._jobs):
        self._end(visitor, Event('dropped', {}))
      self._changed.notify_all()

  def outbox(self, wake: Callable[[], None]) -> Outbox:
    """Makes an outbox for `submit`."""
    return Outbox(wake, self._notify)

  def submit(self, visitor: str, number: int, events: Iterator[Event], outbox: Outbox) -> None:
    """Starts a request in place of the visitor's last.

    Args:
      visitor: who.
      number: of the request; the visitor counts them.
      events: does a part of the work whenever it is asked for the next event.
      outbox: where they go; an event without a name goes nowhere.

    Raises:
      Outdated: one of a higher number came first.
      Busy: there are too many visitors, or the server ends.
    """
    with self._changed:
      if number <= self._latest.get(visitor, -1):
        raise Outdated
      if self._stopping or visitor not in self._jobs and len(self._jobs) >= MOST_VISITORS:
        raise Busy
      self._latest[visitor] = number
      self._latest.move_to_end(visitor)
      while len(self._latest) > 16 * MOST_VISITORS:
        self._latest.popitem(last=False)
      self._end(visitor, Event('dropped', {}))
      self._jobs[visitor] = _Job(number, events, outbox)
      self._changed.notify_all()

  def leave(self, visitor: str, number: int) -> None:
    """Drops a request whose visitor has gone, unless another has taken its place."""
    with self._changed:
      if visitor in self._jobs and self._jobs[visitor].number == number:
        self._end(visitor)

  @property
  def num_visitors(self) -> int:
    """How many are waiting for something."""
    return len(self._jobs)

  def _notify(self) -> None:
    with self._changed:
      self._changed.notify_all()

  def _end(self, visitor: str, event: Event | None = None) -> None:
    job = self._jobs.pop(visitor, None)
    if job is not None:
      if event is not None:
        job.outbox.put(event)
      job.outbox.close()

  def _next(self) -> tuple[str, _Job] | None:
    """Waits for a request whose outbox has room; the others' turn comes first next time."""
    with self._changed:
      while not self._stopping:
        for visitor, job in self._jobs.items():
          if not job.outbox.is_full:
            self._jobs.move_to_end(visitor)
            return visitor, job
        self._changed.wait()
    return None

  def _work(self) -> None:
    while (found := self._next()) is not None:
      visitor, job = found
      event, is_last = _advance(job.events)
      with self._changed:
        if self._jobs.get(visitor) is not job:
          continue  # a newer one came while this part was computed
        if event.name:
          job.outbox.put(event)
        if is_last:
          self._end(visitor)


def _advance(events: Iterator[Event]) -> tuple[Event, bool]:
  """(what the next part says, whether it is the last)."""
  try:
    return next(events), False
  except StopIteration:
    return Event('done', {}), True
  except UsageError as error:
    return Event('failed', {'error': str(error)}), True
  except Exception as error:  # the others' requests go on
    traceback.print_exc()
    return Event('failed', {'error': f'{type(error).__name__}: {one_line(error)}'}), True

