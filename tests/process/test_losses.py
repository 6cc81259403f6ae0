"""Training objectives: parity, what each term teaches, and how they scale with each other."""

import golden_files
import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.process import losses, schedules
from adm_jax.process.diffusion import (
  X0,
  Diffusion,
  Eps,
  FixedLarge,
  FixedSmall,
  Learned,
  LearnedRange,
  Previous,
  TemperedEps,
  V,
  denoiser,
  q_sample,
)

MEANS = [Eps(), X0(), V(), Previous()]
SCHEDULE = schedules.cosine(num_steps=40)


def batch(num=4, num_steps=40):
  """(x_0, t, eps): 8-bit images, with the first and the last t among them."""
  keys = jax.random.split(jax.random.key(0), 2)
  x0 = jax.random.randint(keys[0], (num, 2, 2, 3), 0, 256) / 127.5 - 1
  t = jnp.linspace(0, num_steps - 1, num).astype(jnp.int32)
  return x0, t, jax.random.normal(keys[1], x0.shape)


@golden_files.parametrize('diffusion_')
def test_losses_are_the_reference_s(golden):
  """Every term that the reference returns, image by image."""
  meta, arrays = golden_files.load(golden)
  diffusion, loss = golden_process.process(meta), golden_process.objective(meta)
  network = golden_process.toy(diffusion)
  x0, t, noise = (jnp.asarray(arrays[name]) for name in ('x0', 't', 'noise'))
  got = jax.jit(lambda x0, t, noise: loss(diffusion, network, x0, t, noise))(x0, t, noise)
  want = {name.removeprefix('loss_'): array for name, array in arrays.items()
          if name.startswith('loss_')}
  assert got.keys() == want.keys()

  prediction = denoiser(diffusion, network, clip=False)(q_sample(
      diffusion.schedule, x0, t, noise), t)
  # How much of the bound is in each term.
  num_steps = diffusion.schedule.num_steps
  weight = {losses.mse: 1, losses.kl: 1, losses.rescaled_mse: num_steps / 1000,
            losses.rescaled_kl: num_steps}[loss]
  rounding = weight * golden_process.bound_rounding(prediction, x0, t)
  for name in want:
    squared_error = name == 'mse' or 'vb' not in want and 'mse' in want
    allowed = golden_process.TIGHT * np.abs(want[name]) + (0 if squared_error else rounding)
    assert (np.abs(got[name] - want[name]) <= allowed).all(), name


@pytest.mark.parametrize('loss', [losses.mse, losses.rescaled_mse])
@pytest.mark.parametrize('variance', [FixedSmall(), FixedLarge(), Learned(), LearnedRange()])
@pytest.mark.parametrize('mean', MEANS)
def test_a_perfect_guess_has_no_squared_error(mean, variance, loss):
  """Whatever the channels mean, their target is a minimum of the squared error."""
  diffusion = Diffusion(SCHEDULE, mean, variance)
  x0, t, eps = batch()
  target = mean.target(SCHEDULE, x0, q_sample(SCHEDULE, x0, t, eps), t, eps)
  output = jnp.concatenate([target, 0 * target], -1) if variance.learned else target
  terms = loss(diffusion, lambda x, time: output, x0, t, eps)
  np.testing.assert_array_equal(terms['mse'], 0)
  assert ('vb' in terms) == variance.learned


@pytest.mark.parametrize('mean, error_of_v', [
    (V(), lambda alpha, sigma: 1.0), (X0(), lambda alpha, sigma: 1 / sigma),
    (Eps(), lambda alpha, sigma: 1 / alpha),
    (TemperedEps(0.3), lambda alpha, sigma: 1 / np.hypot(alpha, 0.3))])
def test_the_error_of_v_is_that_of_what_is_predicted_times_a_number_of_each_t(mean, error_of_v):
  """The bound's term stays as it is."""
  diffusion = Diffusion(SCHEDULE, mean, LearnedRange())
  x0, t, eps = batch()
  output = 0.3 * jax.random.normal(jax.random.key(1), (*x0.shape[:-1], 6))
  of_v, of_target = (loss(diffusion, lambda x, time: output, x0, t, eps)
                     for loss in (losses.v_mse, losses.mse))
  alpha_bar = SCHEDULE.alpha_bar[t]
  weight = error_of_v(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)) ** 2
  np.testing.assert_allclose(of_v['mse'], weight * of_target['mse'], rtol=1e-3)
  np.testing.assert_allclose(of_v['loss'], of_v['mse'] + of_target['vb'], rtol=1e-6)


@pytest.mark.parametrize('variance', [Learned(), LearnedRange()])
@pytest.mark.parametrize('mean', MEANS)
def test_the_hybrid_s_bound_teaches_the_variance_alone(mean, variance):
  """Its gradient is 0 in the mean's channels and not in the variance's, for every t."""
  diffusion = Diffusion(SCHEDULE, mean, variance)
  x0, t, eps = batch()

  def term(name):
    def value(output):
      return losses.mse(diffusion, lambda x, time: output, x0, t, eps)[name].sum()
    output = 0.3 * jax.random.normal(jax.random.key(1), (*x0.shape[:-1], 6))
    return jnp.split(jax.grad(value)(output), 2, axis=-1)

  in_mean, in_variance = term('vb')
  np.testing.assert_array_equal(in_mean, 0)
  assert (jnp.abs(in_variance).max(axis=(1, 2, 3)) > 0).all()
  in_mean, in_variance = term('mse')
  np.testing.assert_array_equal(in_variance, 0)
  assert (jnp.abs(in_mean).max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize('mean', MEANS)
def test_the_bound_teaches_the_mean_also_where_x0_leaves_the_range(mean):
  """x_0 is not clipped in a loss, or its gradient would stop there."""
  diffusion = Diffusion(SCHEDULE, mean, LearnedRange())
  x0, t, eps = batch()
  output = 10 * jnp.ones((*x0.shape[:-1], 6))

  def value(guess):
    return losses.kl(diffusion, lambda x, time: output.at[..., :3].set(guess), x0, t,
                     eps)['loss'][1:].sum()

  assert (jnp.abs(jax.grad(value)(output[..., :3])[1:]) > 0).all()


@pytest.mark.parametrize('num_steps', [40, 1000])
def test_rescaled_objectives_estimate_the_whole_bound(num_steps):
  """rescaled_kl is S x kl; rescaled_mse weighs the bound's term by S / 1000, nothing at 1,000."""
  diffusion = Diffusion(schedules.cosine(num_steps=num_steps))
  network = golden_process.toy(diffusion)
  arguments = (diffusion, network, *batch(num_steps=num_steps))
  kl, rescaled_kl = losses.kl(*arguments), losses.rescaled_kl(*arguments)
  np.testing.assert_allclose(rescaled_kl['loss'], num_steps * kl['loss'], rtol=1e-6)
  mse, rescaled_mse = losses.mse(*arguments), losses.rescaled_mse(*arguments)
  np.testing.assert_allclose(mse['vb'], kl['loss'], rtol=1e-6)
  np.testing.assert_allclose(rescaled_mse['vb'], num_steps / 1000 * mse['vb'], rtol=1e-6)
  np.testing.assert_array_equal(rescaled_mse['mse'], mse['mse'])
  for terms in (mse, rescaled_mse):
    np.testing.assert_allclose(terms['loss'], terms['mse'] + terms['vb'], rtol=1e-6)


def test_an_image_s_loss_is_its_own():
  """No term mixes the images of a batch."""
  diffusion = Diffusion(SCHEDULE)
  network = golden_process.toy(diffusion)
  x0, t, eps = batch()
  together = losses.mse(diffusion, network, x0, t, eps)
  for i in range(4):
    alone = losses.mse(diffusion, network, x0[i:i + 1], t[i:i + 1], eps[i:i + 1])
    for name, value in alone.items():
      np.testing.assert_allclose(value[0], together[name][i], rtol=1e-5)


@pytest.mark.parametrize('loss', [losses.mse, losses.rescaled_mse, losses.v_mse, losses.kl,
                                  losses.rescaled_kl])
@pytest.mark.parametrize('num_steps', [1, 2])
def test_the_shortest_processes_can_be_trained(num_steps, loss):
  """Finite losses and gradients at t = 0 and t = S - 1, also where they are the same."""
  diffusion = Diffusion(schedules.cosine(num_steps=num_steps))
  x0, t, eps = batch(2, num_steps)
  value, gradient = jax.value_and_grad(lambda output: loss(
      diffusion, lambda x, time: output, x0, t, eps)['loss'].sum())(jnp.zeros((2, 2, 2, 6)))
  assert np.isfinite(value) and np.isfinite(gradient).all()
