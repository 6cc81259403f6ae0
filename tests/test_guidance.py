"""Guidance: Bayes' rule for scores, and where the gradient enters."""

import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax import schedules
from adm_jax.diffusion import (
  X0,
  Diffusion,
  Eps,
  FixedLarge,
  FixedSmall,
  Learned,
  LearnedRange,
  Prediction,
  denoiser,
  eps_from_x0,
  lookup,
)
from adm_jax.guidance import classifier_gradient, guided, shift

SCHEDULES = [pytest.param(schedules.linear(num_steps=50), id='linear'),
             pytest.param(schedules.cosine(num_steps=50), id='cosine'),
             pytest.param(schedules.respace(schedules.linear(num_steps=1000), '25'), id='respaced')]


def linear_classifier(weight):
  """x_t [B H W C] -> logits [B classes], linear in the pixels."""
  return lambda x, t: x.reshape(x.shape[0], -1) @ weight


def test_the_gradient_of_a_linear_classifier_is_its_row_less_the_expected_row():
  """grad log softmax(W x)_y = scale (W_y - sum_k p_k W_k)."""
  keys = jax.random.split(jax.random.key(0), 2)
  weight, x = jax.random.normal(keys[0], (12, 5)), jax.random.normal(keys[1], (3, 2, 2, 3))
  labels = jnp.array([4, 0, 2])
  got = classifier_gradient(linear_classifier(weight), labels, 2.5)(x, jnp.zeros(3))
  p = jax.nn.softmax(x.reshape(3, 12) @ weight)
  want = 2.5 * (weight[:, labels].T - p @ weight.T)
  np.testing.assert_allclose(got.reshape(3, 12), want, rtol=1e-4, atol=1e-5)


def test_gradients_average_to_zero_over_the_classes():
  """sum_y p(y | x) grad log p(y | x) = grad 1 = 0: guidance prefers no direction by itself."""
  weight = jax.random.normal(jax.random.key(0), (12, 5))
  x = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (1, 2, 2, 3)), (5, 2, 2, 3))
  gradients = classifier_gradient(linear_classifier(weight), jnp.arange(5), 1.0)(x, jnp.zeros(5))
  p = jax.nn.softmax(linear_classifier(weight)(x, None)[0])
  np.testing.assert_allclose(jnp.einsum('k,khwc->hwc', p, gradients), 0, atol=1e-5)


def test_half_precision_logits_are_normalised_in_float32():
  """The log-softmax of bfloat16 logits loses nothing more."""
  weight, x = jnp.eye(4, dtype=jnp.bfloat16), jnp.arange(8.0).reshape(2, 2, 2, 1)
  labels = jnp.array([0, 3])

  def classifier(x, t):
    return x.reshape(2, 4).astype(jnp.bfloat16) @ weight

  got = classifier_gradient(classifier, labels, 1.0)(x, None).reshape(2, 4)
  want = jnp.eye(4)[labels] - jax.nn.softmax(x.reshape(2, 4))
  # The gradient itself comes back through bfloat16, of 8 bits.
  np.testing.assert_allclose(got, want, atol=2 ** -8)


def mixture_denoiser(schedule, centres, std):
  """(the ideal denoiser of a mixture of N(centre, std^2 I), its exact classifier, each part's own).

  centres: f32[K H W C], of equal probability.
  """
  def at(x, t):
    a = lookup(schedule.alpha_bar, t, x)[..., None]  # [B 1 1 1 1]
    offset = x[..., None] - jnp.sqrt(a) * jnp.moveaxis(centres, 0, -1)[None]  # [B H W C K]
    variance = a * std ** 2 + 1 - a
    x0 = jnp.moveaxis(centres, 0, -1)[None] + jnp.sqrt(a) * std ** 2 / variance * offset
    logits = (-0.5 * offset ** 2 / variance).sum(axis=(1, 2, 3))  # [B K]
    return x0, logits

  def prediction(x0, x, t):
    nothing = jnp.zeros_like(x)
    return Prediction(x0=x0, eps=eps_from_x0(schedule, x0, x, t), mean=nothing, variance=nothing,
                      log_variance=nothing)

  def denoise(x, t):
    x0, logits = at(x, t)
    weight = jax.nn.softmax(logits)[:, None, None, None]
    return prediction((weight * x0).sum(axis=-1), x, t)

  def denoise_class(labels):
    def denoise(x, t):
      x0, _ = at(x, t)
      index = labels[:, None, None, None, None]
      return prediction(jnp.take_along_axis(x0, index, axis=-1)[..., 0], x, t)
    return denoise

  return denoise, lambda x, t: at(x, t)[1], denoise_class


@pytest.mark.parametrize('t', [0, 1, 25, 48, 49])
@pytest.mark.parametrize('schedule', SCHEDULES[:2])
def test_guidance_by_the_exact_classifier_is_the_conditional_denoiser(schedule, t):
  """Bayes: grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t), of a mixture."""
  centres = 0.2 * jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
  denoise, classifier, denoise_class = mixture_denoiser(schedule, centres, 0.4)
  labels, t = jnp.array([0, 1, 2, 1]), jnp.int32(t)
  x = jax.random.normal(jax.random.key(1), (4, 2, 2, 3))
  gradient = classifier_gradient(classifier, labels, 1.0)
  got, want = guided(denoise, gradient, schedule)(x, t), denoise_class(labels)(x, t)
  a = schedule.alpha_bar[int(t)]
  # Rounding of eps and x_0 grows with 1 / sqrt(1 - alpha_bar) and 1 / sqrt(alpha_bar).
  np.testing.assert_allclose(got.eps, want.eps, atol=2e-6 / np.sqrt(1 - a))
  np.testing.assert_allclose(got.x0, want.x0, atol=3e-6 / np.sqrt(a))


@pytest.mark.parametrize('variance', [FixedSmall(), FixedLarge(), LearnedRange(), Learned()])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_a_gradient_moves_each_currency_as_its_paper_says(schedule, variance):
  """The mean by variance x gradient (ADM, algorithm 1), eps by -sqrt(1 - alpha_bar) x gradient
  (algorithm 2), x_0 with eps and not clipped again; the variance stays."""
  diffusion = Diffusion(schedule, Eps(), variance)
  t = jnp.arange(schedule.num_steps)
  x, gradient = (jax.random.normal(jax.random.key(i), (schedule.num_steps, 2, 2, 3))
                 for i in range(2))
  before = denoiser(diffusion, golden_process.toy(diffusion))(x, t)
  after = shift(schedule, before, gradient, x, t)
  np.testing.assert_allclose(after.mean, before.mean + before.variance * gradient, rtol=1e-6)
  sigma = lookup(np.sqrt(1 - schedule.alpha_bar), t, x)
  np.testing.assert_allclose(after.eps, before.eps - sigma * gradient, rtol=1e-6)
  # Both stay on the same x_t: sqrt(a) x_0 + sqrt(1 - a) eps, so that x_0 moves by the rest.
  back = lookup(np.sqrt(schedule.alpha_bar), t, x) * after.x0 + sigma * after.eps
  np.testing.assert_allclose(back, x, atol=2e-5)
  assert jnp.abs(after.x0).max() > 1 >= jnp.abs(before.x0).max()
  np.testing.assert_array_equal(after.variance, before.variance)
  np.testing.assert_array_equal(after.log_variance, before.log_variance)


def test_a_fixed_small_variance_takes_no_guidance_at_the_last_step():
  """At t = 0 it is 0, unlike the exponential of its clipped log, and so is the move of the mean."""
  schedule = schedules.linear(num_steps=50)
  diffusion = Diffusion(schedule, X0(), FixedSmall())
  x = jax.random.normal(jax.random.key(0), (2, 2, 2, 3))
  before = denoiser(diffusion, golden_process.toy(diffusion))(x, jnp.int32(0))
  after = shift(schedule, before, jnp.ones_like(x), x, jnp.int32(0))
  np.testing.assert_array_equal(after.mean, before.mean)


@pytest.mark.parametrize('rescale', [False, True])
def test_the_classifier_is_asked_at_the_time_it_was_trained_with(rescale):
  """The index of the whole process, rescaled where the network's is, one for each image."""
  schedule = schedules.respace(
      schedules.cosine(num_steps=400, rescale_timesteps=rescale), '40')
  asked = []

  def gradient(x, time):
    asked.append(time)
    return jnp.zeros_like(x)

  diffusion = Diffusion(schedule, Eps(), FixedSmall())
  x = jnp.ones((3, 2, 2, 3))
  guided(denoiser(diffusion, golden_process.toy(diffusion)), gradient, schedule)(x, jnp.int32(39))
  np.testing.assert_array_equal(asked[0], np.full(3, 399 * (2.5 if rescale else 1)))


def test_no_gradient_no_change():
  """Guidance of scale 0 is no guidance, in every currency."""
  schedule = schedules.cosine(num_steps=50)
  diffusion = Diffusion(schedule, Eps(), LearnedRange())
  denoise = denoiser(diffusion, golden_process.toy(diffusion), clip=False)
  weight = jax.random.normal(jax.random.key(0), (12, 5))
  gradient = classifier_gradient(linear_classifier(weight), jnp.array([1, 4]), 0.0)
  x, t = jax.random.normal(jax.random.key(1), (2, 2, 2, 3)), jnp.array([0, 30])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
               guided(denoise, gradient, schedule)(x, t), denoise(x, t))
