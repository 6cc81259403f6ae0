"""What a run keeps in a bucket beside its checkpoints."""

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from adm_jax.errors import UsageError
from adm_jax.io import files
from adm_jax.training import grids, metrics
from adm_jax.weights import folders, pretrained


class _Bucket(MemoryFileSystem):
  """Google's, in memory."""
  protocol = ('gcs', 'gs')
  store, pseudo_dirs = {}, ['']

  @classmethod
  def _strip_protocol(cls, path):
    return MemoryFileSystem._strip_protocol(path.removeprefix('gs://'))


@pytest.fixture
def bucket(monkeypatch):
  from etils.epath import backend
  filesystem = _Bucket()
  monkeypatch.setattr(backend, 'tf_backend', backend.fsspec_backend)
  monkeypatch.setattr(fsspec, 'filesystem', lambda name, **_: filesystem)
  backend._FileSystemSpecBackend._get_filesystem.cache_clear()
  yield files.folder('gs://name/run')
  backend._FileSystemSpecBackend._get_filesystem.cache_clear()


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
