"""What a run keeps in a bucket beside its checkpoints."""

import buckets
import numpy as np
import pytest
from PIL import Image

from adm_jax.errors import UsageError
from adm_jax.training import grids, metrics
from adm_jax.weights import folders, pretrained


@pytest.fixture
def bucket(monkeypatch):
  with buckets.in_force(monkeypatch) as folder:
    yield folder


def test_metrics_evaluations_and_pictures_arrive(bucket):
  folders.write_class_names(bucket, ('zero', 'one'))
  metric_files = metrics.MetricFiles(bucket, 0)
  speed = {'images_per_second': 3.0, 'data_wait': 0.0, 'eta_seconds': 9.0}
  metric_files.write(2, {'loss': 0.5}, speed)
  metric_files.evaluation(2, {'fid_10': 1.0})
  metric_files.flush()
  images = np.zeros((4, 8, 8, 3), np.uint8)
  grids.write(bucket, 2, images, None, ())
  assert (bucket / 'metrics.jsonl').read_text() == '{"step": 2, "loss": 0.5}\n'
  assert (bucket / 'evaluations.jsonl').read_text() == '{"step": 2, "fid_10": 1.0}\n'
  with (bucket / 'samples' / '0000002.png').open('rb') as file:
    assert Image.open(file).size[0] > 2 * 8
  # As a restart finds it.
  metrics.MetricFiles(bucket, 1)
  assert (bucket / 'metrics.jsonl').read_text() == ''


def test_weights_are_looked_for_there(bucket):
  folders.write_class_names(bucket, ())
  with pytest.raises(UsageError, match='gs://name/run has no checkpoint'):
    pretrained.load('gs://name/run')
