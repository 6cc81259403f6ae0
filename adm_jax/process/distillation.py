"""What a student of few large steps is taught: multistep consistency, and progressive distillation.

Heek, Hoogeboom & Salimans (2024, arXiv 2403.06807), algorithm 1; Salimans & Ho (2022). The way from
noise to data, u from 1 to 0, is cut into N segments. In each of them the student learns to jump to
the segment's end from anywhere, by one prediction of x_0 that carries z there in a straight line
(`ddim`); sampling is N such jumps.

A guess maps (z f32[B H W C], u f32[B]) to x_0 f32[B H W C].
"""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp

from adm_jax.process.continuous import Level, level
from adm_jax.process.likelihood import mean_over_pixels
from adm_jax.process.schedules import Schedule

Array = jax.Array
Guess = Callable[[Array, Array], Array]

# The norm of an error has no gradient at 0; this much smaller than any pixel's step of 2 / 255.
_SMOOTH = 1e-4
# What teachers are taken to err by in eps, where there is almost nothing but noise.
_ERROR_OF_EPS = 0.1


def ddim(x0: Array, z: Array, here: Level, there: Level) -> Array:
  """Carries z f32[B H W C] from one noise level to another along x_0."""
  return there.alpha * x0 + (there.sigma / here.sigma) * (z - here.alpha * x0)


def inverse_ddim(z_there: Array, z: Array, here: Level, there: Level) -> Array:
  """The x_0 f32[B H W C] along which `ddim` carries z to `z_there`."""
  ratio = there.sigma / here.sigma
  return (z_there - ratio * z) / (there.alpha - here.alpha * ratio)


def adjusted_ddim(x0: Array, z: Array, here: Level, there: Level, variance: Array) -> Array:
  """`ddim` whose noise makes up for the variance that a mean of many images lacks (aDDIM).

  Args:
    x0: the teacher's prediction.
    z: f32[B H W C].
    here: z's noise level.
    there: where to go.
    variance: f32[B 1 1 1], of a pixel of x_0 given z; 0 is `ddim`.
  """
  eps = (z - here.alpha * x0) / here.sigma
  lost = (there.alpha - here.alpha * there.sigma / here.sigma) ** 2 * variance
  power = jnp.square(eps).mean(axis=(1, 2, 3), keepdims=True)
  return there.alpha * x0 + jnp.sqrt(there.sigma ** 2 + lost / power) * eps


def variance_without_data(here: Level) -> Array:
  """0.1 / (2 + SNR), f32[B 1 1 1]: of x_0 given z, where no image is there to measure it by."""
  return 0.1 / (2 + here.snr)


def teacher_steps(progress: Array, first: int, last: int) -> Array:
  """How many steps the teacher takes from noise to data: geometric from `first` to `last`.

  `progress` f32[...] is the share of the annealing that is over, clipped to [0, 1].
  """
  progress = jnp.clip(progress, 0, 1)
  return jnp.exp(jnp.log(first) + progress * (jnp.log(last) - jnp.log(first)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Place:
  """Where an example lies: times f32[B] of z, of the teacher's step from there, of the end."""
  here: Array
  next: Array
  end: Array


def place(u: Array, num_segments: int, steps_in_segment: Array) -> Place:
  """The place of a point u f32[B] in [0, 1), drawn uniformly.

  Args:
    u: in which of the segments, and how far in it.
    num_segments: N.
    steps_in_segment: f32[], whole: of the teacher.
  """
  segment = jnp.floor(u * num_segments)
  n = 1 + jnp.floor((u * num_segments - segment) * steps_in_segment)
  # Rounding must not reach the next segment.
  return _place(segment, jnp.minimum(n, steps_in_segment), num_segments, steps_in_segment)


def two_steps(u: Array, num_segments: int) -> Place:
  """The start of the segment that u f32[B] in [0, 1) lies in, of which the teacher takes halves."""
  return _place(jnp.floor(u * num_segments), 2.0, num_segments, 2.0)


def _place(segment: Array, n: Array | float, num_segments: int,
           steps_in_segment: Array | float) -> Place:
  """`n` of the teacher's steps, of so many in a segment, before the segment's end."""
  end, steps = segment / num_segments, num_segments * steps_in_segment
  return Place(end + n / steps, jnp.where(n == 1, end, end + (n - 1) / steps), end)


def target(student: Guess, teacher: Guess, z: Array, at: Place, schedule: Schedule,
           variance: Array | float = 0.0) -> Array:
  """What the student should predict at z f32[B H W C]: the way of a teacher's step and its own.

  The teacher leads one step on, and the student, as it is, from there to the segment's end. Who
  always predicts the x_0 of the teacher's whole way to the end is taught what it predicts.

  Args:
    student: as it is now; no gradient passes.
    teacher: guided.
    z: at `at.here`.
    at: where.
    schedule: the process.
    variance: of x_0 given z, f32[B 1 1 1]: see `adjusted_ddim`.

  Returns:
    f32[B H W C].
  """
  here, there, end = (level(schedule, u) for u in (at.here, at.next, at.end))
  z_next = adjusted_ddim(teacher(z, at.here), z, here, there, variance)
  arrived = (at.next <= at.end)[:, None, None, None]
  # What has arrived has no way to go; a time of 0 has no network, so the student is asked at 1.
  u = jnp.where(at.next <= at.end, at.here, at.next)
  there = jax.tree.map(lambda a, b: jnp.where(arrived, a, b), here, there)
  onwards = ddim(student(z_next, u), z_next, there, end)
  z_end = jnp.where(arrived, z_next, onwards)
  return jax.lax.stop_gradient(inverse_ddim(z_end, z, here, end))


def guided_loss(x0: Array, wanted: Array, here: Level) -> Array:
  """What a student's x_0 misses of its teacher's, f32[B].

  It is the mean squared error of v, SNR + 1 times that of x_0, but for the noisy end: a teacher
  that predicts eps errs by some delta there, and so by delta sigma / alpha in x_0, which is clipped
  noise in the end. Errors weigh as far as they are of the image, alpha^2 / (alpha^2 + delta^2).
  Where the teacher's x_0 was clipped, a student's beyond it is right: it is clipped as well.

  Args:
    x0: the student's, not clipped.
    wanted: the teacher's, clipped to [-1, 1].
    here: the noise level.
  """
  right = (jnp.abs(wanted) >= 1) & (x0 * wanted >= 1)
  error = mean_over_pixels(jnp.where(right, 0.0, jnp.square(x0 - wanted)))
  trust = here.alpha ** 2 / (here.alpha ** 2 + _ERROR_OF_EPS ** 2)
  return ((here.snr + 1) * trust).reshape(-1) * error


def consistency_loss(x0: Array, wanted: Array, here: Level, power: float = 1.0) -> Array:
  """(SNR + 1)^power |x_0 - wanted| / sqrt(d), a norm over d numbers, smooth at 0: f32[B].

  A power of 1/2 makes it the error of v: all noise levels pull alike. The paper's 1 pulls by 1 /
  sigma, most where there is hardly any noise.
  """
  distance = jnp.sqrt(mean_over_pixels(jnp.square(wanted - x0)) + _SMOOTH ** 2) - _SMOOTH
  return (here.snr + 1).reshape(-1) ** power * distance


def truncated_loss(x0: Array, wanted: Array, here: Level) -> Array:
  """max(SNR, 1) times the mean squared error, f32[B]: progressive distillation's."""
  return jnp.maximum(here.snr, 1).reshape(-1) * mean_over_pixels(jnp.square(wanted - x0))
