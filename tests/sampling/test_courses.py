"""Which steps a run takes, and how jobs tell them from others."""

import numpy as np
import pytest

from adm_jax.process import schedules
from adm_jax.sampling import courses, solvers, spacings
from adm_jax.sampling.initial_states import from_step
from adm_jax.sampling.steps import descend, to_clean

LINEAR = schedules.linear(num_steps=100)
NOTHING = {'steps': None, 'spacing': None, 'churn': None, 'from_step': None}


def described(steps, spacing=None):
  """What a job says of the steps that `pipeline.load` would take."""
  course = courses.of(steps, spacing, solvers.heun())
  return course.described(course.steps(LINEAR), LINEAR)


@pytest.mark.parametrize('steps, spacing, words', [
    (None, None, {}), ('25', None, {}), (5, None, {'steps': 5}),
    (5, 'karras', {'steps': 5, 'spacing': 'karras'}), (None, 'time', {'spacing': 'time'}),
    (courses.Course('25', lambda schedule: descend(schedule)), None, {}),
    (courses.Course('', from_step(50), {**NOTHING, 'from_step': 50}), None, {'from_step': 50})])
def test_steps_by_name_are_described_by_it(steps, spacing, words):
  """Which stored jobs are known by."""
  assert described(steps, spacing) == {**NOTHING, **words}


def test_steps_by_a_function_are_described_by_what_it_gives():
  """However it is called: as a part of another, in a Course, or by no name at all."""
  def with_rho(rho):
    return described(5, spacings.by_name('karras', rho=rho))
  words = with_rho(5.0)
  assert words['steps'] == 5 and words['spacing']['name'] == 'karras'
  digest = words['spacing']['digest']
  assert with_rho(3.0)['spacing']['digest'] != digest

  def same(schedule):
    return spacings.karras(schedule, 5, rho=5.0)
  for other in (described(5, lambda schedule, num: same(schedule)),
                described(courses.Course('', same))):
    assert other['spacing'] == {'name': other['spacing']['name'], 'digest': digest}
  # The same places, with the noise of other steps.
  assert len({described(courses.Course('', steps))['spacing']['digest'] for steps in (
      from_step(2), lambda schedule: to_clean(schedule, np.arange(3)[::-1]))}) == 2


def test_a_spacing_of_a_file_is_described_with_its_checksum(tmp_path):
  file = tmp_path / 'mine.py'
  found = []
  for content in ('from adm_jax.sampling.spacings import karras', '# changed'):
    file.write_text('from adm_jax.sampling.spacings import karras\n' + content)
    found.append(described(5, f'{file}:karras')['spacing'])
  assert found[0].startswith('mine.py:karras ') and found[0] != found[1]
