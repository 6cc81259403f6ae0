"""What is called damage makes people move checkpoints away: only missing and damaged files are."""

import errno
import shutil

import jax
import pytest

from adm_jax.devices import hosts
from adm_jax.errors import PeerLost, UsageError
from adm_jax.training import checkpoints
from adm_jax.weights import checkpoint_files

GLOO = jax.errors.JaxRuntimeError('UNKNOWN: Gloo AllGather failed: Connection closed by peer')


def _wrapped(error):
  wrapper = ValueError('could not read')
  wrapper.__cause__ = error
  return wrapper


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A checkpoint of one array."""
  workdir = tmp_path_factory.mktemp('run')
  with checkpoints.Checkpoints(workdir, '{}') as saving:
    saving.save(1, {'x': jax.numpy.ones(3)}, {})
  return workdir / 'checkpoints' / '1'


def _restoring(folder, error, before=lambda: None):
  def restore(_):
    before()
    raise error
  return checkpoint_files.restoring(folder, {'x': jax.ShapeDtypeStruct((3,), 'float32')}, restore)


@pytest.mark.parametrize('error', [GLOO, _wrapped(GLOO)], ids=['plain', 'wrapped'])
def test_a_process_lost_while_a_checkpoint_is_read_is_a_lost_process(folder, error, monkeypatch):
  def two():
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(PeerLost, match='another process of this run is gone'):
    with hosts.noticing_lost_peers():
      _restoring(folder, error, two)


@pytest.mark.parametrize('error', [
    PermissionError(errno.EACCES, 'Permission denied', 'x'), OSError(errno.EIO, 'I/O error', 'x'),
    MemoryError(), jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')], ids=repr)
def test_what_moving_a_checkpoint_away_would_not_mend_is_left_as_it_is(folder, error):
  with pytest.raises(type(error)) as raised:
    _restoring(folder, error)
  assert raised.value is error


@pytest.mark.parametrize('error', [
    FileNotFoundError(errno.ENOENT, 'none', 'x'), ValueError('DATA_LOSS: bad checksum'), KeyError(),
    AttributeError()], ids=repr)
def test_missing_and_damaged_files_are_told_in_one_line(folder, error):
  with pytest.raises(UsageError, match=f'{folder} cannot be read .*move it away') as raised:
    _restoring(folder, error)
  assert '\n' not in str(raised.value)


def test_a_checkpoint_without_any_description_is_damaged(folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / '1')
  for path in (copy / 'state').glob('*METADATA*'):
    path.unlink()
  with pytest.raises(UsageError, match='cannot be read'):
    _restoring(copy, AssertionError('not called'))
