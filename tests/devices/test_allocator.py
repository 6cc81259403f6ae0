"""Memory that a program frees is there for its next run."""

import os
import pathlib
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
@jax.grad
def run(w):  # keeps 16 layers of 8 MB for its backward pass
  x = jnp.ones((8192, 256))
  for _ in range(16):
    x = jnp.tanh(x @ w)
  return x.sum()

x, found = jnp.eye(256), []
for _ in range(6):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  run(x).block_until_ready()
  found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(found))  # the heap may grow in some
'''


def _faults(**environment):
  """(whether memory is kept, the page faults of the run that has fewest)."""
  clean = {name: value for name, value in os.environ.items()
           if not name.startswith('MALLOC_') and name != 'GLIBC_TUNABLES'}
  done = subprocess.run([sys.executable, '-c', SCRIPT], check=True, capture_output=True, text=True,
                        env={**clean, 'JAX_PLATFORMS': 'cpu', **environment})
  kept, faults = done.stdout.split()
  return kept == 'True', int(faults)


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc keeps memory')
def test_a_program_that_runs_again_finds_its_memory():
  kept, faults = _faults()
  if not kept:
    pytest.skip('no glibc, or another allocator')
  assert faults < 1000  # of 4 kB each: 4 MB of at least 128


def _pages_are_small() -> bool:
  """Whether a fault brings 4 kB, not the 2 MB of transparent huge pages."""
  enabled = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
  return not enabled.exists() or '[always]' not in enabled.read_text()


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc keeps memory')
def test_whoever_sets_up_the_allocator_is_obeyed():
  kept, faults = _faults(MALLOC_ARENA_MAX='4')
  assert not kept and (faults > 10_000 or not _pages_are_small())
