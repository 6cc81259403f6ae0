"""Solvers: parity step by step and run by run, and the known answers of Gaussian data."""

import golden_files
import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_data import GaussianData, MixtureData, moments
from golden_files import relative_error

from adm_jax.errors import UsageError
from adm_jax.process import schedules
from adm_jax.process.diffusion import (
  Diffusion,
  Eps,
  FixedLarge,
  FixedSmall,
  Learned,
  LearnedRange,
  Prediction,
  denoiser,
)
from adm_jax.sampling import solvers, spacings
from adm_jax.sampling.guidance import every_kth, guided
from adm_jax.sampling.sampler import noise_from_keys, sample
from adm_jax.sampling.steps import ascend, descend, to_clean, walk

LINEAR, COSINE = schedules.linear(num_steps=1000), schedules.cosine(num_steps=1000)
SCHEDULES = [pytest.param(LINEAR, id='linear'), pytest.param(COSINE, id='cosine')]
ALL = [pytest.param(solvers.ancestral(), id='ancestral'),
       *(pytest.param(solvers.ddim(eta), id=f'ddim_{eta}') for eta in (0.0, 0.5, 1.0))]
OFFERED = {name: make() for name, make in solvers.offered().items()}
# Beside those that have a name on the command line, orders that do not, and churn.
EVERY = {
    **OFFERED, **{solver.name: solver for solver in (
        solvers.dpm_multistep(1), solvers.dpm_multistep(1, sde=True),
        solvers.dpm_multistep(3, sde=True), solvers.unipc(1))},
    'euler churned': solvers.churned(solvers.euler()),
    'heun churned': solvers.churned(solvers.heun(), noise_scale=1.003)}
FAST = {name: solver for name, solver in EVERY.items() if not solver.neighbors_only}
FLOWS = {name: solver for name, solver in EVERY.items() if solver.deterministic}
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
  places = to_clean(schedule, np.arange(schedule.num_steps))
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
    return sample(solver, denoise, descend(diffusion.schedule), x, noise)[0]

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
  got, _ = sample(solvers.ddim(), DATA.denoiser(schedule), descend(schedule), x,
                  lambda step: jnp.zeros_like(x))
  np.testing.assert_allclose(got, DATA.flow(x, schedule.alpha_bar[-1], 1.0), atol=1e-2)


def test_ddim_is_of_first_order():
  """Twice the steps, half the error."""
  x = jnp.linspace(-3, 3, 7).reshape(1, 7, 1, 1)
  errors = []
  for num_steps in (125, 250, 500, 1000):
    schedule = schedules.linear(num_steps=num_steps)
    got, _ = sample(solvers.ddim(), DATA.denoiser(schedule), descend(schedule), x,
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
        x, descend(schedule), noise)

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


@pytest.mark.parametrize('solver', ALL)
def test_guidance_at_every_4th_step_adds_up_to_nearly_the_same(solver):
  """Mean and variance of the posterior, now within 0.03."""
  denoise, gradient = DATA.denoiser(LINEAR), observation_gradient(LINEAR, -0.4, 0.5)
  scale = every_kth(1.0, LINEAR, descend(LINEAR).t, 4)
  always, sometimes = (moments(solver, guided(denoise, gradient, LINEAR, scale=each), LINEAR)
                       for each in (1.0, scale))
  np.testing.assert_allclose(sometimes, always, atol=0.03)
  assert sometimes != always


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_ddim_encodes_along_the_flow_and_decodes_back(schedule):
  """Upwards along `ascend`, data become the noise that `descend` turns into the same data."""
  x0 = jnp.linspace(-1, 1, 7).reshape(1, 7, 1, 1)
  denoise = DATA.denoiser(schedule)

  def run(steps, x):
    return sample(solvers.ddim(), denoise, steps, x, lambda step: jnp.zeros_like(x))[0]

  encoded = run(ascend(schedule), x0)
  flow = DATA.flow(x0, schedule.alpha_bar[0], schedule.alpha_bar[-1])
  np.testing.assert_allclose(encoded, flow, atol=1e-2)
  np.testing.assert_allclose(run(descend(schedule), encoded), x0, atol=1e-2)


# ---------------------------------------------------------------------------------------------
# The ends of the process.


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_steps_chain(schedule):
  """Each step starts at the noise level where the one before ended, down to clean data."""
  for spec in ('', '10', 'ddim25'):
    respaced = schedules.respace(schedule, spec)
    down, up = descend(respaced), ascend(respaced)
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
                 descend(schedule), x, noise, keep=lambda prediction: prediction.x0)
  assert x0.shape[0] == schedule.num_steps and np.isfinite(x0).all()
  np.testing.assert_allclose(x, x0[-1], atol=1e-6)


def test_a_process_of_one_step_has_nothing_to_encode():
  """`ascend` goes from t = 0 to t = S - 1, which are the same: the image stays as it is."""
  schedule = schedules.cosine(num_steps=1)
  x0 = jnp.ones((1, 2, 2, 3))
  got, _ = sample(solvers.ddim(), DATA.denoiser(schedule), ascend(schedule), x0,
                  lambda step: x0)
  np.testing.assert_array_equal(got, x0)


@pytest.mark.parametrize('solver', ALL)
def test_the_first_step_down_is_from_the_last_index(solver):
  """t = S - 1 is asked first and t = 0 last: nothing is clamped."""
  schedule = schedules.cosine(num_steps=5)
  diffusion = Diffusion(schedule, Eps(), FixedSmall())

  def network(x, t):
    return jnp.broadcast_to(t.astype(jnp.float32)[:, None, None, None], x.shape)

  _, asked = sample(solver, denoiser(diffusion, network, clip=False), descend(schedule),
                    jnp.zeros((1, 1, 1, 1)), lambda step: jnp.zeros((1, 1, 1, 1)),
                    keep=lambda prediction: prediction.eps)
  np.testing.assert_allclose(asked.ravel(), [4, 3, 2, 1, 0], atol=1e-3)


# ---------------------------------------------------------------------------------------------
# Few evaluations: the papers' formulas, in float64.

FINE = schedules.linear(num_steps=20_000)
SPARSE = np.array([900, 700, 450, 220, 40])


def toy(x, t, cos=np.cos):
  """A prediction of x_0."""
  return 0.8 * cos(2 * x + t / 400)


def toy_denoiser(schedule):
  def denoise(x, t):
    x0 = toy(x, t, jnp.cos)
    sigma, a = (jnp.asarray(table, jnp.float32)[t] for table in (schedule.sigma,
                                                                 schedule.alpha_bar))
    nothing = jnp.zeros_like(x)
    return Prediction(x0=x0, eps=(x / jnp.sqrt(a) - x0) / sigma, mean=nothing, variance=nothing,
                      log_variance=nothing)
  return denoise


def levels(t):
  """(alpha, sigma, lambda) of the DPM-Solver papers; t = -1 is clean."""
  a = np.append(LINEAR.alpha_bar, 1.0)[t]
  with np.errstate(divide='ignore'):
    return np.sqrt(a), np.sqrt(1 - a), 0.5 * np.log(a / (1 - a))


def to_x(d, x, s, t):
  """DPM-Solver++, eq. 9 with a constant x_0 `d`."""
  (_, sigma_s, lambda_s), (alpha_t, sigma_t, lambda_t) = levels(s), levels(t)
  return sigma_t / sigma_s * x - alpha_t * np.expm1(lambda_s - lambda_t) * d


def paper_2m(x, noise):
  """DPM-Solver++, algorithm 2."""
  before = None
  for i, (s, t) in enumerate(zip(SPARSE, [*SPARSE[1:], -1])):
    d = now = toy(x, s)
    if 0 < i < len(SPARSE) - 1:
      lambdas = [levels(step)[2] for step in (SPARSE[i - 1], s, t)]
      r = (lambdas[1] - lambdas[0]) / (lambdas[2] - lambdas[1])
      d = (1 + 1 / (2 * r)) * now - 1 / (2 * r) * before
    x, before = to_x(d, x, s, t), now
  return x


def paper_2m_sde(x, noise):
  """SDE-DPM-Solver++(2M), section 5."""
  before = None
  for i, (s, t) in enumerate(zip(SPARSE, [*SPARSE[1:], -1])):
    d = now = toy(x, s)
    (_, sigma_s, lambda_s), (alpha_t, sigma_t, lambda_t) = levels(s), levels(t)
    h = lambda_t - lambda_s
    if 0 < i < len(SPARSE) - 1:
      d = now + (now - before) * h / (lambda_s - levels(SPARSE[i - 1])[2]) / 2
    x = (sigma_t / sigma_s * np.exp(-h) * x + alpha_t * (1 - np.exp(-2 * h)) * d
         + sigma_t * np.sqrt(1 - np.exp(-2 * h)) * noise[i])
    before = now
  return x


def paper_2s(x, noise):
  """DPM-Solver++(2S), algorithm 1, with r where the schedule has a step nearest to 1/2."""
  for s, t in zip(SPARSE[:-1], SPARSE[1:]):
    lambda_s, lambda_t = levels(s)[2], levels(t)[2]
    inner = np.arange(t, s)
    middle = inner[np.argmin(np.abs(levels(inner)[2] - (lambda_s + lambda_t) / 2))]
    r = (levels(middle)[2] - lambda_s) / (lambda_t - lambda_s)
    now = toy(x, s)
    later = toy(to_x(now, x, s, middle), middle)
    x = to_x((1 - 1 / (2 * r)) * now + 1 / (2 * r) * later, x, s, t)
  return to_x(toy(x, SPARSE[-1]), x, SPARSE[-1], -1)


def paper_unipc_2(x, noise):
  """UniPC-2 (algorithms 1 and 2 there, in x_0) with B(h) = e^h - 1."""
  held, corrected = [], None  # (t, x_0), the newest last
  for i, s in enumerate(SPARSE):
    now = toy(x, s)
    if i:
      start = held[-1][0]
      lambda_0, h = levels(start)[2], levels(s)[2] - levels(start)[2]
      others = held[-2:-1] if i > 1 else []
      r = np.array([*((levels(t)[2] - lambda_0) / h for t, _ in others), 1.0])
      differences = [*(d - held[-1][1] for _, d in others), now - held[-1][1]]
      # R a = b of the paper, with phi_k of -h; for one difference a = 1/2.
      phi = [np.expm1(-h) / -h - 1, (np.expm1(-h) / -h - 1) / -h - 1 / 2]
      b = np.array([phi[0], 2 * phi[1]]) / np.expm1(-h)
      a = [0.5] if len(r) == 1 else np.linalg.solve(np.stack([r ** 0, r]), b)
      x = to_x(held[-1][1] + sum(w / k * d for w, k, d in zip(a, r, differences)), corrected, start,
               s)
    corrected, d = x, now
    t = [*SPARSE[1:], -1][i]
    if 0 < i < len(SPARSE) - 1:
      h = levels(t)[2] - levels(s)[2]
      r = (levels(held[-1][0])[2] - levels(s)[2]) / h
      d = now + 0.5 / r * (held[-1][1] - now)
    held.append((s, now))
    x = to_x(d, x, s, t)
  return x


def edm(x, noise, second=True, churn=0.9, noise_scale=1.003):
  """EDM, algorithm 2, with noise levels rounded as its section C.3.4 says; all below S_max = 1."""
  x = x / levels(SPARSE[0])[0]
  def slope(x, t):
    alpha, sigma, _ = levels(t)
    return (x - toy(x * alpha, t)) * alpha / sigma
  for i, (s, t) in enumerate(zip(SPARSE, [*SPARSE[1:], -1])):
    sigma = LINEAR.sigma[s]
    gamma = min(churn / len(SPARSE), np.sqrt(2) - 1) if sigma <= 1 else 0
    raised = np.argmin(np.abs(np.log(LINEAR.sigma / (sigma * (1 + gamma)))))
    here, there = LINEAR.sigma[raised], np.append(LINEAR.sigma, 0)[t]
    x = x + np.sqrt(here ** 2 - sigma ** 2) * noise_scale * noise[i]
    d = slope(x, raised)
    end = x + (there - here) * d
    if second and t >= 0:
      end = x + (there - here) * (d + slope(end, t)) / 2
    x = end
  return x


@pytest.mark.parametrize('solver, formula', [
    (solvers.dpm_multistep(2), paper_2m), (solvers.dpm_multistep(2, sde=True), paper_2m_sde),
    (solvers.dpm_singlestep(), paper_2s), (solvers.unipc(2), paper_unipc_2),
    (solvers.churned(solvers.heun(), noise_scale=1.003), edm),
    (solvers.churned(solvers.euler(), noise_scale=1.003),
     lambda x, noise: edm(x, noise, second=False))],
    ids=['2m', '2m_sde', '2s', 'unipc_2', 'edm', 'edm_euler'])
def test_a_run_is_the_paper_s(solver, formula):
  """Uneven steps, to clean data, step by step as the algorithms are printed."""
  x, *noise = np.random.default_rng(0).standard_normal((1 + len(SPARSE), 1, 4, 4, 1))
  steps = to_clean(LINEAR, SPARSE)
  if 'edm' in formula.__code__.co_names or formula is edm:
    steps = spacings.churned(LINEAR, steps, 0.9, high=1.0)
  got, _ = sample(solver, toy_denoiser(LINEAR), steps, jnp.asarray(x, jnp.float32),
                  lambda index: jnp.asarray(np.stack(noise), jnp.float32)[index])
  np.testing.assert_allclose(got, formula(x, noise), atol=2e-5)


@pytest.mark.parametrize('solver, same', [
    (solvers.dpm_multistep(1), solvers.ddim()),
    (solvers.dpm_multistep(1, sde=True), solvers.ddim(1.0)),
    (solvers.churned(solvers.euler()), solvers.ddim())], ids=['flow', 'sde', 'no_churn'])
def test_order_1_is_ddim(solver, same):
  """Without noise and, as an SDE, with eta = 1; and churn along steps without any is nothing."""
  x, noise = (jax.random.normal(jax.random.key(seed), (2, 4, 4, 1)) for seed in range(2))
  steps = spacings.karras(LINEAR, 12)
  got, want = (sample(each, toy_denoiser(LINEAR), steps, x, lambda _: noise)[0]
               for each in (solver, same))
  # DDIM takes its roots from alpha_bar in float32.
  np.testing.assert_allclose(got, want, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# Orders of convergence.


@pytest.mark.parametrize('name', FLOWS)
def test_errors_fall_with_the_order_that_the_solver_claims(name):
  """Of a mixture of Gaussians, whose flow is exact: log error against log step, at even steps in
  lambda from sigma 80 to 0.05, has the slope `order`. In float64, so that it is the method's."""
  solver = FLOWS[name]
  data, sizes, errors = MixtureData(), (90, 135, 200, 300), []
  points = np.linspace(-120, 120, 21)
  first, last = np.searchsorted(FINE.sigma, [80, 0.05])
  want = data.flow(points, *map(float, np.float32(FINE.sigma[[first, last]])))
  with jax.enable_x64(True):
    for num in sizes:
      sigma = np.geomspace(FINE.sigma[first], FINE.sigma[last], num + 1)
      visited = np.abs(np.log(FINE.sigma / sigma[:, None])).argmin(axis=1)
      steps = jax.tree.map(
          lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf,
          walk(FINE, visited[:-1], visited[1:]))
      x = jnp.asarray(points).reshape(1, -1, 1, 1) / jnp.sqrt(1 + steps.sigma[0] ** 2)
      x, _ = sample(solver, data.denoiser(FINE), steps, x, jnp.zeros_like)
      got = x.ravel() * jnp.sqrt(1 + steps.sigma_next[-1] ** 2)
      errors.append(np.sqrt(((got - want) ** 2).mean()))
  slope = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
  assert abs(slope - solver.order) <= 0.25, (slope, errors)


@pytest.mark.parametrize('solver', [
    pytest.param(solver, id=solver.name) for solver in (
        *(solver for solver in OFFERED.values() if not solver.deterministic), solvers.ddim(1.0))])
def test_where_noise_is_drawn_the_variance_errs_with_the_order(solver):
  """Of images that are a Gaussian's, in all steps of schedules with more and more of them."""
  errors = []
  for num in (200, 400):
    schedule = schedules.linear(num_steps=num)
    _, var = moments(solver, DATA.denoiser(schedule), schedule)
    errors.append(abs(var - DATA.std ** 2))
  assert abs(np.log2(errors[0] / errors[1]) - solver.order) <= 0.25, errors


def test_the_sde_has_the_moments_of_the_data():
  """At order 2, a tenth of the steps of the process are enough."""
  steps = spacings.by_log_snr(COSINE, 100)
  mean, var = moments(solvers.dpm_multistep(sde=True), DATA.denoiser(COSINE), COSINE, steps)
  np.testing.assert_allclose([mean, var], [DATA.mean, DATA.std ** 2], atol=1e-2)


# ---------------------------------------------------------------------------------------------
# The first, the last and the only step, of every method.


@pytest.mark.parametrize('name', FAST)
def test_few_steps_are_finite_and_end_on_the_last_predicted_x0(name):
  """In 1, 2 and 3 steps of all spacings; the cosine schedule starts where sigma is 20,000."""
  solver, x = FAST[name], jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
  diffusion = Diffusion(COSINE, Eps(), LearnedRange())
  denoise = denoiser(diffusion, golden_process.toy(diffusion))
  noise = noise_from_keys(jax.random.split(jax.random.key(1), 2), (2, 2, 3))
  runs = [spacings.churned(COSINE, space(COSINE, num), 10.0)
          for num, space in ((1, spacings.by_time), (2, spacings.trailing), (3, spacings.karras),
                             (3, spacings.by_log_snr))]

  @jax.jit
  def results(x):
    return [sample(solver, denoise, steps, x, noise, keep=lambda p: p.x0) for steps in runs]

  for steps, (end, x0) in zip(runs, results(x)):
    assert np.isfinite(x0).all() and len(x0) == len(steps.t)
    np.testing.assert_allclose(end, x0[-1], atol=1e-6)


@pytest.mark.parametrize('name', FAST)
def test_evaluations_are_counted_as_they_are_made(name):
  """As many per step as the solver claims, but one in the step to clean data."""
  asked, solver, steps = [], FAST[name], spacings.by_time(LINEAR, 4)

  def denoise(x, t):
    jax.debug.callback(lambda: asked.append(None))
    return toy_denoiser(LINEAR)(x, t)

  x = jnp.ones((1, 1, 1, 1))
  jax.block_until_ready(sample(solver, denoise, steps, x, lambda index: x))
  jax.effects_barrier()
  assert len(asked) == solvers.num_evaluations(solver, steps) == 3 * solver.evaluations + 1


@pytest.mark.parametrize('name', FLOWS)
def test_the_flow_is_followed_upwards_too(name):
  """Against noise, as DDIM encodes, and from order 2 nearer to the exact flow than DDIM."""
  order = np.arange(100, 1000, 37)
  steps = walk(LINEAR, order[:-1], order[1:])
  x0 = jnp.linspace(-1, 1, 7).reshape(1, 7, 1, 1)
  want = DATA.flow(x0, *LINEAR.alpha_bar[order[[0, -1]]])

  def error(solver):
    end, _ = sample(solver, DATA.denoiser(LINEAR), steps, x0, lambda _: x0)
    return np.abs(end - want).max()

  share = 0.5 if FLOWS[name].order > 1 else 1.01
  assert error(FLOWS[name]) < share * error(solvers.ddim())


# ---------------------------------------------------------------------------------------------
# Traits.


@pytest.mark.parametrize('name', EVERY)
def test_solvers_draw_noise_unless_they_are_deterministic(name):
  """Other noise makes other images, or nothing at all."""
  solver = EVERY[name]
  steps = descend(LINEAR) if solver.neighbors_only else spacings.by_time(LINEAR, 4)
  steps = spacings.churned(LINEAR, steps, 1.0)
  x, *noises = (jax.random.normal(jax.random.key(seed), (1, 2, 2, 1)) for seed in range(3))
  one, other = (sample(solver, DATA.denoiser(LINEAR), steps, x, lambda _, noise=noise: noise)[0]
                for noise in noises)
  assert bool((one == other).all()) == solver.deterministic


@pytest.mark.parametrize('name', OFFERED)
def test_steps_that_act_alone_remember_nothing_and_ask_once(name):
  """And those that may be churned remember nothing either, and draw no noise of their own."""
  solver = OFFERED[name]
  remembers = bool(jax.tree.leaves(solver.init(jnp.zeros((1, 1, 1, 1)))))
  assert solver.acts_alone == (not remembers and solver.evaluations == 1)
  assert not solver.may_churn or solver.deterministic and not remembers


@pytest.mark.parametrize('name', OFFERED)
def test_a_step_past_others_ends_at_its_noise_level(name):
  """From t = 900 to 100, of images that are all but a point, unless it knows only neighbors."""
  solver, point = OFFERED[name], GaussianData(mean=0.3, std=1e-3)
  steps = walk(LINEAR, np.array([900]), np.array([100]))
  eps, noise = (jax.random.normal(jax.random.key(seed), (1, 64, 64, 1)) for seed in range(2))
  x = 0.3 * jnp.sqrt(steps.alpha_bar[0]) + jnp.sqrt(1 - steps.alpha_bar[0]) * eps
  x, _ = sample(solver, point.denoiser(LINEAR), steps, x, lambda _: noise)
  left = (x - 0.3 * np.sqrt(LINEAR.alpha_bar[100])) / np.sqrt(1 - LINEAR.alpha_bar[100])
  assert (abs(left.std() - 1) < 0.05) == (not solver.neighbors_only)


def test_ddim_with_noise_is_not_deterministic():
  assert solvers.ddim().deterministic and not solvers.ddim(0.5).deterministic
  assert solvers.ddim(0.5).acts_alone


@pytest.mark.parametrize('order', [0, 4])
def test_an_order_that_is_not_there_is_refused(order):
  for solver in (solvers.dpm_multistep, solvers.unipc):
    with pytest.raises(UsageError, match='orders 1, 2 and 3'):
      solver(order)
