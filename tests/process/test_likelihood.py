"""The variational bound: parity, sums to one, divergences in closed form, and a known entropy."""

import math

import golden_files
import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from gaussian_data import GaussianData

from adm_jax.process import likelihood, schedules
from adm_jax.process.diffusion import Diffusion, Eps, FixedSmall, Gaussian, denoiser, q_sample
from adm_jax.sampling.sampler import noise_from_keys

LEVELS = np.arange(256) / 127.5 - 1  # 8-bit images in [-1, 1]


# ---------------------------------------------------------------------------------------------
# Parity with the reference.


@golden_files.parametrize('diffusion_')
def test_the_bound_is_the_reference_s(golden):
  """Every term, both errors and the total, for all steps."""
  meta, arrays = golden_files.load(golden)
  diffusion = golden_process.process(meta)
  denoise = denoiser(diffusion, golden_process.toy(diffusion))
  x0, noise = arrays['x0'], arrays['noise']
  bound = jax.jit(lambda x0: likelihood.bits_per_dimension(
      diffusion, denoise, x0, golden_process.constant(noise)))(x0)
  tight, loose = golden_process.TIGHT, golden_process.LOOSE

  # It is 0 but for rounding where the process ends in pure noise.
  np.testing.assert_allclose(bound.prior, arrays['bpd_prior_bpd'], rtol=tight, atol=2e-7)
  np.testing.assert_allclose(bound.x0_mse, arrays['bpd_xstart_mse'],
                             rtol=golden_process.tolerance(meta))
  # The noise's error is what is left of x_t and x_0 at t = 0, and of two noises at t = S - 1.
  np.testing.assert_allclose(bound.eps_mse, arrays['bpd_mse'], rtol=loose, atol=1e-10)

  first = jnp.int32(0)
  prediction = denoise(q_sample(diffusion.schedule, x0, first, noise), first)
  decoder = golden_process.bound_rounding(prediction, x0, first)  # f64[B]
  divergence = golden_process.bound_rounding(prediction, x0, jnp.int32(1))
  steps = diffusion.schedule.num_steps
  rounding = np.stack([*[divergence] * (steps - 1), decoder], axis=1)  # f64[B S]
  vb, total = arrays['bpd_vb'], arrays['bpd_total_bpd']
  assert (np.abs(bound.vb - vb) <= tight * np.abs(vb) + rounding).all()
  assert (np.abs(bound.total - total) <= tight * total + rounding.sum(axis=1)).all()


# ---------------------------------------------------------------------------------------------
# Its terms.


@pytest.mark.parametrize('std', [0.002, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize('mean', [-1.5, -1.0, -0.3, 0.0, 0.5, 1.0, 1.2])
def test_the_256_levels_share_all_probability(mean, std):
  """The outer levels take the tails, so that the sum is 1 wherever the Gaussian lies."""
  p = Gaussian(jnp.float32(mean), jnp.float32(2 * math.log(std)))
  log_p = likelihood.discretized_log_likelihood(jnp.asarray(LEVELS, jnp.float32), p)
  np.testing.assert_allclose(jnp.exp(log_p).sum(), 1, atol=2e-5)


@pytest.mark.parametrize('std', [0.01, 0.1, 1.0])
@pytest.mark.parametrize('mean', [-1.0, -0.3, 0.5])
def test_a_level_has_the_probability_of_its_interval(mean, std):
  """To the accuracy, 2e-4, of the published approximation of the distribution function."""
  p = Gaussian(jnp.float32(mean), jnp.float32(2 * math.log(std)))
  got = jnp.exp(likelihood.discretized_log_likelihood(jnp.asarray(LEVELS, jnp.float32), p))
  edges = np.concatenate([[-np.inf], LEVELS[:-1] + 1 / 255, [np.inf]])
  want = np.diff(scipy.special.ndtr((edges - mean) / std))
  np.testing.assert_allclose(got, want, atol=4e-4)


def test_no_probability_is_zero():
  """A level far away costs log 1e-12, not infinity."""
  p = Gaussian(jnp.float32(1.0), jnp.float32(-20.0))
  got = likelihood.discretized_log_likelihood(jnp.asarray(LEVELS, jnp.float32), p)
  assert np.isfinite(got).all()
  np.testing.assert_allclose(got[:200], np.log(1e-12), rtol=1e-6)


@pytest.mark.parametrize('mean_p, log_p, mean_q, log_q', [
    (0.0, 0.0, 0.0, 0.0), (0.5, -1.0, 0.5, -1.0), (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, -1.0),
    (-0.5, -2.0, 0.3, 0.5)])
def test_gaussian_kl_is_the_integral(mean_p, log_p, mean_q, log_q):
  """KL = integral of p log (p / q): 0 only where they are the same."""
  got = likelihood.gaussian_kl(*(Gaussian(jnp.float32(mean), jnp.float32(log_variance))
                                 for mean, log_variance in ((mean_p, log_p), (mean_q, log_q))))
  std = math.exp(log_p / 2)
  x = mean_p + std * np.linspace(-12, 12, 20001)

  def log_density(mean, log_variance):
    return -0.5 * ((x - mean) ** 2 * np.exp(-log_variance) + log_variance + np.log(2 * np.pi))

  difference = log_density(mean_p, log_p) - log_density(mean_q, log_q)
  want = (np.exp(log_density(mean_p, log_p)) * difference).sum() * (x[1] - x[0])
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('schedule', [schedules.linear(num_steps=100),
                                      schedules.cosine(num_steps=1)])
def test_the_prior_term_has_a_closed_form(schedule):
  """KL(N(sqrt(a) x_0, 1 - a) || N(0, 1)) = (a x_0^2 - a - log(1 - a)) / 2, in bits."""
  x0 = jnp.linspace(-1, 1, 24).reshape(2, 2, 2, 3)
  a = schedule.alpha_bar[-1]
  want = (0.5 * (a * np.asarray(x0) ** 2 - a - np.log1p(-a))).mean(axis=(1, 2, 3)) / np.log(2)
  got = likelihood.prior_term(Diffusion(schedule), x0)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-7)


def test_a_model_that_knows_x0_pays_only_for_the_ends():
  """With the true x_0 and the posterior's variance p is q: every divergence is 0."""
  schedule = schedules.linear(num_steps=100)
  x0 = jnp.asarray(LEVELS[::11], jnp.float32).reshape(2, 2, 2, 3)
  diffusion = GaussianData(0, 1).diffusion(schedule, FixedSmall())
  bound = likelihood.bits_per_dimension(
      diffusion, denoiser(diffusion, lambda x, t: x0), x0,
      noise_from_keys(jax.random.split(jax.random.key(0), 2), (2, 2, 3)))
  assert bound.vb.shape == (2, 100)
  np.testing.assert_allclose(bound.vb[:, :-1], 0, atol=1e-6)
  np.testing.assert_allclose(bound.x0_mse, 0, atol=1e-12)
  np.testing.assert_allclose(bound.total, bound.prior + bound.vb.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize('schedule', [pytest.param(schedules.linear(num_steps=1000), id='linear'),
                                      pytest.param(schedules.cosine(num_steps=1000), id='cosine')])
def test_the_bound_of_an_exact_model_is_the_entropy_of_the_data(schedule):
  """For N(0, s^2) in 8 bits: log2(s sqrt(2 pi e)) + log2(127.5), with nothing lost on the way."""
  data, num = GaussianData(0, 0.25), 4096
  quantiles = data.std * scipy.special.ndtri((np.arange(num) + 0.5) / num)
  x0 = LEVELS[np.abs(quantiles[:, None] - LEVELS).argmin(axis=1)]
  x0 = jnp.asarray(x0, jnp.float32).reshape(1, 64, 64, 1)
  noise = noise_from_keys(jax.random.split(jax.random.key(0), 1), (64, 64, 1))
  diffusion = data.diffusion(schedule)
  bound = jax.jit(lambda x0: likelihood.bits_per_dimension(
      diffusion, data.denoiser(schedule), x0, noise))(x0)
  entropy = np.log2(data.std * np.sqrt(2 * np.pi * np.e)) + np.log2(127.5)
  np.testing.assert_allclose(bound.total, entropy, atol=0.02)


@pytest.mark.parametrize('num_steps', [1, 2])
def test_the_shortest_processes_have_a_finite_bound(num_steps):
  """One step is the decoder alone, two are a divergence and the decoder."""
  diffusion = Diffusion(schedules.cosine(num_steps=num_steps), Eps(), FixedSmall())
  x0 = jnp.asarray(LEVELS[::11], jnp.float32).reshape(2, 2, 2, 3)
  bound = likelihood.bits_per_dimension(
      diffusion, denoiser(diffusion, golden_process.toy(diffusion)), x0,
      noise_from_keys(jax.random.split(jax.random.key(0), 2), (2, 2, 3)))
  assert all(np.isfinite(term).all() for term in jax.tree.leaves(bound))
  assert (bound.vb >= 0).all() and bound.vb.shape == (2, num_steps)
