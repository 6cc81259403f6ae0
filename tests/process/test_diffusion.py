"""The process q and the reading p of a network's output: parity, inverses, and Bayes' rule."""

import golden_files
import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import relative_error

from adm_jax.errors import UsageError
from adm_jax.process import schedules
from adm_jax.process.diffusion import (
  X0,
  Diffusion,
  Eps,
  FixedLarge,
  FixedSmall,
  Learned,
  LearnedRange,
  Previous,
  V,
  denoiser,
  eps_from_x0,
  predict,
  q_marginal,
  q_posterior,
  q_sample,
  x0_from_eps,
)

SCHEDULES = [pytest.param(schedules.linear(num_steps=100), id='linear'),
             pytest.param(schedules.cosine(num_steps=30), id='cosine'),
             pytest.param(schedules.respace(schedules.linear(num_steps=1000), '25'), id='respaced')]


def images(seed, num, low=-1.0, high=1.0):
  """f32[num 2 3 3]."""
  return jax.random.uniform(jax.random.key(seed), (num, 2, 3, 3), minval=low, maxval=high)


def noised(schedule):
  """(x_0, x_t, t, eps) with one image at each step of the process."""
  t = jnp.arange(schedule.num_steps)
  x0 = images(0, schedule.num_steps)
  eps = jax.random.normal(jax.random.key(1), x0.shape)
  return x0, q_sample(schedule, x0, t, eps), t, eps


# ---------------------------------------------------------------------------------------------
# Parity with the reference.


@golden_files.parametrize('diffusion_')
def test_respaced_tables_are_the_reference_s(golden):
  """Betas and their products to the last digits; the same steps kept."""
  meta, arrays = golden_files.load(golden)
  schedule = golden_process.process(meta).schedule
  np.testing.assert_allclose(schedule.betas, arrays['betas'], rtol=1e-12, atol=0)
  np.testing.assert_allclose(schedule.alpha_bar, arrays['alphas_cumprod'], rtol=1e-12, atol=0)
  np.testing.assert_array_equal(schedule.timesteps, arrays['timestep_map'])


@golden_files.parametrize('diffusion_')
def test_q_is_the_reference_s(golden):
  """Noising in one jump, and the posterior of a step with the ends known."""
  meta, arrays = golden_files.load(golden)
  schedule = golden_process.process(meta).schedule
  x0, x, t, noise = (jnp.asarray(arrays[name]) for name in ('x0', 'x_t', 't', 'noise'))
  posterior = q_posterior(schedule, x0, x, t)
  log_variance = jnp.broadcast_to(posterior.log_variance, x.shape)
  bound = golden_process.TIGHT
  assert relative_error(q_sample(schedule, x0, t, noise), arrays['q_sample']) <= bound
  assert relative_error(posterior.mean, arrays['posterior_mean']) <= bound
  assert relative_error(log_variance, arrays['posterior_log_variance']) <= bound


@pytest.mark.parametrize('clip', [False, True], ids=['clip0', 'clip1'])
@golden_files.parametrize('diffusion_')
def test_p_is_the_reference_s(golden, clip):
  """Mean, variance, its log, and the predicted x_0, for every meaning of the channels."""
  meta, arrays = golden_files.load(golden)
  diffusion = golden_process.process(meta)
  denoise = denoiser(diffusion, golden_process.toy(diffusion), clip=clip)
  got = jax.jit(denoise)(arrays['x_t'], arrays['t'])
  suffix = f'clip{int(clip)}'
  bound = golden_process.TIGHT
  assert relative_error(got.mean, arrays[f'p_mean_{suffix}']) <= bound
  assert relative_error(got.variance, arrays[f'p_variance_{suffix}']) <= bound
  assert relative_error(got.log_variance, arrays[f'p_log_variance_{suffix}']) <= bound
  assert (relative_error(got.x0, arrays[f'p_pred_xstart_{suffix}'])
          <= golden_process.tolerance(meta))


# ---------------------------------------------------------------------------------------------
# q.


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_x0_and_eps_solve_the_same_equation(schedule):
  """Given x_t, each of the two recovers the other, at every t, the first and last included."""
  x0, x, t, eps = noised(schedule)
  # Rounding of x_t is amplified by 1 / sqrt(alpha_bar) and 1 / sqrt(1 - alpha_bar).
  a = schedule.alpha_bar
  x0_error = jnp.abs(x0_from_eps(schedule, eps, x, t) - x0).max(axis=(1, 2, 3))
  eps_error = jnp.abs(eps_from_x0(schedule, x0, x, t) - eps).max(axis=(1, 2, 3))
  assert (x0_error * np.sqrt(a) < 2e-6).all()
  assert (eps_error * np.sqrt(1 - a) < 2e-6).all()


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_q_marginal_is_where_q_sample_draws_from(schedule):
  """The mean is the draw with no noise; a unit of noise is a standard deviation."""
  x0, _, t, _ = noised(schedule)
  marginal = q_marginal(schedule, x0, t)
  none, one = jnp.zeros_like(x0), jnp.ones_like(x0)
  np.testing.assert_allclose(q_sample(schedule, x0, t, none), marginal.mean, rtol=1e-6)
  np.testing.assert_allclose(
      q_sample(schedule, x0, t, one) - marginal.mean,
      jnp.broadcast_to(jnp.exp(0.5 * marginal.log_variance), x0.shape), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_q_posterior_is_a_product_of_gaussians(schedule):
  """Bayes: q(x_{t-1} | x_t, x_0) ~ q(x_{t-1} | x_0) q(x_t | x_{t-1}), for all t but the first."""
  x0, x, t, _ = noised(schedule)
  got = q_posterior(schedule, x0, x, t)
  before, beta = (v[1:, None, None, None] for v in (schedule.alpha_bar_prev, schedule.betas))
  precision = 1 / (1 - before) + (1 - beta) / beta
  x0, x = (np.asarray(v, np.float64)[1:] for v in (x0, x))
  mean = (np.sqrt(before) * x0 / (1 - before) + np.sqrt(1 - beta) * x / beta) / precision
  np.testing.assert_allclose(got.mean[1:], mean, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(got.log_variance[1:], -np.log(precision), rtol=1e-5)


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_before_the_first_step_lies_x0_itself(schedule):
  """At t = 0 the posterior's mean is x_0, whatever x_t is."""
  x0 = images(0, 4)
  posterior = q_posterior(schedule, x0, images(1, 4), jnp.int32(0))
  np.testing.assert_allclose(posterior.mean, x0, rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# p.


@pytest.mark.parametrize('mean', [Eps(), X0(), V(), Previous()])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_the_truth_in_any_currency_reads_the_same(schedule, mean):
  """A network that gives its target predicts x_0, eps, and the posterior's mean."""
  x0, x, t, eps = noised(schedule)
  diffusion = Diffusion(schedule, mean, FixedSmall())
  output = mean.target(schedule, x0, x, t, eps)
  got = predict(diffusion, output, x, t, clip=False)
  # x_t is rounded to 1e-7, and x_0 reads it through 1 / sqrt(alpha_bar); for x_{t-1}, through the
  # inverse of x_0's weight in the posterior.
  amplified = 1 / np.sqrt(schedule.alpha_bar)
  if mean == Previous():
    amplified = np.maximum(amplified, 1 / schedule.posterior_x0_weight)
  error = jnp.abs(got.x0 - x0).max(axis=(1, 2, 3)) / amplified
  assert error.max() < 2e-6
  posterior = q_posterior(schedule, x0, x, t).mean
  np.testing.assert_allclose(got.mean, posterior, atol=2e-5)
  back = q_sample(schedule, got.x0, t, got.eps)
  np.testing.assert_allclose(back, x, atol=2e-6)


@pytest.mark.parametrize('variance', [FixedSmall(), FixedLarge(), LearnedRange(), Learned()])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_variance_is_the_exponential_of_its_log(schedule, variance):
  """Except at t = 0 of the fixed small variance, which is 0 and has no log."""
  x0, x, t, _ = noised(schedule)
  diffusion = Diffusion(schedule, X0(), variance)
  output = jnp.concatenate([x0, x], axis=-1) if variance.learned else x0
  got = predict(diffusion, output, x, t)
  assert got.variance.shape == got.log_variance.shape == x.shape
  start = 1 if variance == FixedSmall() else 0
  np.testing.assert_allclose(got.variance[start:], jnp.exp(got.log_variance[start:]), rtol=1e-5)
  assert (got.variance[0] == 0).all() == (variance == FixedSmall())


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_learned_range_spans_from_the_small_to_the_large_variance(schedule):
  """v = -1 is the posterior's variance, v = 1 is beta, v = 0 the geometric mean, and v = 3 goes on
  beyond: the fraction is not clamped."""
  x0, x, t, _ = noised(schedule)

  def log_variance(v):
    output = jnp.concatenate([x0, jnp.full_like(x0, v)], axis=-1)
    return predict(Diffusion(schedule, X0(), LearnedRange()), output, x, t).log_variance[:, 0, 0, 0]

  small, large = schedule.posterior_log_variance, np.log(schedule.betas)
  np.testing.assert_allclose(log_variance(-1.0), small, rtol=1e-5)
  np.testing.assert_allclose(log_variance(1.0), large, rtol=1e-5)
  np.testing.assert_allclose(log_variance(0.0), (small + large) / 2, rtol=1e-5)
  np.testing.assert_allclose(log_variance(3.0), large + (large - small), rtol=1e-5)


@pytest.mark.parametrize('mean', [Eps(), X0(), V()])
def test_mean_and_eps_follow_the_clipped_x0(mean):
  """Clipping is not cosmetic: every currency speaks of the clipped image."""
  schedule = schedules.linear(num_steps=100)
  x, t = images(0, 4, -3, 3), jnp.array([0, 1, 50, 99])
  got = predict(Diffusion(schedule, mean, FixedSmall()), images(1, 4, -3, 3), x, t)
  assert jnp.abs(got.x0).max() == 1
  np.testing.assert_allclose(got.mean, q_posterior(schedule, got.x0, x, t).mean, atol=1e-6)
  np.testing.assert_allclose(got.eps, eps_from_x0(schedule, got.x0, x, t), rtol=1e-6)


def test_a_mean_that_is_the_output_is_not_clipped():
  """Where the network gives x_{t-1}, clipping touches x_0 only."""
  schedule = schedules.cosine(num_steps=30)
  diffusion = Diffusion(schedule, Previous(), FixedSmall())
  output = images(1, 4, -3, 3)
  got = predict(diffusion, output, images(0, 4, -3, 3), jnp.array([0, 1, 15, 29]))
  np.testing.assert_array_equal(got.mean, output)
  assert jnp.abs(got.x0).max() == 1


@pytest.mark.parametrize('clip', [False, True])
def test_the_transform_comes_before_the_clip(clip):
  """x_0 is transformed as it was predicted, and what leaves the range is cut afterwards."""
  schedule = schedules.linear(num_steps=100)
  output = images(1, 4, -3, 3)
  got = predict(Diffusion(schedule, X0(), FixedSmall()), output, images(0, 4),
                jnp.array([0, 1, 50, 99]), clip=clip, transform=lambda x0: 2 * x0 + 0.5)
  want = 2 * output + 0.5
  np.testing.assert_array_equal(got.x0, jnp.clip(want, -1, 1) if clip else want)


def test_the_denoiser_asks_the_network_at_its_own_time():
  """A network sees the index it was trained with, one for each image, also for a scalar t."""
  schedule = schedules.respace(schedules.linear(num_steps=1000), '25')

  def network(x, time):
    return jnp.broadcast_to(time[:, None, None, None] / 1000, x.shape)

  denoise = denoiser(Diffusion(schedule, X0(), FixedSmall()), network)
  x = images(0, 3)
  np.testing.assert_allclose(denoise(x, jnp.array([0, 1, 24])).x0[:, 0, 0, 0], [0, 0.042, 0.999],
                             rtol=1e-6)
  alone, each = denoise(x, jnp.int32(24)), denoise(x, jnp.full(3, 24))
  jax.tree.map(np.testing.assert_array_equal, alone, each)


@pytest.mark.parametrize('variance', [FixedSmall(), FixedLarge(), LearnedRange(), Learned()])
def test_the_wrong_number_of_channels_is_refused(variance):
  """C where 2C are needed, or the reverse, in one line with both numbers."""
  diffusion = Diffusion(schedules.cosine(num_steps=10), Eps(), variance)
  wrong = 3 if variance.learned else 6
  assert diffusion.output_channels(3) == 9 - wrong
  with pytest.raises(UsageError, match=f'^the network returns {wrong} channels .* of 3.*$'):
    predict(diffusion, jnp.zeros((2, 4, 4, wrong)), jnp.zeros((2, 4, 4, 3)), jnp.int32(0))


def test_half_precision_outputs_are_read_in_float32():
  """A network may compute in bfloat16; the process does not."""
  diffusion = Diffusion(schedules.cosine(num_steps=10), Eps(), LearnedRange())
  got = predict(diffusion, jnp.zeros((2, 4, 4, 6), jnp.bfloat16), jnp.ones((2, 4, 4, 3)),
                jnp.int32(3))
  assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype('float32')}
