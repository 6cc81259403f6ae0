"""Solvers: parity step by step and run by run, and the known answers of Gaussian data."""

import golden_files
import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_data import GaussianData, moments
from golden_files import relative_error

from adm_jax import schedules, solvers
from adm_jax.diffusion import (
  Diffusion,
  Eps,
  FixedLarge,
  FixedSmall,
  Learned,
  LearnedRange,
  denoiser,
)
from adm_jax.guidance import guided
from adm_jax.sampling import noise_from_keys, sample

LINEAR, COSINE = schedules.linear(num_steps=1000), schedules.cosine(num_steps=1000)
SCHEDULES = [pytest.param(LINEAR, id='linear'), pytest.param(COSINE, id='cosine')]
ALL = [pytest.param(solvers.ancestral(), id='ancestral'),
       *(pytest.param(solvers.ddim(eta), id=f'ddim_{eta}') for eta in (0.0, 0.5, 1.0))]
DATA = GaussianData(mean=0.3, std=0.5)


# ---------------------------------------------------------------------------------------------
# Parity with the reference.


def golden_denoiser(diffusion, guidance):
  denoise = denoiser(diffusion, golden_process.toy(diffusion))
  if guidance == 'unguided':
    return denoise
  return guided(denoise, golden_process.toy_gradient, diffusion.schedule)


def single_steps(solver, denoise, schedule, alpha_bar_next, arrays):
  """One step for each image from its own t."""
  places = solvers.to_clean(schedule, np.arange(schedule.num_steps))
  places = places.replace(alpha_bar_next=jnp.asarray(alpha_bar_next, jnp.float32))

  @jax.jit
  @jax.vmap
  def step(x, t, noise):
    place = jax.tree.map(lambda leaf: leaf[t], places)
    x = x[None]  # [1 H W C]
    return solver.step(denoise, x, solver.init(x), place, noise[None])[0][0]
  return step(arrays['x_t'], arrays['t'], arrays['noise'])


@pytest.mark.parametrize('name, solver', [
    ('ancestral', solvers.ancestral()), ('ddim_eta0.0', solvers.ddim()),
    ('ddim_eta0.5', solvers.ddim(0.5)), ('ddim_eta1.0', solvers.ddim(1.0))])
@pytest.mark.parametrize('guidance', ['unguided', 'guided'])
@golden_files.parametrize('diffusion_')
def test_a_step_is_the_reference_s(golden, guidance, name, solver):
  """From the first t, the last, and between, with the noise given."""
  meta, arrays = golden_files.load(golden)
  diffusion = golden_process.process(meta)
  got = single_steps(solver, golden_denoiser(diffusion, guidance), diffusion.schedule,
                     diffusion.schedule.alpha_bar_prev, arrays)
  assert relative_error(got, arrays[f'{name}_{guidance}']) <= golden_process.tolerance(meta)


@golden_files.parametrize('diffusion_')
def test_a_reverse_ddim_step_is_the_reference_s(golden):
  """Deterministic DDIM towards the next noise level, which is pure noise beyond the last t."""
  meta, arrays = golden_files.load(golden)
  diffusion = golden_process.process(meta)
  got = single_steps(solvers.ddim(), golden_denoiser(diffusion, 'unguided'), diffusion.schedule,
                     diffusion.schedule.alpha_bar_next, arrays)
  assert relative_error(got, arrays['ddim_reverse']) <= golden_process.tolerance(meta)


@pytest.mark.parametrize('name, solver', [
    ('ancestral', solvers.ancestral()), ('ddim', solvers.ddim())])
@golden_files.parametrize('diffusion_')
def test_a_guided_run_is_the_reference_s(golden, name, solver):
  """All steps, from x_t, with the same noise at each."""
  meta, arrays = golden_files.load(golden)
  diffusion = golden_process.process(meta)
  denoise = golden_denoiser(diffusion, 'guided')
  noise = golden_process.constant(arrays['noise'])

  @jax.jit
  def run(x):
    return sample(solver, denoise, solvers.descend(diffusion.schedule), x, noise)[0]

  want = arrays[f'loop_{name}_guided']
  error = np.abs(run(arrays['x_t']) - want)
  # Rounding is that of the numbers on the way, and a run may shrink its start many times over.
  scale = max(np.sqrt((array ** 2).mean()) for array in (arrays['x_t'], want))
  assert error.max() / scale <= golden_process.tolerance(meta)


# ---------------------------------------------------------------------------------------------
# Known answers.


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_ddim_carries_noise_onto_gaussian_data(schedule):
  """The ideal denoiser is linear, so the end point of 1,000 steps has a closed form."""
  x = jnp.linspace(-3, 3, 7).reshape(1, 7, 1, 1)
  got, _ = sample(solvers.ddim(), DATA.denoiser(schedule), solvers.descend(schedule), x,
                  lambda step: jnp.zeros_like(x))
  np.testing.assert_allclose(got, DATA.flow(x, schedule.alpha_bar[-1], 1.0), atol=1e-2)


def test_ddim_is_of_first_order():
  """Twice the steps, half the error."""
  x = jnp.linspace(-3, 3, 7).reshape(1, 7, 1, 1)
  errors = []
  for num_steps in (125, 250, 500, 1000):
    schedule = schedules.linear(num_steps=num_steps)
    got, _ = sample(solvers.ddim(), DATA.denoiser(schedule), solvers.descend(schedule), x,
                    lambda step: jnp.zeros_like(x))
    errors.append(np.abs(got - DATA.flow(x, schedule.alpha_bar[-1], 1.0)).max())
  ratios = np.divide(errors[:-1], errors[1:])
  np.testing.assert_allclose(ratios, 2, rtol=0.15)


@pytest.mark.parametrize('variance', [Learned(), FixedSmall(), FixedLarge()])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_ancestral_sampling_has_the_moments_of_the_data(schedule, variance):
  """Mean and variance, with the reverse step's own variance or either of its bounds."""
  mean, var = moments(solvers.ancestral(), DATA.denoiser(schedule, variance), schedule)
  np.testing.assert_allclose([mean, var], [DATA.mean, DATA.std ** 2], atol=1e-2)


@pytest.mark.parametrize('eta', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_ddim_has_the_moments_of_the_data(schedule, eta):
  """However much of each step is noise."""
  mean, var = moments(solvers.ddim(eta), DATA.denoiser(schedule), schedule)
  np.testing.assert_allclose([mean, var], [DATA.mean, DATA.std ** 2], atol=1e-2)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_ddim_with_eta_1_is_ancestral_sampling_with_the_small_variance(schedule):
  """Step by step, the same map of (x, noise)."""
  schedule = schedules.respace(schedule, '20')
  diffusion = Diffusion(schedule, Eps(), FixedSmall())
  denoise = denoiser(diffusion, golden_process.toy(diffusion))
  x, noise = (jax.random.normal(jax.random.key(seed), (20, 1, 2, 2, 3)) for seed in range(2))

  def step(solver):
    return jax.vmap(lambda x, place, noise: solver.step(denoise, x, (), place, noise)[0])(
        x, solvers.descend(schedule), noise)

  np.testing.assert_allclose(step(solvers.ddim(1.0)), step(solvers.ancestral()), atol=2e-5)


def observation_gradient(schedule, observed, noise_std):
  """grad log p(y | x_t) of y = x_0 + noise: Gaussian, since x_0 given x_t is."""
  def gradient(x, t):
    def log_likelihood(x):
      mean = DATA.x0_mean(schedule, x, t)
      var = jnp.asarray(DATA.x0_variance(schedule), jnp.float32)[t] + noise_std ** 2
      var = var.reshape(-1, 1, 1, 1)
      return (-0.5 * (observed - mean) ** 2 / var).sum()
    return jax.grad(log_likelihood)(x)
  return gradient


@pytest.mark.parametrize('solver', ALL)
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_exact_guidance_samples_the_posterior(schedule, solver):
  """Prior N(m, s^2) times likelihood N(y; x_0, r^2): mean and variance of the product."""
  observed, noise_std = -0.4, 0.5
  gain = DATA.std ** 2 / (DATA.std ** 2 + noise_std ** 2)
  want = DATA.mean + gain * (observed - DATA.mean), gain * noise_std ** 2
  denoise = guided(DATA.denoiser(schedule), observation_gradient(schedule, observed, noise_std),
                   schedule)
  np.testing.assert_allclose(moments(solver, denoise, schedule), want, atol=1e-2)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_ddim_encodes_along_the_flow_and_decodes_back(schedule):
  """Upwards along `ascend`, data become the noise that `descend` turns into the same data."""
  x0 = jnp.linspace(-1, 1, 7).reshape(1, 7, 1, 1)
  denoise = DATA.denoiser(schedule)

  def run(steps, x):
    return sample(solvers.ddim(), denoise, steps, x, lambda step: jnp.zeros_like(x))[0]

  encoded = run(solvers.ascend(schedule), x0)
  flow = DATA.flow(x0, schedule.alpha_bar[0], schedule.alpha_bar[-1])
  np.testing.assert_allclose(encoded, flow, atol=1e-2)
  np.testing.assert_allclose(run(solvers.descend(schedule), encoded), x0, atol=1e-2)


# ---------------------------------------------------------------------------------------------
# The ends of the process.


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_steps_chain(schedule):
  """Each step starts at the noise level where the one before ended, down to clean data."""
  for spec in ('', '10', 'ddim25'):
    respaced = schedules.respace(schedule, spec)
    down, up = solvers.descend(respaced), solvers.ascend(respaced)
    np.testing.assert_array_equal(down.alpha_bar[1:], down.alpha_bar_next[:-1])
    np.testing.assert_array_equal(up.alpha_bar[1:], up.alpha_bar_next[:-1])
    assert down.alpha_bar_next[-1] == 1 and down.t[-1] == 0 and up.t[0] == 0
    assert down.t[0] == respaced.num_steps - 1
    # Encoding ends where decoding starts.
    assert up.alpha_bar_next[-1] == down.alpha_bar[0]


SHORT = [pytest.param(schedules.cosine(num_steps=1), id='one_step'),
         pytest.param(schedules.cosine(num_steps=2), id='two_steps'),
         pytest.param(schedules.respace(LINEAR, '10'), id='ten_of_1000')]


@pytest.mark.parametrize('variance', [FixedSmall(), LearnedRange()])
@pytest.mark.parametrize('schedule', SHORT)
@pytest.mark.parametrize('solver', ALL)
def test_every_run_is_finite_and_ends_on_its_last_predicted_x0(solver, schedule, variance):
  """From the first step, t = S - 1, to the last, t = 0, which adds no noise; also where one step
  is both."""
  diffusion = Diffusion(schedule, Eps(), variance)
  x = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
  noise = noise_from_keys(jax.random.split(jax.random.key(1), 2), (2, 2, 3))
  x, x0 = sample(solver, denoiser(diffusion, golden_process.toy(diffusion)),
                 solvers.descend(schedule), x, noise, keep=lambda prediction: prediction.x0)
  assert x0.shape[0] == schedule.num_steps and np.isfinite(x0).all()
  np.testing.assert_allclose(x, x0[-1], atol=1e-6)


def test_a_process_of_one_step_has_nothing_to_encode():
  """`ascend` goes from t = 0 to t = S - 1, which are the same: the image stays as it is."""
  schedule = schedules.cosine(num_steps=1)
  x0 = jnp.ones((1, 2, 2, 3))
  got, _ = sample(solvers.ddim(), DATA.denoiser(schedule), solvers.ascend(schedule), x0,
                  lambda step: x0)
  np.testing.assert_array_equal(got, x0)


@pytest.mark.parametrize('solver', ALL)
def test_the_first_step_down_is_from_the_last_index(solver):
  """t = S - 1 is asked first and t = 0 last: nothing is clamped."""
  schedule = schedules.cosine(num_steps=5)
  diffusion = Diffusion(schedule, Eps(), FixedSmall())

  def network(x, t):
    return jnp.broadcast_to(t.astype(jnp.float32)[:, None, None, None], x.shape)

  _, asked = sample(solver, denoiser(diffusion, network, clip=False), solvers.descend(schedule),
                    jnp.zeros((1, 1, 1, 1)), lambda step: jnp.zeros((1, 1, 1, 1)),
                    keep=lambda prediction: prediction.eps)
  np.testing.assert_allclose(asked.ravel(), [4, 3, 2, 1, 0], atol=1e-3)
