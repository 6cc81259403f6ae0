"""Noise schedules: the published tables, the respacing grammar, and what respacing preserves."""

import dataclasses
import json

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.process import schedules

NAMED = {'linear': schedules.linear, 'cosine': schedules.cosine}
SCHEDULES = [pytest.param(schedules.linear(num_steps=1000), id='linear'),
             pytest.param(schedules.cosine(num_steps=1000), id='cosine'),
             pytest.param(schedules.cosine(num_steps=50), id='cosine_50')]


@golden_files.parametrize('schedules')
def test_named_schedules_have_the_published_variances(golden):
  """Key `linear_1000` holds the 1,000 betas of `linear`, to the last digits of float64."""
  _, arrays = golden_files.load(golden)
  for key, betas in arrays.items():
    name, num_steps = key.rsplit('_', 1)
    got = NAMED[name](num_steps=int(num_steps)).betas
    np.testing.assert_allclose(got, betas, rtol=1e-12, atol=0, err_msg=key)


def respacing_cases(kind):
  path = golden_files.FOLDER / 'respacing.json'
  cases = json.loads(path.read_text())[kind] if path.exists() else []
  mark = pytest.mark.skip(reason=f'{golden_files.FOLDER} holds no respacing.json')
  return cases or [pytest.param(None, marks=mark)]


@pytest.mark.parametrize('case', respacing_cases('valid'))
def test_respacing_keeps_the_published_steps(case):
  """The same indices, rounding at ties included."""
  kept = schedules.space_timesteps(case['steps'], case['spec'])
  np.testing.assert_array_equal(kept, case['timesteps'])


@pytest.mark.parametrize('case', respacing_cases('invalid'))
def test_respacing_refuses_what_the_reference_refuses(case):
  """In one line that repeats what was asked for."""
  num_steps, spec, _ = case
  with pytest.raises(UsageError) as error:
    schedules.space_timesteps(num_steps, spec)
  assert repr(spec) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('spec', ['ddim', 'ddim-5', '10,', 'x', '0', '-3', 'ddim0', 'ddim1'])
def test_a_spec_without_meaning_is_refused_in_one_line(spec):
  with pytest.raises(UsageError) as error:
    schedules.space_timesteps(1000, spec)
  assert repr(spec) in str(error.value) and '\n' not in str(error.value)


def test_ddim300_names_the_counts_that_exist():
  """No integer stride keeps 300 of 1,000; 250 and 334 are the nearest that one keeps."""
  with pytest.raises(UsageError, match='ddim300.*ddim250, ddim334.*"300"'):
    schedules.respace(schedules.linear(num_steps=1000), 'ddim300')


@pytest.mark.parametrize('spec', ['ddim200', 'ddim250', 'ddim334', 'ddim500'])
def test_the_near_misses_that_are_named_do_exist(spec):
  assert len(schedules.space_timesteps(1000, spec)) == int(spec.removeprefix('ddim'))


def test_one_number_a_string_and_a_tuple_say_the_same():
  kept = schedules.space_timesteps(1000, '250')
  np.testing.assert_array_equal(schedules.space_timesteps(1000, 250), kept)
  np.testing.assert_array_equal(schedules.space_timesteps(1000, (250,)), kept)
  np.testing.assert_array_equal(schedules.space_timesteps(1000, (10, 20)),
                                schedules.space_timesteps(1000, '10,20'))


def test_linear_goes_from_1e_4_to_0_02_in_a_thousand_steps():
  """And integrates to the same total for any other number."""
  betas = schedules.linear(num_steps=1000).betas
  np.testing.assert_allclose(betas, 1e-4 + np.arange(1000) * (0.02 - 1e-4) / 999, rtol=1e-12)
  for num_steps in (100, 4000):
    np.testing.assert_allclose(schedules.linear(num_steps=num_steps).betas.sum(), betas.sum())


@pytest.mark.parametrize('num_steps', [10, 100, 1000])
def test_cosine_alpha_bar_is_a_squared_cosine(num_steps):
  """alpha_bar_t = f((t + 1) / T) / f(0), wherever the cap on beta has not acted: not at the end."""
  schedule = schedules.cosine(num_steps=num_steps)
  angle = (np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2
  want = np.cos(angle[1:-1]) ** 2 / np.cos(angle[0]) ** 2
  np.testing.assert_allclose(schedule.alpha_bar[:-1], want, rtol=1e-9)
  assert schedule.betas[-1] == 0.999


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_the_neighbors_of_alpha_bar_are_its_shifts(schedule):
  """Clean data lies before the first step, pure noise after the last."""
  np.testing.assert_allclose(schedule.alpha_bar, schedule.alpha_bar_prev * (1 - schedule.betas))
  np.testing.assert_array_equal(schedule.alpha_bar_prev[1:], schedule.alpha_bar[:-1])
  np.testing.assert_array_equal(schedule.alpha_bar_next[:-1], schedule.alpha_bar[1:])
  assert schedule.alpha_bar_prev[0] == 1 and schedule.alpha_bar_next[-1] == 0


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_the_posterior_is_narrower_than_the_step(schedule):
  """0 = posterior variance at t = 0, and below beta elsewhere: knowing x_0 can only help."""
  assert schedule.posterior_variance[0] == 0
  assert (schedule.posterior_variance < schedule.betas).all()
  np.testing.assert_allclose(np.exp(schedule.posterior_log_variance[1:]),
                             schedule.posterior_variance[1:], rtol=1e-12)
  assert schedule.posterior_log_variance[0] == schedule.posterior_log_variance[1]


@pytest.mark.parametrize('spec', ['', '25', '10,5,12', 'ddim25', '1', '50'])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_respacing_leaves_alpha_bar_where_it_was(schedule, spec):
  """A kept step has the noise level that it had among all steps."""
  respaced = schedules.respace(schedule, spec)
  np.testing.assert_allclose(respaced.alpha_bar, schedule.alpha_bar[respaced.timesteps], rtol=1e-9)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_respacing_twice_names_steps_of_the_first_process(schedule):
  """The network's time survives: steps of steps are steps."""
  once = schedules.respace(schedule, '40')
  twice = schedules.respace(once, '7')
  kept = schedules.space_timesteps(40, '7')
  np.testing.assert_array_equal(twice.timesteps, once.timesteps[kept])
  np.testing.assert_allclose(twice.alpha_bar, schedule.alpha_bar[twice.timesteps], rtol=1e-9)
  assert twice.num_train_steps == schedule.num_steps


def test_schedules_are_equal_by_content():
  """Two that were built alike are one key of a dict; any difference makes another."""
  one, same = (schedules.cosine(num_steps=20) for _ in range(2))
  assert one == same and hash(one) == hash(same)
  others = [schedules.cosine(num_steps=21), schedules.cosine(num_steps=20, rescale_timesteps=True),
            schedules.cosine(num_steps=20, offset=0.01),
            dataclasses.replace(one, num_train_steps=30),
            dataclasses.replace(one, timesteps=one.timesteps + 1)]
  assert all(one != other for other in others)
  assert len({one, same, *others}) == 1 + len(others)


def test_a_schedule_is_static_under_jit():
  """It has no traced leaves, and an equal one does not compile anew."""
  traces = []

  @jax.jit
  def level(schedule, t):
    traces.append(schedule)
    return jnp.asarray(schedule.alpha_bar, jnp.float32)[t]

  schedule = schedules.cosine(num_steps=20)
  assert not jax.tree.leaves(schedule)
  assert level(schedule, 3) == np.float32(schedule.alpha_bar[3])
  level(schedules.cosine(num_steps=20), 4)
  assert len(traces) == 1
  level(schedules.cosine(num_steps=21), 3)
  assert len(traces) == 2


def test_network_time_is_the_index_that_training_used():
  """Whole numbers, of the process before respacing."""
  schedule = schedules.respace(schedules.linear(num_steps=1000), '25')
  t = jnp.arange(25)
  assert schedule.network_time(t).dtype == jnp.int32
  np.testing.assert_array_equal(schedule.network_time(t), schedule.timesteps)
  np.testing.assert_array_equal(schedule.network_time(jnp.int32(24)), 999)


def test_rescaled_network_time_runs_to_1000():
  """t * 1000 / T, of the T of training also where the process is respaced: fractions stay."""
  schedule = schedules.respace(schedules.cosine(num_steps=400, rescale_timesteps=True), '40')
  got = schedule.network_time(jnp.arange(40))
  np.testing.assert_allclose(got, schedule.timesteps * 2.5, rtol=1e-6)
  assert got[-1] == 399 * 2.5


@pytest.mark.parametrize('num_steps', [1, 2])
def test_the_shortest_processes_have_finite_tables(num_steps):
  """No table of one or two steps has a NaN or the log of 0."""
  for schedule in (schedules.cosine(num_steps=num_steps),
                   schedules.respace(schedules.linear(num_steps=1000), str(num_steps))):
    for name in ('alpha_bar', 'alpha_bar_prev', 'alpha_bar_next', 'posterior_variance',
                 'posterior_log_variance', 'large_variance', 'posterior_x0_weight',
                 'posterior_xt_weight'):
      table = getattr(schedule, name)
      assert table.shape == (num_steps,) and np.isfinite(table).all(), name
    assert (schedule.large_variance > 0).all()


@pytest.mark.parametrize('betas', [[0.1, 0.0], [0.1, 1.0], [[0.1]], [-0.1], [np.nan], []])
def test_variances_outside_0_to_1_are_refused(betas):
  """And a beta of 1, after which alpha_bar would be 0, and sigma infinite."""
  with pytest.raises(UsageError, match='betas .*: give'):
    schedules.from_betas(betas)


def test_too_few_linear_steps_are_refused():
  """Scaled by 1000 / T, beta would reach 1."""
  for num_steps in (10, 20):
    with pytest.raises(UsageError, match='linear has them from 21 steps on'):
      schedules.linear(num_steps=num_steps)
  assert np.isfinite(schedules.linear(num_steps=21).sigma).all()


def test_cosine_without_a_cap_is_refused():
  with pytest.raises(UsageError, match='cosine with a max_beta below 1'):
    schedules.cosine(num_steps=50, max_beta=1.0)
