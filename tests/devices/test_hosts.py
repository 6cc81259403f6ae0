"""How a process knows that it is one of several, and that another has gone."""

import jax
import pytest

from adm_jax.devices import hosts
from adm_jax.errors import PeerLost


@pytest.mark.parametrize('message, lost', [
    ('UNKNOWN: Gloo all-reduce failed: Connection closed by peer', True),
    ('INTERNAL: NCCL operation failed: remote process exited', True),
    ('UNAVAILABLE: failed to connect to all addresses', True),
    ('DEADLINE_EXCEEDED: Barrier timed out', True),
    ('RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes', False),
    ('INTERNAL: during compilation: no convolution algorithm', False)])
@pytest.mark.parametrize('count', [1, 2])
def test_only_what_says_so_is_of_a_lost_process(message, lost, count, monkeypatch):
  """To start again helps against nothing else: the same error would come again."""
  monkeypatch.setattr(jax, 'process_count', lambda: count)
  with pytest.raises(PeerLost if lost and count > 1 else jax.errors.JaxRuntimeError):
    with hosts.noticing_lost_peers():
      raise jax.errors.JaxRuntimeError(message)


def test_errors_that_are_each_others_cause_are_looked_at_once(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  one, other = OSError('No space left on device'), RuntimeError('cannot be written to')
  one.__cause__, other.__cause__ = other, one
  assert not hosts.is_of_lost_peer(one)


def test_a_failed_collective_is_of_a_lost_process_whatever_its_type(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  assert hosts.is_of_lost_peer(ValueError('UNKNOWN: Gloo AllGather failed: Connection closed'))
  assert not hosts.is_of_lost_peer(ValueError('Connection closed'))


def test_a_batch_script_of_several_tasks_is_one_process(monkeypatch):
  """Without srun nothing lists the others, and JAX would wait for them in vain."""
  monkeypatch.setenv('SLURM_NTASKS', '4')
  monkeypatch.setenv('SLURM_PROCID', '0')
  monkeypatch.delenv('SLURM_STEP_NODELIST', raising=False)
  assert not hosts._in_cluster()
  monkeypatch.setenv('SLURM_STEP_NODELIST', 'node[1-4]')
  assert hosts._in_cluster()
