"""Where a run's time went adds up, however often it was started."""

import contextlib
import dataclasses
import json

import pytest

from adm_jax.training import goodput, metrics
from adm_jax.training.goodput import Goodput


def _same(found, wanted):
  """Up to the rounding of a line."""
  assert dataclasses.asdict(found) == pytest.approx(dataclasses.asdict(wanted), abs=2e-3)


def _line(step, **seconds):
  return json.dumps({'step': step, 'data_wait': 0.5, **Goodput(**seconds).fields()})


def test_shares_add_up_to_one_and_give_the_seconds_back():
  spent = Goodput(1000 / 7, 1, 22 / 7, 0.25, 100 / 3, 9.9)
  fields = spent.fields()
  assert fields['wall_seconds'] == round(spent.seconds, 3)
  shares = {kind: fields[f'share_{kind}'] for kind in goodput.KINDS}
  assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
  _same(goodput.of_fields(fields), spent)


def test_no_time_has_no_shares():
  assert set(Goodput().fields().values()) == {0.0}


def test_what_was_done_since_the_checkpoint_counts_as_restarts():
  lines = [_line(2, steps=2, compile=2), _line(4, steps=4, compile=4),
           _line(6, steps=6, compile=4, checkpoints=4)]
  _same(goodput.so_far(lines, 4), Goodput(steps=4, compile=4, restarts=6))
  _same(goodput.so_far(lines, 6), Goodput(steps=6, compile=4, checkpoints=4))
  _same(goodput.so_far(lines, 0), Goodput(restarts=14))
  _same(goodput.so_far([], 4), Goodput())


@pytest.mark.parametrize('damaged', ['{"step": 8, "wall_sec', '[]', '3', '', '{"step": 8}',
                                     '{"wall_seconds": "x", "step": 8}', '{"wall_seconds": 9}'])
def test_lines_that_say_nothing_are_left_out(damaged):
  whole = [_line(4, steps=4)]
  _same(goodput.so_far([*whole, damaged], 4), Goodput(steps=4))


def test_a_run_from_before_there_was_goodput_counts_from_now():
  _same(goodput.so_far([json.dumps({'step': 4, 'data_wait': 0.1})], 4), Goodput())


def test_the_sentence_names_every_kind():
  fields = Goodput(steps=3600, input=60, compile=63).fields()
  assert goodput.sentence(fields) == (
      'wall time 1:02:03 h: 96.7% steps, 1.6% input, 0.0% checkpoints, 0.0% evaluation, '
      '1.7% compile, 0.0% restarts')


class _Clock:
  """Seconds that pass when a test says so, of which some are compiled, or waited for images."""

  def __init__(self, monkeypatch):
    self.now = self.compiled = self.waited = 0.0
    monkeypatch.setattr(metrics.time, 'perf_counter', lambda: self.now)

  def pass_by(self, seconds, compiled=0.0, waited=0.0):
    self.now, self.compiled = self.now + seconds, self.compiled + compiled
    self.waited += waited


def test_time_is_charged_to_what_the_run_is_busy_with(monkeypatch):
  clock = _Clock(monkeypatch)
  ledger = metrics.Ledger(lambda: clock.compiled)
  clock.pass_by(8, compiled=5)
  ledger.begin(clock)
  clock.pass_by(32, compiled=8, waited=2)
  with ledger.busy('evaluation'):
    clock.pass_by(4, compiled=1)
  clock.pass_by(1)
  with contextlib.suppress(ZeroDivisionError), ledger.busy('checkpoints'):
    clock.pass_by(6)
  ledger.went_before(Goodput(steps=100, restarts=10))
  spent = ledger.read()
  assert spent == Goodput(steps=123, input=2, checkpoints=6, evaluation=3, compile=14, restarts=13)
  assert spent.seconds == clock.now + 110
  assert ledger.read() == spent
