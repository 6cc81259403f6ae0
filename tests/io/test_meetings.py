"""Processes that calculate together through a folder, or a bucket."""

import buckets
import numpy as np
import pytest
from processes import together

from adm_jax.errors import PeerLost, UsageError
from adm_jax.io import heartbeats, meetings


@pytest.fixture(params=['disk', 'bucket'])
def folder(request, tmp_path, monkeypatch):
  monkeypatch.setattr(meetings, '_PAUSE', 0.01)
  if request.param == 'disk':
    yield tmp_path
  else:
    with buckets.in_force(monkeypatch) as bucket:
      yield bucket


def squares(meeting):
  found = meeting.map('squares', lambda i: {'x': np.arange(i), 'y': np.array(i * i)}, range(7))
  return [(part['x'].tolist(), int(part['y'])) for part in found]


@pytest.mark.parametrize('count', [1, 2, 3, 9])
def test_each_makes_a_share_and_has_all_in_order(folder, count):
  wanted = [(list(range(i)), i * i) for i in range(7)]
  assert together(folder, count, squares) == [wanted] * count
  # And nothing of it stays that could be taken for the next.
  assert together(folder, count, squares) == [wanted] * count


def test_what_only_the_first_needs_only_the_first_gets(folder):
  found = together(folder, 3, lambda meeting: meeting.gather(
      'own', {'i': np.array(meeting.part.index)}, everyone=False))
  assert [len(parts) for parts in found] == [3, 0, 0]
  assert [int(part['i']) for part in found[0]] == [0, 1, 2]


def test_what_a_run_of_before_said_is_not_taken_for_this_ones(folder, monkeypatch):
  """It was killed in the middle, and one of its processes says hello for a while yet."""
  def killed(meeting):
    meeting.gather('squares', {'0.x': np.array(99)}, everyone=False)
    meeting.leave = lambda: None
  together(folder, 3, killed)
  assert together(folder, 3, squares) == [[(list(range(i)), i * i) for i in range(7)]] * 3
  assert not list((folder / 'meeting').glob('*/*'))


def test_a_failure_of_one_ends_all(folder):
  def work(meeting):
    if meeting.part.index == 1:
      raise UsageError('its features are not finite')
    return squares(meeting)
  first, failed, last = together(folder, 3, work)
  assert str(failed) == 'its features are not finite'
  for other in (first, last):
    assert isinstance(other, UsageError) and 'process 1 refused to go on' in str(other)


def test_a_process_that_vanishes_ends_all(folder, monkeypatch):
  monkeypatch.setattr(heartbeats, 'SECONDS', 0.3)
  def work(meeting):
    if meeting.part.index == 1:
      meeting.fail = lambda error: None
      raise KeyError('killed')
    return squares(meeting)
  first, _, last = together(folder, 3, work)
  for other in (first, last):
    assert isinstance(other, PeerLost) and 'process 1 of 3 is gone' in str(other)


def test_processes_of_different_commands_do_not_meet(folder, monkeypatch):
  monkeypatch.setattr(meetings, 'SECONDS', 0.5)
  first, other = together(folder, 2, squares, words=lambda index: f'command {index}')
  assert isinstance(first, PeerLost) and 'not all came' in str(first)
  assert isinstance(other, UsageError) and 'something else' in str(other)
