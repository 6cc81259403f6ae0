"""A trace holds the steps that were asked for, and opens."""

import jax
import jax.numpy as jnp
import pytest
import traces

from adm_jax.devices.profile import Profile
from adm_jax.errors import UsageError


def _run(profile, steps, first=1):
  double = jax.jit(lambda x: x * 2)
  x = jnp.ones(3)
  with profile:
    for number in range(first, first + steps):
      profile.begin(number)
      x = double(x)
      profile.end(x)


def test_the_steps_after_the_first_ones_are_in_the_trace(tmp_path):
  profile = Profile(2, 3, tmp_path, what='step')
  _run(profile, 9, first=101)
  assert traces.steps(tmp_path, 'step') == [103, 104, 105]
  assert profile.report().startswith(f'trace of step 103 to 105: {tmp_path / "profile"} ')


def test_the_first_step_can_be_traced_and_a_run_may_end_before_the_trace(tmp_path):
  profile = Profile(0, 3, tmp_path)
  _run(profile, 2)
  assert traces.steps(tmp_path, 'step') == [1, 2]


def test_a_trace_that_never_began_says_so(tmp_path):
  profile = Profile(2, 1, tmp_path)
  _run(profile, 2)
  assert profile.report() == ('no trace: 2 steps ran, and the trace was to begin after 2: give a '
                              'smaller START')
  assert not list(tmp_path.iterdir())


def test_steps_that_fail_leave_no_trace_and_the_next_one_can_begin(tmp_path):
  with pytest.raises(ZeroDivisionError), Profile(0, 5, tmp_path) as profile:
    profile.begin()
    raise ZeroDivisionError
  assert not list(tmp_path.iterdir())
  _run(Profile(1, 1, tmp_path), 2)
  assert traces.steps(tmp_path, 'step') == [2]


def test_no_steps_are_no_trace(tmp_path):
  _run(Profile(0, 0, tmp_path), 3)
  assert not list(tmp_path.iterdir())
  with pytest.raises(UsageError, match='start=-1'):
    Profile(-1, 2, tmp_path)
