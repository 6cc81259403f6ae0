"""What a run writes of itself."""

import json
import sys
import threading

import jax.numpy as jnp
import metric_lines
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.training import metrics
from adm_jax.training.steps import Mean


def _step(i):
  return {'loss': Mean(jnp.float32(i / 3), jnp.float32(1)),
          'loss_q0': Mean(jnp.float32(0), jnp.float32(0))}


def test_a_stored_window_goes_on_bit_by_bit():
  whole, part = metrics.Window(), metrics.Window()
  for i in range(7):
    whole.add(_step(i))
  for i in range(3):
    part.add(_step(i))
  resumed = metrics.Window(json.loads(json.dumps(part.stored())))
  for i in range(3, 7):
    resumed.add(_step(i))
  means = whole.close()
  assert means == resumed.close()
  assert list(means) == ['loss']  # not a quarter without examples
  assert whole.stored() == []


def test_the_stopwatch_measures_rate_wait_and_time_to_go(monkeypatch):
  now = 100.0
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: now)
  watch = metrics.Stopwatch(batch_size=32, total_steps=50, flops=6e12, peak=8e12)
  for _ in range(10):  # ten steps in 20 seconds
    with watch.waiting():
      now += 0.5
    watch.step(_Result(done=True))
    watch._idle_since.result()
    now += 1.5  # the host's time, in which the devices had nothing to do, is not the data's
  speed = watch.read(done=10)
  assert speed == {'images_per_second': 16, 'data_wait': 0.25, 'eta_seconds': 80,
                   'flop_utilization': 0.375}
  assert metrics.note(speed) == '16 images/s, 38% of peak, 25% waiting for data'
  watch.step(_Result(done=True))
  now += 1
  assert watch.read(done=11)['images_per_second'] == 32  # of the time since the last reading


class _Result:
  """An array that a device computes."""

  def __init__(self, done=False):
    self.done = threading.Event()
    if done:
      self.done.set()

  def block_until_ready(self):
    self.done.wait()


def test_waiting_counts_from_when_the_devices_have_finished(monkeypatch):
  now = 100.0
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: now)
  watch = metrics.Stopwatch(batch_size=1, total_steps=9, flops=0.0, peak=None)
  watch.step(busy := _Result())
  with watch.waiting():  # of 4 seconds, the devices work for 1
    now += 1
    busy.done.set()
    watch._idle_since.result()
    now += 3
  watch.step(busy := _Result())
  with watch.waiting():  # they work all the time
    now += 2
  busy.done.set()
  assert watch.read(done=2)['data_wait'] == 3 / 6


def test_no_share_of_an_unknown_peak_is_reported():
  watch = metrics.Stopwatch(batch_size=1, total_steps=2, flops=0.0, peak=None)
  watch.step(_Result(done=True))
  assert 'flop_utilization' not in watch.read(1)


def test_lines_after_the_resumed_step_are_written_again(tmp_path):
  path = tmp_path / 'lines.jsonl'
  lines = metrics.Lines(path, 0)
  for step in (2, 4, 6):
    lines.append(step, {'x': step / 7})
  before = path.read_bytes()
  lines = metrics.Lines(path, 4)
  lines.append(6, {'x': 6 / 7})
  assert path.read_bytes() == before


def test_tensorboard_without_its_libraries_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'clu', None)
  with pytest.raises(UsageError, match='pip install') as error:
    metrics.MetricFiles(tmp_path, 0, tensorboard=True)
  assert '\n' not in str(error.value) and not list(tmp_path.iterdir())


def test_tensorboard_gets_losses_speed_and_pictures(tmp_path, monkeypatch):
  """Through clu's writer, which is replaced here: it needs TensorFlow."""
  written = []
  class Writer:
    def write_scalars(self, step, scalars):
      written.append((step, scalars))
    def write_images(self, step, images):
      written.append((step, {name: image.shape for name, image in images.items()}))
    def flush(self):
      written.append('flush')
  monkeypatch.setattr(metrics, '_tensorboard', lambda folder: Writer())
  metric_files = metrics.MetricFiles(tmp_path, 0, tensorboard=True)
  speed = {'images_per_second': 3.0, 'data_wait': 0.0, 'eta_seconds': 60.0}
  metric_files.write(2, {'loss': 1.0}, speed)
  metric_files.picture(2, np.zeros((4, 8, 8, 1), np.uint8))
  metric_files.flush()
  assert written == [(2, {'loss': 1.0, **speed}), (2, {'samples': (4, 8, 8, 1)}), 'flush']
  assert metric_lines.read(tmp_path) == [{'step': 2, 'loss': 1.0}]
