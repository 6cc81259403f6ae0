"""Solvers and spacings by name: those of the package, a new one, and somebody's own."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_data import GaussianData

from adm_jax.cli import sampling_options
from adm_jax.cli.parser import Parser
from adm_jax.errors import UsageError
from adm_jax.process import schedules
from adm_jax.sampling import listing, solvers, spacings
from adm_jax.sampling.sampler import Sampler, image_keys

LINEAR = schedules.linear(num_steps=50)
# A whole solver: what somebody writes, and no other file changes.
MIDPOINT = '''
from adm_jax.sampling.solvers.base import Solver, flow, no_memory


def midpoint(strength: float = 1.0) -> Solver:
  """Takes the prediction halfway for the whole step."""
  def step(denoise, x, memory, step, noise):
    del noise
    p = denoise(x, step.t)
    q = denoise(flow(x, p.x0, step.sigma, step.sigma_middle), step.t_middle)
    x0 = p.x0 + strength * (step.sigma_next > 0) * (q.x0 - p.x0)
    return flow(x, x0, step.sigma, step.sigma_next), memory, p
  return Solver(no_memory, step, 'midpoint', order=2, evaluations=2, deterministic=True,
                may_churn=True)


OFFERED = (midpoint,)
'''


def sampled(solver, num_steps=10):
  """Images f32[16 1 1 1] of Gaussian data."""
  data = GaussianData(mean=0.3, std=0.5)
  sampler = Sampler(lambda params, labels: data.denoiser(LINEAR), solver,
                    spacings.by_time(LINEAR, num_steps), (1, 1, 1))
  assert sampler.num_evaluations == 1 + (num_steps - 1) * solver.evaluations
  return sampler({}, image_keys(jax.random.key(0), jnp.arange(16)))


def checked(*words):
  """Arguments of the command line, once it has no objection."""
  parser = Parser()
  sampling_options.add_model_arguments(parser)
  sampling_options.add_guidance_arguments(parser)
  sampling_options.add_step_arguments(parser)
  arguments = parser.parse_args(['--model', 'any', '--classifier', 'any', *words])
  sampling_options.fill_in_solver(arguments)
  sampling_options.check(arguments)
  return arguments


@pytest.fixture
def extended(tmp_path, monkeypatch):
  """The package, with one more module."""
  (tmp_path / 'midpoint.py').write_text(MIDPOINT)
  monkeypatch.setattr(solvers, '__path__', [*solvers.__path__, str(tmp_path)])
  yield
  sys.modules.pop('adm_jax.sampling.solvers.midpoint', None)
  vars(solvers).pop('midpoint', None)


def test_a_new_module_is_sampled_checked_and_listed_by_name(extended):
  assert 'midpoint' in solvers.offered()
  images, exact = sampled(solvers.by_name('midpoint')), sampled(solvers.unipc(3), 40)
  coarse = sampled(solvers.by_name('midpoint', strength=0.0))
  assert np.abs(images - exact).max() < 0.5 * np.abs(coarse - exact).max()
  np.testing.assert_allclose(coarse, sampled(solvers.ddim()), atol=1e-5)

  arguments = checked('--solver', 'midpoint', '--steps', '5', '--churn', '1')
  assert not sampling_options.solver('midpoint', arguments).deterministic
  with pytest.raises(UsageError, match='act alone: give --solver ancestral, ddim, euler$'):
    checked('--solver', 'midpoint', '--classifier-every', '2')
  with pytest.raises(UsageError, match='--churn belongs to --solver euler or heun or midpoint$'):
    checked('--solver', 'unipc2', '--churn', '1')
  assert ('| `midpoint` | 2 | 2 | yes | yes |  | any | Takes the prediction halfway for the whole '
          'step. |\n') in listing.page()


def test_two_solvers_of_one_name_are_refused(tmp_path, extended):
  (tmp_path / 'another.py').write_text(MIDPOINT)
  with pytest.raises(UsageError, match="second solver 'midpoint'"):
    solvers.offered()
  sys.modules.pop('adm_jax.sampling.solvers.another')
  vars(solvers).pop('another')


def test_somebodys_own_file_needs_no_place_in_the_package(tmp_path):
  (tmp_path / 'mine.py').write_text(MIDPOINT + '''
def thirds(schedule, num):
  import numpy as np
  from adm_jax.sampling.steps import to_clean
  return to_clean(schedule, np.arange(num)[::-1] * 3)
''')
  name = f'{tmp_path}/mine.py:midpoint'
  assert solvers.options(name) == ['strength'] and 'midpoint' not in solvers.offered()
  assert np.isfinite(sampled(solvers.by_name(name, strength=0.5))).all()
  space = f'{tmp_path}/mine.py:thirds'
  np.testing.assert_array_equal(spacings.by_name(space)(LINEAR, 4).t, [9, 6, 3, 0])
  checked('--solver', name, '--spacing', space, '--steps', '3')
  # A changed file is another solver to a job.
  before = solvers.by_name(name).name
  assert before.startswith('mine.py:midpoint ')
  (tmp_path / 'mine.py').write_text(MIDPOINT + '# changed')
  assert solvers.by_name(name).name not in (before, 'midpoint')


def test_names_that_jobs_were_made_with_stay():
  assert {'ancestral', 'ddim', 'euler', 'heun', 'dpm++2m', 'dpm++3m', 'dpm++2s', 'dpm++2m-sde',
          'unipc2', 'unipc3'} <= set(solvers.offered())
  assert {'time', 'log-snr', 'karras', 'trailing'} <= set(spacings.OFFERED)


def test_options_are_those_of_the_function():
  assert not solvers.by_name('ddim', eta=0.5).deterministic
  assert solvers.having('eta') == ['ddim'] and solvers.options('heun') == []
  high = spacings.by_name('karras', sigma_max=5.0)(LINEAR, 4)
  np.testing.assert_allclose(high.sigma[0], 5.0, rtol=0.1)


@pytest.mark.parametrize('words, message', [
    ('--solver huen', "no solver 'huen': did you mean heun? give ancestral, ddim, "),
    ('--solver xyz', "no solver 'xyz': give ancestral, "),
    ('--solver dpm++2s-sde', 'did you mean dpm++2m-sde'),
    ('--solver ddim --spacing karas --steps 3', "no spacing 'karas': did you mean karras? give "),
    ('--solver absent.py:f', 'no file absent.py'),
    ('--solver {}:absent', "has no function 'absent'"),
    ('--solver {}:number', 'returns a int: a solver is a function'),
    ('--solver {}:greedy', 'greedy fails: TypeError'),
    ('--solver ddim --spacing {}:absent', "has no function 'absent'"),
    ('--solver heun --eta 0.5', '--eta belongs to --solver ddim'),
    ('--steps 5', 'ancestral sampling takes them one by one: give --respacing 5')])
def test_a_wrong_name_is_found_before_any_model_is_loaded(tmp_path, words, message):
  file = tmp_path / 'mine.py'
  file.write_text('number = lambda: 3\ndef greedy(more):\n  pass\n')
  with pytest.raises(UsageError) as raised:
    checked(*words.format(file).split())
  assert message in str(raised.value) and '\n' not in str(raised.value)


def test_an_option_of_another_is_named_with_its_owner():
  with pytest.raises(UsageError, match='eta belongs to ddim, not to heun'):
    solvers.by_name('heun', eta=0.5)
  with pytest.raises(UsageError, match='rho belongs to karras, not to time'):
    spacings.by_name('time', rho=5.0)
  with pytest.raises(UsageError, match='solver heun has no option frob'):
    solvers.by_name('heun', frob=1)


def test_a_spacing_of_ones_own_that_fails_says_so(tmp_path):
  (tmp_path / 'mine.py').write_text('def space(schedule, num):\n  return schedule.absent\n')
  with pytest.raises(UsageError, match='mine.py:space fails: AttributeError'):
    spacings.by_name(f'{tmp_path}/mine.py:space')(LINEAR, 3)
