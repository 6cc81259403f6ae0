"""Guidance: Bayes' rule for scores, and where the gradient enters."""

import flax.linen as nn
import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.networks import Network
from adm_jax.process import schedules
from adm_jax.process.diffusion import (
  X0,
  Diffusion,
  Eps,
  FixedLarge,
  FixedSmall,
  Learned,
  LearnedRange,
  Prediction,
  denoiser,
  dynamic_threshold,
  eps_from_x0,
  lookup,
)
from adm_jax.sampling.guidance import (
  ByClassifier,
  ByWeakerModel,
  ClassifierFree,
  DynamicThreshold,
  Run,
  autoguided,
  classifier_free,
  classifier_gradient,
  every_kth,
  guided,
  normalized,
  scale_table,
  shift,
  thresholded,
  within,
)
from adm_jax.sampling.sampler import GuidedNetwork
from adm_jax.sampling.solvers import ancestral
from adm_jax.sampling.steps import descend
from adm_jax.weights.folders import Trained

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


def test_half_precision_logits_are_normalized_in_float32():
  """The log-softmax of bfloat16 logits loses nothing more."""
  weight, x = jnp.eye(4, dtype=jnp.bfloat16), jnp.arange(8.0).reshape(2, 2, 2, 1)
  labels = jnp.array([0, 3])

  def classifier(x, t):
    return x.reshape(2, 4).astype(jnp.bfloat16) @ weight

  got = classifier_gradient(classifier, labels, 1.0)(x, None).reshape(2, 4)
  want = jnp.eye(4)[labels] - jax.nn.softmax(x.reshape(2, 4))
  # The gradient itself comes back through bfloat16, of 8 bits.
  np.testing.assert_allclose(got, want, atol=2 ** -8)


def mixture_denoiser(schedule, centers, std):
  """(the ideal denoiser of a mixture of N(center, std^2 I), its exact classifier, each part's own).

  centers: f32[K H W C], of equal probability.
  """
  def at(x, t):
    a = lookup(schedule.alpha_bar, t, x)[..., None]  # [B 1 1 1 1]
    offset = x[..., None] - jnp.sqrt(a) * jnp.moveaxis(centers, 0, -1)[None]  # [B H W C K]
    variance = a * std ** 2 + 1 - a
    x0 = jnp.moveaxis(centers, 0, -1)[None] + jnp.sqrt(a) * std ** 2 / variance * offset
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
  centers = 0.2 * jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
  denoise, classifier, denoise_class = mixture_denoiser(schedule, centers, 0.4)
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


# ---------------------------------------------------------------------------------------------
# Guidance by another prediction.

COSINE = schedules.cosine(num_steps=50)
LABELS = jnp.array([0, 2, 1])
NULL = 3


def denoise_as(labels):
  """A network, as a formula, that reads the label."""
  diffusion = Diffusion(COSINE, Eps(), LearnedRange())
  toy = golden_process.toy(diffusion)
  shift = (0.3 * labels - 0.4).astype(jnp.float32)[:, None, None, None]
  return denoiser(diffusion, lambda x, time: toy(x, time) + shift, clip=False)


def points(t):
  x = jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
  return x, jnp.asarray(t)


def assert_close(got, want, rtol=1e-5):
  """Everywhere in a prediction, relative to the largest number there: x_0 may be in thousands."""
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=rtol * float(jnp.abs(b).max())),
               got, want)


TIMES = [pytest.param(t, id=str(t)) for t in (0, 25, 49, (0, 25, 49))]


@pytest.mark.parametrize('t', TIMES)
def test_classifier_free_guidance_is_a_line_through_both_predictions(t):
  """Scale 0 is the unconditional prediction, 1 the conditional, 3 twice as far beyond it.

  The variance is always the conditional's.
  """
  x, t = points(t)
  strong, weak = denoise_as(LABELS)(x, t), denoise_as(jnp.full(3, NULL))(x, t)
  for scale in (0.0, 1.0, 3.0):
    got = classifier_free(denoise_as, LABELS, NULL, COSINE, scale)(x, t)
    want = jax.tree.map(lambda a, b: a + scale * (b - a), weak, strong)
    assert_close(got, want.replace(variance=strong.variance, log_variance=strong.log_variance))


@pytest.mark.parametrize('t', TIMES)
def test_classifier_free_guidance_is_the_conditional_denoiser_s_own_classifier(t):
  """Of exact predictions of a mixture, scale w is the gradient of p(y | x_t) ** (w - 1) more."""
  centers = 0.2 * jax.random.normal(jax.random.key(0), (3, 2, 2, 3))
  denoise, classifier, denoise_class = mixture_denoiser(COSINE, centers, 0.4)
  x, t = points(t)

  def exact_as(labels):
    """Label 3 is any class."""
    def either(x, t):
      both = denoise(x, t), denoise_class(jnp.minimum(labels, 2))(x, t)
      is_null = (labels == NULL)[:, None, None, None]
      return jax.tree.map(lambda a, b: jnp.where(is_null, a, b), *both)
    return either

  got = classifier_free(exact_as, LABELS, NULL, COSINE, 2.5)(x, t)
  gradient = classifier_gradient(classifier, LABELS, 1.0)
  want = guided(denoise_class(LABELS), lambda x, time: gradient(x, t), COSINE, scale=1.5)(x, t)
  sigma = np.sqrt(1 - COSINE.alpha_bar[np.asarray(t)].min())
  np.testing.assert_allclose(got.eps, want.eps, atol=1e-5 / sigma)


@pytest.mark.parametrize('t', TIMES)
def test_autoguidance_is_a_line_through_both_models(t):
  x, t = points(t)
  strong, weak = denoise_as(LABELS), denoise_as(LABELS + 1)
  for scale in (0.0, 1.0, 2.0):
    got = autoguided(strong, weak, COSINE, scale)(x, t)
    want = jax.tree.map(lambda a, b: a + scale * (b - a), weak(x, t), strong(x, t))
    assert_close(got.x0, want.x0)
    assert_close(got.mean, want.mean)


def kinds(scale):
  """Every kind of guidance with a scale, unguided."""
  gradient = classifier_gradient(linear_classifier(jnp.eye(12, 5)), LABELS, 1.0)
  return {'gradient': guided(denoise_as(LABELS), gradient, COSINE, scale=scale),
          'classifier_free': classifier_free(denoise_as, LABELS, NULL, COSINE, scale),
          'auto': autoguided(denoise_as(LABELS), denoise_as(LABELS + 1), COSINE, scale)}


@pytest.mark.parametrize('kind, none', [('gradient', 0.0), ('classifier_free', 1.0), ('auto', 1.0)])
@pytest.mark.parametrize('t', TIMES)
def test_guidance_in_an_interval_is_all_inside_and_none_outside(t, kind, none):
  """An interval that covers every noise level is guidance always, to the last digit."""
  x, t = points(t)
  always, never = kinds(3.0)[kind](x, t), denoise_as(LABELS)(x, t)
  jax.tree.map(np.testing.assert_array_equal, always,
               kinds(within(3.0, COSINE, 0, np.inf, none))[kind](x, t))
  low, high = COSINE.sigma[[20, 30]]
  got = kinds(within(3.0, COSINE, low, high, none))[kind](x, t)
  inside = np.broadcast_to((np.asarray(t) >= 20) & (np.asarray(t) <= 30), 3)
  inside = inside.reshape(3, 1, 1, 1)
  assert_close(got, jax.tree.map(lambda a, b: jnp.where(inside, a, b), always, never))
  assert np.abs(always.x0 - never.x0).max() > 1e-3


def test_outside_its_interval_guidance_is_not_computed():
  """Neither the classifier nor the second half of the batch."""
  asked = []

  def spy(name, value):
    jax.debug.callback(lambda: asked.append(name))
    return value

  def gradient(x, time):
    return spy('gradient', jnp.ones_like(x))

  def model_as(labels):
    return lambda x, t: spy(len(labels), denoise_as(labels)(x, t))

  scale = within(3.0, COSINE, *COSINE.sigma[[20, 30]], 1.0)
  denoise = guided(classifier_free(model_as, LABELS, NULL, COSINE, scale), gradient, COSINE,
                   scale=within(3.0, COSINE, *COSINE.sigma[[20, 30]]))
  run = jax.jit(lambda x, t: denoise(x, t).x0)
  for t, want in ((25, [6, 'gradient']), (35, [3])):
    asked.clear()
    jax.block_until_ready(run(*points(t)))
    jax.effects_barrier()
    assert sorted(asked, key=str) == want


def test_a_scale_is_a_number_a_table_or_a_function_of_sigma():
  want = 1 + COSINE.sigma
  for scale in (want, lambda sigma: 1 + sigma):
    np.testing.assert_array_equal(scale_table(scale, COSINE), want)
  np.testing.assert_array_equal(scale_table(2, COSINE), np.full(50, 2.0))
  with pytest.raises(UsageError, match='each of the 50 steps'):
    scale_table(np.ones(49), COSINE)
  with pytest.raises(UsageError, match='no noise level'):
    within(1.0, COSINE, 1e6, 1e7)


def test_every_kth_step_of_a_run_has_k_times_the_scale():
  """From its first on, t = S - 1; and k = 1 changes nothing."""
  steps = descend(COSINE)
  np.testing.assert_array_equal(every_kth(2.0, COSINE, steps.t, 1), np.full(50, 2.0))
  table = every_kth(2.0, COSINE, steps.t, 5)
  assert table.sum() == 100 and set(table) == {0.0, 10.0}
  np.testing.assert_array_equal(np.flatnonzero(table), np.arange(4, 50, 5))
  with pytest.raises(UsageError, match='every 0th'):
    every_kth(2.0, COSINE, steps.t, 0)


def test_a_normalized_gradient_has_unit_root_mean_square_and_its_direction():
  """However sure the classifier is; and a gradient of exactly 0 stays so."""
  weight = jax.random.normal(jax.random.key(0), (12, 5))
  x = jax.random.normal(jax.random.key(1), (3, 2, 2, 3))
  x = x * jnp.array([1e-3, 1, 30]).reshape(3, 1, 1, 1)
  gradient = classifier_gradient(linear_classifier(weight), LABELS, 1.0)
  plain, got = gradient(x, None), normalized(gradient)(x, None)
  np.testing.assert_allclose((got ** 2).mean(axis=(1, 2, 3)), 1, rtol=1e-4)
  cosine = (plain * got).sum(axis=(1, 2, 3)) / jnp.sqrt((plain ** 2).sum(axis=(1, 2, 3)) * 12)
  np.testing.assert_allclose(cosine, 1, rtol=1e-4)
  np.testing.assert_array_equal(normalized(lambda x, t: 0 * x)(x, None), 0 * x)


# ---------------------------------------------------------------------------------------------
# Thresholds.


def test_a_dynamic_threshold_clips_at_its_quantile_and_rescales():
  """Imagen's: where few values leave [-1, 1] it is a clip, else the image is scaled into it."""
  quiet = jnp.linspace(-0.9, 0.9, 100).at[0].set(-4.0)
  loud = jnp.linspace(-3, 3, 100)
  got = dynamic_threshold(0.9)(jnp.stack([quiet, loud]).reshape(2, 10, 10, 1)).reshape(2, 100)
  np.testing.assert_allclose(got[0], jnp.clip(quiet, -1, 1), atol=1e-6)
  s = np.quantile(np.abs(loud), 0.9)
  np.testing.assert_allclose(got[1], np.clip(loud, -s, s) / s, atol=1e-5)
  with pytest.raises(UsageError, match='in \\(0, 1\\]'):
    dynamic_threshold(99.5)


@pytest.mark.parametrize('t', TIMES)
def test_a_clip_after_the_denoiser_is_the_clip_inside_it(t):
  """x_0, eps and mean."""
  diffusion = Diffusion(COSINE, Eps(), LearnedRange())
  x, t = points(t)
  inside = denoiser(diffusion, golden_process.toy(diffusion))
  after = thresholded(denoiser(diffusion, golden_process.toy(diffusion), clip=False),
                      lambda x0: jnp.clip(x0, -1, 1), COSINE)
  assert_close(after(x, t), inside(x, t), rtol=1e-4)


# ---------------------------------------------------------------------------------------------
# Of networks.


PROCESS = Diffusion(COSINE, Eps(), LearnedRange())


class Formula(nn.Module):
  """Eps, shifted by `params` times the class; or logits, which are pixels."""
  logits: int | None = None

  @nn.compact
  def __call__(self, x, time, y=None):
    if self.logits:
      return x.reshape(len(x), -1)[:, :self.logits]
    shift = 0 if y is None else y[:, None, None, None]
    strength = self.param('strength', nn.initializers.constant(0.3), ())
    return golden_process.toy(PROCESS)(x, time) + strength * shift


def formula(strength, num_classes=None, null_label=None):
  """A network of images 2 x 2 x 3 with its weights."""
  network = Network(Formula(), PROCESS, (2, 2, 3), num_classes=num_classes, null_label=null_label)
  return Trained(network, {'strength': jnp.float32(strength)})


def classifying(num_classes):
  return Trained(Network(Formula(num_classes), PROCESS, (2, 2, 3), num_classes=num_classes,
                         classifies=True), {})


def guided_network(trained, *guidance, solver=ancestral()):
  """labels -> the denoiser that a pipeline would make."""
  run = Run(None, trained, None, COSINE, descend(COSINE), solver)
  bound = tuple(value.bind(run, None) for value in guidance)
  params = {'model': trained.params, 'scales': {each.role: each.scales for each in bound}}
  params |= {each.role: each.trained.params for each in bound if each.trained}
  made = GuidedNetwork(trained.network, PROCESS, bound)
  return lambda labels: made(params, labels), made


def test_networks_are_guided_in_every_way_at_once():
  """Classifier-free, by a weaker model, clipped, by a classifier, all in an interval: the same as
  built by hand; and a null row is no label to choose."""
  between = tuple(COSINE.sigma[[20, 30]])
  model, weaker = formula(0.3, 3, NULL), formula(0.1, 3, NULL)
  make, made = guided_network(
      model, ClassifierFree(3.0, between), ByWeakerModel(weaker, 1.5, between),
      ByClassifier(classifying(3), 2.0, between, normalize=True))
  assert made.num_classes == 3

  def model_as(labels, trained=model):
    return denoiser(PROCESS, lambda x, time: trained.network.apply(trained.params, x, time, labels),
                    clip=False)

  denoise = autoguided(classifier_free(model_as, LABELS, NULL, COSINE, 3.0),
                       model_as(LABELS, weaker), COSINE, 1.5)
  denoise = thresholded(denoise, lambda x0: jnp.clip(x0, -1, 1), COSINE)
  gradient = normalized(classifier_gradient(
      lambda x, time: Formula(3).apply({}, x, time), LABELS, 1.0))
  x, t = points(25)
  assert_close(make(LABELS)(x, t), guided(denoise, gradient, COSINE, scale=2.0)(x, t))
  x, t = points(40)
  plain, _ = guided_network(model)
  assert_close(make(LABELS)(x, t), plain(LABELS)(x, t), rtol=1e-4)


def test_a_threshold_comes_after_all_guidance():
  make, _ = guided_network(formula(0.3), ByClassifier(classifying(3), 500.0),
                           DynamicThreshold(0.9))
  for t in (0, 25, 49):
    x0 = make(LABELS)(*points(t)).x0
    assert jnp.abs(x0).max() <= 1 and jnp.abs(x0).max() > 0.5
