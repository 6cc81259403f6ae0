"""Settings of compilers: only where they mean something, and never over the user's."""

import pytest

from adm_jax.devices import xla_flags
from adm_jax.devices.target import ANY, Target

NAME = 'xla_gpu_dot_merger_threshold_mb'


@pytest.mark.parametrize('target', [ANY, Target('cpu'), Target('tpu'), Target('gpu')])
def test_other_devices_compile_as_ever(target):
  assert xla_flags.of_sampling(target) == {}


def test_what_xla_flags_says_stays(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/tmp/a')
  assert xla_flags.of_sampling(Target('gpu', 9.0)) == {NAME: '0'}
  monkeypatch.setenv('XLA_FLAGS', f'--xla_dump_to=/tmp/a --{NAME}=32')
  assert xla_flags.of_sampling(Target('gpu', 9.0)) == {}
