"""The Gaussian diffusion process: q, which adds noise, and p, which the network learns.

A network maps (x_t, t) to C channels (a guess) and, where the variance is learned, C more. What the
guess means and where the variance comes from are two small choices, `mean` and `variance`, held by
`Diffusion`; `predict` turns the network's output into a `Prediction`, the one type that guidance
and solvers see.

Throughout: x is f32[B H W C] in [-1, 1] when clean; t is i32, [B] or a scalar, an index of the
(respaced) schedule.
"""

import dataclasses
from typing import Callable, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.process.schedules import Schedule, respace

Array = jax.Array
Network = Callable[[Array, Array], Array]  # (x_t [B H W C], network time [B]) -> [B H W C or 2C]


def lookup(table: np.ndarray, t: Array, x: Array) -> Array:
  """table[t] as float32, [B 1 1 1] (or [1 1 1 1] for a scalar t), to multiply x [B H W C]."""
  values = jnp.asarray(table, jnp.float32)[t]
  return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


# ---------------------------------------------------------------------------------------------
# q: the forward process.


def q_sample(schedule: Schedule, x0: Array, t: Array, eps: Array) -> Array:
  """Draws x_t given x_0 in one jump (DDPM eq. 4); eps is standard normal, [B H W C]."""
  return (lookup(np.sqrt(schedule.alpha_bar), t, x0) * x0
          + lookup(np.sqrt(1 - schedule.alpha_bar), t, x0) * eps)


class Gaussian(NamedTuple):
  """A diagonal Gaussian; `log_variance` broadcasts against `mean` [B H W C]."""
  mean: Array
  log_variance: Array


def q_marginal(schedule: Schedule, x0: Array, t: Array) -> Gaussian:
  """q(x_t | x_0)."""
  return Gaussian(lookup(np.sqrt(schedule.alpha_bar), t, x0) * x0,
                  lookup(np.log(1 - schedule.alpha_bar), t, x0))


def q_posterior(schedule: Schedule, x0: Array, x: Array, t: Array) -> Gaussian:
  """q(x_{t-1} | x_t, x_0), DDPM eq. 6 and 7, with the log-variance clipped at t = 0."""
  mean = (lookup(schedule.posterior_x0_weight, t, x) * x0
          + lookup(schedule.posterior_xt_weight, t, x) * x)
  return Gaussian(mean, lookup(schedule.posterior_log_variance, t, x))


def x0_from_eps(schedule: Schedule, eps: Array, x: Array, t: Array) -> Array:
  """Solves x_t = sqrt(a) x_0 + sqrt(1 - a) eps for x_0."""
  return (lookup(np.sqrt(1 / schedule.alpha_bar), t, x) * x
          - lookup(np.sqrt(1 / schedule.alpha_bar - 1), t, x) * eps)


def eps_from_x0(schedule: Schedule, x0: Array, x: Array, t: Array) -> Array:
  """Solves x_t = sqrt(a) x_0 + sqrt(1 - a) eps for eps."""
  return ((lookup(np.sqrt(1 / schedule.alpha_bar), t, x) * x - x0)
          / lookup(np.sqrt(1 / schedule.alpha_bar - 1), t, x))


# ---------------------------------------------------------------------------------------------
# What the network's first C channels mean.


class Mean(Protocol):
  """What the network's first C channels stand for."""

  def x0_and_mean(self, schedule: Schedule, output: Array, x: Array, t: Array,
                  process: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Reads x_0, passed through `process` (clipping and the like), and E p(x_{t-1} | x_t)."""

  def target(self, schedule: Schedule, x0: Array, x: Array, t: Array, eps: Array) -> Array:
    """What the output should have been, for the squared error."""


@dataclasses.dataclass(frozen=True)
class Eps:
  """The noise in x_t: ADM's choice."""

  def x0_and_mean(self, schedule, output, x, t, process):
    x0 = process(x0_from_eps(schedule, output, x, t))
    return x0, q_posterior(schedule, x0, x, t).mean

  def target(self, schedule, x0, x, t, eps):
    del schedule, x0, x, t
    return eps


@dataclasses.dataclass(frozen=True)
class X0:
  """The clean image."""

  def x0_and_mean(self, schedule, output, x, t, process):
    x0 = process(output)
    return x0, q_posterior(schedule, x0, x, t).mean

  def target(self, schedule, x0, x, t, eps):
    del schedule, x, t, eps
    return x0


@dataclasses.dataclass(frozen=True)
class Previous:
  """x_{t-1}. The mean is the output itself, so that clipping does not touch it."""

  def x0_and_mean(self, schedule, output, x, t, process):
    x0 = (output - lookup(schedule.posterior_xt_weight, t, x) * x)
    return process(x0 / lookup(schedule.posterior_x0_weight, t, x)), output

  def target(self, schedule, x0, x, t, eps):
    del eps
    return q_posterior(schedule, x0, x, t).mean


@dataclasses.dataclass(frozen=True)
class V:
  """v = sqrt(a) eps - sqrt(1 - a) x_0, good at all noise levels (Salimans & Ho 2022)."""

  def x0_and_mean(self, schedule, output, x, t, process):
    x0 = process(lookup(np.sqrt(schedule.alpha_bar), t, x) * x
                 - lookup(np.sqrt(1 - schedule.alpha_bar), t, x) * output)
    return x0, q_posterior(schedule, x0, x, t).mean

  def target(self, schedule, x0, x, t, eps):
    del x
    return (lookup(np.sqrt(schedule.alpha_bar), t, eps) * eps
            - lookup(np.sqrt(1 - schedule.alpha_bar), t, eps) * x0)

  def v(self, output: Array, x: Array, alpha: Array, sigma: Array) -> Array:
    """Reads v at the noise level x = alpha x_0 + sigma eps, [B 1 1 1] each."""
    del x, alpha, sigma
    return output


@dataclasses.dataclass(frozen=True)
class TemperedEps:
  """The noise in x_t, of which v is read by v = (output - sigma x_t) / sqrt(alpha^2 + floor^2).

  With a floor of 0 that is `Eps`: a network that predicted eps goes on from where it was. But at
  the noisy end, where `Eps` divides by an alpha of all but 0, an error of the output stays a
  bounded error of x_0, as in `V`.

  Attributes:
    floor: the alpha below which there is hardly any image.
  """
  floor: float = 0.1

  def x0_and_mean(self, schedule, output, x, t, process):
    alpha, sigma = (lookup(np.sqrt(table), t, x)
                    for table in (schedule.alpha_bar, 1 - schedule.alpha_bar))
    x0 = process(alpha * x - sigma * self.v(output, x, alpha, sigma))
    return x0, q_posterior(schedule, x0, x, t).mean

  def target(self, schedule, x0, x, t, eps):
    alpha, sigma = (lookup(np.sqrt(table), t, x)
                    for table in (schedule.alpha_bar, 1 - schedule.alpha_bar))
    return (alpha * eps - sigma * x0) * jnp.sqrt(alpha ** 2 + self.floor ** 2) + sigma * x

  def v(self, output: Array, x: Array, alpha: Array, sigma: Array) -> Array:
    """Reads v at the noise level x = alpha x_0 + sigma eps, [B 1 1 1] each."""
    return (output - sigma * x) / jnp.sqrt(alpha ** 2 + self.floor ** 2)


# ---------------------------------------------------------------------------------------------
# Where the variance of p(x_{t-1} | x_t) comes from.


class Variance(Protocol):
  """Gives Var p(x_{t-1} | x_t) and its log; `learned` says whether the network has C more channels.
  """
  learned: bool

  def variance_and_log(self, schedule: Schedule, extra: Array | None, x: Array,
                       t: Array) -> tuple[Array, Array]:
    """[B H W C] both, from the extra channels [B H W C] or, where fixed, from the schedule."""


@dataclasses.dataclass(frozen=True)
class FixedSmall:
  """That of q(x_{t-1} | x_t, x_0): optimal for one-point data (DDPM section 3.2).

  At t = 0 it is 0, which a log cannot say: there the log is that at t = 1, and guidance, which
  multiplies by the variance, moves nothing.
  """
  learned = False

  def variance_and_log(self, schedule, extra, x, t):
    del extra
    return (jnp.broadcast_to(lookup(schedule.posterior_variance, t, x), x.shape),
            jnp.broadcast_to(lookup(schedule.posterior_log_variance, t, x), x.shape))


@dataclasses.dataclass(frozen=True)
class FixedLarge:
  """beta_t: optimal for standard normal data (DDPM section 3.2)."""
  learned = False

  def variance_and_log(self, schedule, extra, x, t):
    del extra
    return (jnp.broadcast_to(lookup(schedule.large_variance, t, x), x.shape),
            jnp.broadcast_to(lookup(np.log(schedule.large_variance), t, x), x.shape))


@dataclasses.dataclass(frozen=True)
class Learned:
  """The extra channels are the log-variance."""
  learned = True

  def variance_and_log(self, schedule, extra, x, t):
    del schedule, x, t
    return jnp.exp(extra), extra


@dataclasses.dataclass(frozen=True)
class LearnedRange:
  """Interpolates log beta_t and the posterior's (Nichol & Dhariwal, eq. 15): ADM's choice.

  The extra channels v in about [-1, 1] give the fraction (v + 1) / 2, which is not clamped; beta is
  that of the respaced process.
  """
  learned = True

  def variance_and_log(self, schedule, extra, x, t):
    fraction = (extra + 1) / 2
    log_variance = (fraction * lookup(np.log(schedule.betas), t, x)
                    + (1 - fraction) * lookup(schedule.posterior_log_variance, t, x))
    return jnp.exp(log_variance), log_variance


# ---------------------------------------------------------------------------------------------
# p: the reverse process.


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Diffusion:
  """A schedule with the meaning of the network's output: all of the process but the network.

  Attributes:
    schedule: how noisy x_t is at each t.
    mean: what the network predicts: `Eps`, `X0`, `V` or the previous x.
    variance: of p(x_{t-1} | x_t): `LearnedRange`, `Learned`, or fixed.
  """
  schedule: Schedule
  mean: Mean = Eps()
  variance: Variance = LearnedRange()

  def output_channels(self, channels: int) -> int:
    """The number of channels that a network for images of `channels` must have."""
    return 2 * channels if self.variance.learned else channels


def respaced(diffusion: Diffusion, spec: str | int | tuple[int, ...]) -> Diffusion:
  """The same process in fewer steps, see `schedules.space_timesteps`."""
  return dataclasses.replace(diffusion, schedule=respace(diffusion.schedule, spec))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
  """One belief about where x_t came from, in each currency that a solver may ask for.

  All arrays are f32[B H W C].
  """
  x0: Array            # the clean image
  eps: Array           # the noise, consistent with x0
  mean: Array          # E p(x_{t-1} | x_t)
  variance: Array      # Var p(x_{t-1} | x_t)
  log_variance: Array  # its log, but finite where a fixed small variance is 0: at t = 0

  def replace(self, **changes: Array) -> 'Prediction':
    """Returns the prediction with other arrays in place of some."""
    return dataclasses.replace(self, **changes)


Denoiser = Callable[[Array, Array], Prediction]  # (x_t [B H W C], t) -> Prediction


def predict(diffusion: Diffusion, output: Array, x: Array, t: Array, *, clip: bool = True,
            transform: Callable[[Array], Array] | None = None) -> Prediction:
  """Reads a network's output.

  Args:
    diffusion: what the channels mean.
    output: [B H W C], or [B H W 2C] where the variance is learned.
    x: x_t.
    t: index of the schedule.
    clip: whether x_0 is clipped to [-1, 1]; eps and mean follow the clipped x_0.
    transform: your own map of x_0, applied before clipping (the reference's `denoised_fn`).
  """
  wanted = diffusion.output_channels(x.shape[-1])
  if output.shape[-1] != wanted:
    raise UsageError(f'the network returns {output.shape[-1]} channels for images of {x.shape[-1]},'
                     f' but {diffusion.variance} needs {wanted}')
  output = output.astype(jnp.float32)
  guess, extra = output, None
  if diffusion.variance.learned:
    guess, extra = jnp.split(output, 2, axis=-1)

  def process(x0):
    if transform is not None:
      x0 = transform(x0)
    return jnp.clip(x0, -1, 1) if clip else x0

  schedule = diffusion.schedule
  x0, mean = diffusion.mean.x0_and_mean(schedule, guess, x, t, process)
  variance, log_variance = diffusion.variance.variance_and_log(schedule, extra, x, t)
  return Prediction(x0=x0, eps=eps_from_x0(schedule, x0, x, t), mean=mean, variance=variance,
                    log_variance=log_variance)


def denoiser(diffusion: Diffusion, network: Network, *, clip: bool = True,
             transform: Callable[[Array], Array] | None = None) -> Denoiser:
  """Makes (x_t, t) -> Prediction out of a network; t may be a scalar, for the whole batch."""
  def denoise(x, t):
    time = diffusion.schedule.network_time(jnp.broadcast_to(t, x.shape[:1]))
    return predict(diffusion, network(x, time), x, t, clip=clip, transform=transform)
  return denoise


def dynamic_threshold(share: float = 0.995) -> Callable[[Array], Array]:
  """Brings x_0 into [-1, 1] image by image: clips to [-s, s], divides by s (Imagen, section 2.3).

  s is the magnitude that `share` of the image's values do not exceed, at least 1: then it is a
  plain clip. For `transform` above or `guidance.thresholded`.
  """
  if not 0 < share <= 1:
    raise UsageError(f'dynamic_threshold({share}): give the share of values below it, in (0, 1]')

  def threshold(x0):
    s = jnp.quantile(jnp.abs(x0), share, axis=(1, 2, 3), keepdims=True)  # [B 1 1 1]
    s = jnp.maximum(s, 1)
    return jnp.clip(x0, -s, s) / s
  return threshold
