"""What a run writes of itself."""

import io
import json
import sys
import threading

import jax.numpy as jnp
import metric_lines
import numpy as np
import pytest
from PIL import Image

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


def test_tensorboard_without_its_library_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboard', None)
  monkeypatch.setitem(sys.modules, 'tensorboard.compat.proto', None)
  with pytest.raises(UsageError, match='pip install') as error:
    metrics.MetricFiles(tmp_path, 0, tensorboard=True)
  assert '\n' not in str(error.value) and not list(tmp_path.iterdir())


def _read_by_tensorboard(folder):
  from tensorboard.backend.event_processing import event_accumulator
  events = event_accumulator.EventAccumulator(str(folder), {'images': 0, 'scalars': 0})
  return events.Reload()


def test_tensorboard_reads_losses_speed_and_pictures_without_tensorflow(tmp_path, monkeypatch):
  """As of a run that was broken off after step 4 and went on from step 2."""
  pytest.importorskip('tensorboard', reason='reads the files with TensorBoard')
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  speed = {'images_per_second': 3.0, 'data_wait': 0.25, 'eta_seconds': 60.0}
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
  broken = metrics.MetricFiles(tmp_path, 0, tensorboard=True)
  broken.write(2, {'loss': 1.5}, speed)
  broken.write(4, {'loss': 9.0}, speed)
  again = metrics.MetricFiles(tmp_path, 2, tensorboard=True)
  again.write(4, {'loss': 0.5}, speed)
  again.validation(4, {'loss': 0.75})
  again.picture(4, images)
  found = _read_by_tensorboard(tmp_path / 'tensorboard')
  scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)]
             for tag in found.Tags()['scalars']}
  assert scalars == {'loss': [(2, 1.5), (4, 0.5)], 'validation/loss': [(4, 0.75)],
                     **{name: [(2, value), (4, value)] for name, value in speed.items()}}
  for i, image in enumerate(images):
    event, = found.Images(f'samples/{i}')
    assert event.step == 4
    np.testing.assert_array_equal(Image.open(io.BytesIO(event.encoded_image_string)), image)
  assert metric_lines.read(tmp_path) == [{'step': 2, 'loss': 1.5}, {'step': 4, 'loss': 0.5}]


def test_gray_pictures_are_shown_by_tensorboard(tmp_path):
  pytest.importorskip('tensorboard', reason='reads the files with TensorBoard')
  images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
  metrics.MetricFiles(tmp_path, 0, tensorboard=True).picture(2, images)
  event, = _read_by_tensorboard(tmp_path / 'tensorboard').Images('samples/0')
  np.testing.assert_array_equal(Image.open(io.BytesIO(event.encoded_image_string)),
                                images[0, ..., 0])
