"""One thread, many visitors: the newest request wins, turns are fair, nobody's queue grows."""

import itertools
import threading
import time

import pytest

from adm_jax.errors import UsageError
from adm_jax.serving.runs import Event
from adm_jax.serving.worker import MOST_VISITORS, MOST_WAITING, Busy, Outdated, Worker


@pytest.fixture
def worker():
  worker = Worker()
  worker.start()
  yield worker
  worker.stop()


class Reader:
  """Reads all that comes, or nothing until it is told to."""

  def __init__(self, worker, reads=True):
    self.heard, self.ended = [], threading.Event()
    self._reads = reads
    self.outbox = worker.outbox(self._wake)

  def _wake(self):
    if self._reads:
      self.read()

  def read(self):
    closed = self.outbox.closed
    self.heard += [event.name for event in self.outbox.take()]
    if closed:
      self.ended.set()


def parts(log, name, num=None):
  for i in itertools.count() if num is None else range(num):
    log.append((name, i))
    yield Event('part', {})


def until(true, seconds=10):
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.001)


def test_a_newer_request_takes_the_place_between_two_parts(worker):
  log, old, new = [], Reader(worker), Reader(worker)
  worker.submit('a', 1, parts(log, 'old'), old.outbox)
  until(lambda: len(log) > 3)
  worker.submit('a', 2, parts(log, 'new', 3), new.outbox)
  assert new.ended.wait(10) and old.ended.wait(10)
  begin = log.index(('new', 0))
  assert log[begin:] == [('new', 0), ('new', 1), ('new', 2)]
  assert new.heard == ['part', 'part', 'part', 'done'] and old.heard[-1] == 'dropped'


def test_what_comes_late_of_an_older_request_is_refused(worker):
  worker.submit('a', 5, iter(()), worker.outbox(lambda: None))
  for number in (5, 4):
    with pytest.raises(Outdated):
      worker.submit('a', number, iter(()), worker.outbox(lambda: None))
  worker.submit('b', 4, iter(()), worker.outbox(lambda: None))


def test_visitors_take_turns(worker):
  log, readers = [], [Reader(worker) for _ in range(3)]
  gate = threading.Event()

  def waits():
    gate.wait(10)
    yield Event('', {})
  first = Reader(worker)
  worker.submit('first', 0, waits(), first.outbox)  # until all are there
  for i, reader in enumerate(readers):
    worker.submit(str(i), 0, parts(log, i, 4), reader.outbox)
  gate.set()
  assert all(reader.ended.wait(10) for reader in readers)
  assert [name for name, _ in log] == [0, 1, 2] * 4


def test_who_does_not_read_waits_and_others_go_on(worker):
  log, deaf, other = [], Reader(worker, reads=False), Reader(worker)
  worker.submit('deaf', 0, parts(log, 'deaf'), deaf.outbox)
  worker.submit('other', 0, parts(log, 'other', 50), other.outbox)
  assert other.ended.wait(10)
  until(lambda: log.count(('deaf', MOST_WAITING - 1)))
  assert ('deaf', MOST_WAITING) not in log
  deaf.read()
  until(lambda: ('deaf', MOST_WAITING) in log)  # it goes on where it was
  worker.leave('deaf', 0)
  until(lambda: worker.num_visitors == 0)


def test_a_mistake_is_told_to_its_visitor_alone(worker, capsys):
  def fails(error):
    yield Event('part', {})
    raise error
  for i, error in enumerate((UsageError('too strong'), RuntimeError('a bug'))):
    reader = Reader(worker)
    worker.submit('a', i, fails(error), reader.outbox)
    assert reader.ended.wait(10) and reader.heard == ['part', 'failed']
  reader = Reader(worker)
  worker.submit('b', 0, parts([], 'b', 1), reader.outbox)
  assert reader.ended.wait(10) and reader.heard == ['part', 'done']
  assert 'a bug' in capsys.readouterr().err


def test_there_are_never_more_visitors_than_are_served(worker):
  outboxes = [worker.outbox(lambda: None) for _ in range(MOST_VISITORS)]
  for i, outbox in enumerate(outboxes):
    worker.submit(str(i), 0, parts([], i), outbox)  # nobody reads: all stay
  with pytest.raises(Busy):
    worker.submit('one more', 0, parts([], 'x'), worker.outbox(lambda: None))
  worker.submit('0', 1, parts([], 0), worker.outbox(lambda: None))  # who is there may ask again
