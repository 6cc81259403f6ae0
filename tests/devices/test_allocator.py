"""Memory that a program frees is there for its next run."""

import os
import subprocess
import sys

import pytest

SCRIPT = '''
import resource
from adm_jax.devices import allocator
kept = allocator.keep_memory()
import jax
import jax.numpy as jnp

@jax.jit
def run(x):  # 64 MB that nobody sees, twice
  y = jnp.sort(jnp.tile(x, (4096, 1)) * jnp.arange(4096.0)[:, None], axis=0)
  return jnp.sort(y + 1, axis=1).sum()

x = jnp.linspace(0, 1, 4096)
run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
  run(x).block_until_ready()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 3)
'''


def _faults(**environment):
  """(whether memory is kept, page faults of a run)."""
  clean = {name: value for name, value in os.environ.items()
           if not name.startswith('MALLOC_') and name != 'GLIBC_TUNABLES'}
  done = subprocess.run([sys.executable, '-c', SCRIPT], check=True, capture_output=True, text=True,
                        env={**clean, 'JAX_PLATFORMS': 'cpu', **environment})
  kept, faults = done.stdout.split()
  return kept == 'True', int(faults)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_a_program_that_runs_again_finds_its_memory():
  kept, faults = _faults()
  if not kept:
    pytest.skip('no glibc, or another allocator')
  assert faults < 1000  # of 4 kB each: 4 MB of at least 64


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_whoever_sets_up_the_allocator_is_obeyed():
  kept, faults = _faults(MALLOC_ARENA_MAX='4')
  assert not kept and faults > 1000
