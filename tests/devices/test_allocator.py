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
for _ in range(12):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  run(x).block_until_ready()
  found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(found))  # the heap may grow in some
'''


def _output(script, **environment):
  """What a process prints whose allocator nobody but `environment` has set up."""
  clean = {name: value for name, value in os.environ.items()
           if not name.startswith('MALLOC_') and name != 'GLIBC_TUNABLES'}
  done = subprocess.run([sys.executable, '-c', script], check=True, capture_output=True, text=True,
                        env={**clean, 'JAX_PLATFORMS': 'cpu', **environment})
  return done.stdout


def _faults(**environment):
  """(whether memory is kept, the page faults of the run that has fewest)."""
  kept, faults = _output(SCRIPT, **environment).split()
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


HOLES = '''
import ctypes
from adm_jax.devices import allocator
kept = allocator.fill_holes()
import jax

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(2000 + 13 * n) for n in range(4000)]
for block in blocks[:-1:2]:
  libc.free(block)

def places_found():
  """How many of some requests are met among the blocks."""
  found = [libc.malloc(size) for size in range(2000, 50_000, 1000)]
  for block in found:
    libc.free(block)
  return sum(min(blocks) <= block <= max(blocks) for block in found)

counts = []
for seconds in 0.1, 60.0, 60.0:
  jax.monitoring.record_event_duration_secs('/jax/core/compile/backend_compile_duration', seconds)
  counts.append(places_found())
print(kept, *counts)
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='only glibc keeps memory')
def test_the_holes_that_a_long_compilation_leaves_are_searched_no_more():
  kept, *counts = _output(HOLES).split()
  if kept != 'True':
    pytest.skip('no glibc, or another allocator')
  after_short, after_long, after_another = map(int, counts)
  assert after_short == 48
  assert after_long == after_another == 0
