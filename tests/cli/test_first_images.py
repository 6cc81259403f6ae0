"""The clock of a command's start tells its stages apart, and leaves what passes it alone."""

import jax
import jax.numpy as jnp

from adm_jax.cli import first_images


def _batches():
  compiled = jax.jit(lambda x: jnp.tanh(jnp.sin(x) @ x))  # a new program, even in one process
  yield compiled(jnp.ones((7, 7)))
  yield 2


def test_stages_add_up_and_batches_pass():
  clock = first_images.Clock()
  clock.end('weights')
  first, *others = clock.first(_batches())
  assert first.shape == (7, 7) and others == [2]
  assert list(clock.stages) == ['imports', 'weights', 'tracing', 'compiling', 'sampling']
  assert clock.stages['tracing'] > 0 and clock.stages['compiling'] > 0
  assert all(seconds >= 0 for seconds in clock.stages.values())
  total = sum(clock.stages.values())
  assert clock.report().startswith(f'{total:.1f} s: imports ')


def test_programs_after_the_first_batch_do_not_count():
  clock = first_images.Clock()
  passed = clock.first(iter([1, 2]))
  assert next(passed) == 1
  jax.jit(lambda x: x * 3 + 1)(jnp.ones(5))
  assert list(passed) == [2]
  assert clock.stages['compiling'] == clock.stages['tracing'] == 0


def test_no_batches_are_none():
  assert list(first_images.Clock().first([])) == []
