"""What a student is taught, where the teacher is exact: a mixture of Gaussians in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.process import continuous, distillation, schedules
from adm_jax.process.continuous import Level

SCHEDULE = schedules.cosine(num_steps=1000)
MEANS, DEVIATION = np.array([-0.6, 0.5], np.float32).reshape(1, 1, 1, 1, 2), 0.1
KEY = jax.random.key(0)
SHAPE = (4, 2, 2, 1)


def exact(z, u):
  """E[x_0 | z] of pixels that are N(m, 0.1^2), m = -0.6 or 0.5 with equal chances."""
  here = continuous.level(SCHEDULE, u)
  variance = here.alpha ** 2 * DEVIATION ** 2 + here.sigma ** 2
  away = z[..., None] - here.alpha[..., None] * MEANS
  weights = jax.nn.softmax(-away ** 2 / (2 * variance[..., None]), axis=-1)
  guesses = MEANS + here.alpha[..., None] * DEVIATION ** 2 / variance[..., None] * away
  return (weights * guesses).sum(-1)


def times(*values):
  return jnp.broadcast_to(jnp.asarray(values, jnp.float32), SHAPE[:1])


def noised(u, key=KEY):
  here = continuous.level(SCHEDULE, u)
  return here.alpha * 0.5 + here.sigma * jax.random.normal(key, SHAPE)


def perfect(num_segments, steps_in_segment):
  """The student who predicts the x_0 of the exact teacher's steps to the end of the segment."""
  steps = num_segments * steps_in_segment

  def student(z, u):
    place = np.round(np.asarray(u) * steps).astype(int)
    end = (place - 1) // steps_in_segment * steps_in_segment
    assert len(set(place)) == 1, 'the images of a batch are at one place here'
    now, current = z, place
    for step in range(place[0], end[0], -1):
      here, there = (continuous.level(SCHEDULE, times(i / steps)) for i in (step, step - 1))
      now = distillation.ddim(exact(now, times(step / steps)), now, here, there)
    return distillation.inverse_ddim(now, z, *(continuous.level(SCHEDULE, times(i[0] / steps))
                                               for i in (current, end)))
  return student


@pytest.mark.parametrize('num_segments, steps_in_segment', [(1, 8), (2, 8), (4, 5), (8, 3)])
def test_a_perfect_student_is_taught_its_own_predictions(num_segments, steps_in_segment):
  student = perfect(num_segments, steps_in_segment)
  for u in np.linspace(0, 0.999, 9):
    at = distillation.place(times(u), num_segments, jnp.float32(steps_in_segment))
    z = noised(at.here)
    np.testing.assert_allclose(
        distillation.target(student, exact, z, at, SCHEDULE), student(z, at.here), atol=1e-5)


def test_with_as_many_segments_as_the_teacher_has_steps_its_predictions_are_the_target():
  for u in (0.001, 0.3, 0.999):
    at = distillation.place(times(u), 16, jnp.float32(1))
    z = noised(at.here)
    wanted = distillation.target(lambda z, u: z * np.nan, exact, z, at, SCHEDULE)
    np.testing.assert_allclose(wanted, exact(z, at.here), atol=1e-5)
    here = continuous.level(SCHEDULE, at.here)
    loss = distillation.consistency_loss(exact(z, at.here), wanted, here)
    np.testing.assert_allclose(loss / (here.snr + 1).reshape(-1), 0, atol=1e-5)


@pytest.mark.parametrize('here, there', [(0.999, 0.75), (1.0, 0.0), (0.5, 0.25), (0.2, 0.19)])
def test_the_inverse_inverts_a_step(here, there):
  levels = [continuous.level(SCHEDULE, times(u)) for u in (here, there)]
  x0, z = exact(noised(times(here)), times(here)), noised(times(here))
  z_there = distillation.ddim(x0, z, *levels)
  np.testing.assert_allclose(distillation.inverse_ddim(z_there, z, *levels), x0, atol=1e-5)


def test_steps_of_a_segment_end_where_it_ends_and_begin_in_it():
  u = jnp.asarray(np.random.default_rng(0).uniform(size=4000), jnp.float32)
  for num_segments, steps in ((1, 64), (4, 16), (8, 7), (3, 5)):
    at = jax.tree.map(np.asarray, distillation.place(u, num_segments, jnp.float32(steps)))
    segment = np.floor(np.asarray(u) * num_segments)
    np.testing.assert_allclose(at.end, segment / num_segments, atol=1e-6)
    assert (at.here > at.end).all() and (at.here <= (segment + 1) / num_segments + 1e-6).all()
    np.testing.assert_allclose(at.here - at.next, 1 / (num_segments * steps), atol=1e-6)
    counts = np.unique(np.round((at.here - at.end) * num_segments * steps), return_counts=True)
    assert counts[0].tolist() == list(range(1, steps + 1))  # every step is taught, as often
    assert counts[1].min() > 0.5 * len(u) / steps


def test_halves_of_a_step_lie_at_its_start():
  at = distillation.two_steps(times(0.3), 4)
  np.testing.assert_allclose([at.here[0], at.next[0], at.end[0]], [0.5, 0.375, 0.25])


def test_an_adjusted_step_has_the_power_of_a_noised_image():
  """x_0 is a mean, with less variance than images have: aDDIM's noise makes up for it (eq. 4)."""
  u, s = times(0.9), times(0.5)
  here, there = continuous.level(SCHEDULE, u), continuous.level(SCHEDULE, s)
  shape = (4, 64, 64, 1)
  x0 = 0.3 * jnp.ones(shape)
  variance = jnp.full((4, 1, 1, 1), 0.2)
  z = here.alpha * x0 + here.sigma * jax.random.normal(KEY, shape)
  moved = distillation.adjusted_ddim(x0, z, here, there, variance)
  wanted = there.sigma ** 2 + (there.alpha - here.alpha * there.sigma / here.sigma) ** 2 * 0.2
  np.testing.assert_allclose(jnp.var(moved, axis=(1, 2, 3)), wanted.reshape(-1), rtol=0.05)
  np.testing.assert_allclose(distillation.adjusted_ddim(x0, z, here, there, 0 * variance),
                             distillation.ddim(x0, z, here, there), atol=1e-6)


def test_the_teacher_takes_more_steps_as_training_goes_on():
  progress = jnp.asarray([-1, 0, 0.5, 1, 2.0])
  np.testing.assert_allclose(distillation.teacher_steps(progress, 64, 1280),
                             [64, 64, np.sqrt(64 * 1280), 1280, 1280], rtol=1e-5)


def test_levels_are_those_of_the_schedule_at_its_steps_and_between_them_even_in_log_snr():
  t = np.arange(1000)
  at = continuous.level(SCHEDULE, jnp.asarray((t + 1) / 1000, jnp.float32))
  np.testing.assert_allclose(at.alpha.reshape(-1), np.sqrt(SCHEDULE.alpha_bar), rtol=2e-3)
  np.testing.assert_allclose(at.sigma.reshape(-1), np.sqrt(1 - SCHEDULE.alpha_bar), rtol=2e-3)
  low, between, high = (np.log(continuous.level(SCHEDULE, times(u)).snr.reshape(-1)[0])
                        for u in (0.5, 0.5005, 0.501))
  np.testing.assert_allclose(between, (low + high) / 2, rtol=1e-3)
  clean = continuous.level(SCHEDULE, times(0.0))
  assert (clean.alpha == 1).all() and (clean.sigma == 0).all()
  first = continuous.level(SCHEDULE, times(0.0001))
  np.testing.assert_allclose(first.alpha[0], np.sqrt(SCHEDULE.alpha_bar[0]), rtol=1e-5)


def test_the_network_is_told_the_time_between_steps():
  slow = schedules.cosine(num_steps=4000, rescale_timesteps=True)
  np.testing.assert_allclose(continuous.network_time(SCHEDULE, times(0.5)), 499, rtol=1e-5)
  np.testing.assert_allclose(continuous.network_time(SCHEDULE, times(0.5003)), 499.3, rtol=1e-5)
  np.testing.assert_allclose(continuous.network_time(slow, times(0.5)), 499.75, rtol=1e-5)
  assert (continuous.network_time(SCHEDULE, times(0.0002)) == 0).all()


def test_losses_weigh_errors_by_the_signal():
  here = Level(jnp.full((1, 1, 1, 1), 0.8), jnp.full((1, 1, 1, 1), 0.6))
  x0, wanted = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 0.5)
  snr = (0.8 / 0.6) ** 2
  np.testing.assert_allclose(distillation.consistency_loss(x0, wanted, here), (snr + 1) * 0.5,
                             rtol=1e-3)
  np.testing.assert_allclose(distillation.consistency_loss(x0, wanted, here, 0.5),
                             np.sqrt(snr + 1) * 0.5, rtol=1e-3)
  np.testing.assert_allclose(distillation.truncated_loss(x0, wanted, here), snr * 0.25, rtol=1e-6)
  gradient = jax.grad(lambda x: distillation.consistency_loss(x, wanted, here).sum())(wanted)
  assert np.isfinite(gradient).all()


def _guided_loss(x0, wanted, alpha):
  here = Level(jnp.full((1, 1, 1, 1), alpha), jnp.full((1, 1, 1, 1), np.sqrt(1 - alpha ** 2)))
  return distillation.guided_loss(jnp.full((1, 2, 2, 1), x0), jnp.full((1, 2, 2, 1), wanted), here)


def test_stage_1_weighs_errors_of_v_but_where_the_teacher_knows_nothing():
  error = 0.3 ** 2
  for alpha in (0.999, 0.6):
    np.testing.assert_allclose(_guided_loss(0.2, 0.5, alpha), error / (1 - alpha ** 2), rtol=0.03)
  # Its error of eps is all of what it says there: the weights of its x_0 have a finite sum.
  np.testing.assert_allclose(_guided_loss(0.2, 0.5, 0.01), error / 101, rtol=1e-3)
  assert _guided_loss(0.2, 0.5, 5e-5) < 1e-6


def test_a_prediction_beyond_a_clipped_one_is_right():
  assert _guided_loss(1.7, 1.0, 0.6) == _guided_loss(-1.7, -1.0, 0.6) == 0
  assert _guided_loss(-1.7, 1.0, 0.6) > 0 and _guided_loss(0.9, 1.0, 0.6) > 0
  assert _guided_loss(1.7, 0.99, 0.6) > 0


def test_the_level_at_a_step_is_the_schedules():
  at = continuous.at_step(SCHEDULE, jnp.asarray([0, 499, 999]))
  np.testing.assert_allclose(at.alpha.reshape(-1) ** 2, SCHEDULE.alpha_bar[[0, 499, 999]],
                             rtol=1e-5)
  np.testing.assert_allclose(at.alpha ** 2 + at.sigma ** 2, 1, rtol=1e-6)
