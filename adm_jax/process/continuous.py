"""The process between the steps of its schedule.

Time u in [0, 1] runs from clean data to the last step: u = (t + 1) / S at step t. The log of the
signal-to-noise ratio is linear in u between neighboring steps. Before the first step, u < 1 / S, it
stays what it is there, but for u = 0, which is clean data.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.process.schedules import Schedule

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Level:
  """A noise level: z = alpha x_0 + sigma eps, alpha^2 + sigma^2 = 1; f32[B 1 1 1] each."""
  alpha: Array
  sigma: Array

  @property
  def snr(self) -> Array:
    """alpha^2 / sigma^2; infinite for clean data."""
    return (self.alpha / self.sigma) ** 2


def level(schedule: Schedule, u: Array) -> Level:
  """The noise level at times u f32[B] in [0, 1]."""
  table = np.log(schedule.alpha_bar) - np.log1p(-schedule.alpha_bar)
  log_snr = jnp.interp(_index(schedule, u), jnp.arange(schedule.num_steps),
                       jnp.asarray(table, jnp.float32))
  alpha, sigma = (jnp.sqrt(jax.nn.sigmoid(sign * log_snr)) for sign in (1, -1))
  clean = u <= 0
  return Level(*(value[:, None, None, None] for value in (jnp.where(clean, 1.0, alpha),
                                                          jnp.where(clean, 0.0, sigma))))


def at_step(schedule: Schedule, t: Array) -> Level:
  """The noise level at steps t i32[B]."""
  alpha_bar = schedule.alpha_bar
  return Level(*(jnp.asarray(np.sqrt(table), jnp.float32)[t][:, None, None, None]
                 for table in (alpha_bar, 1 - alpha_bar)))


def network_time(schedule: Schedule, u: Array) -> Array:
  """What the network is told at times u f32[B], f32[B]: between steps, what lies between."""
  t = jnp.interp(_index(schedule, u), jnp.arange(schedule.num_steps),
                 jnp.asarray(schedule.timesteps, jnp.float32))
  return t * (1000.0 / schedule.num_train_steps) if schedule.rescale_timesteps else t


def _index(schedule: Schedule, u: Array) -> Array:
  return u * schedule.num_steps - 1
