"""One step of sampling each.

Like an optax transformation, a solver is a pair of pure functions. `step` sees the model only as a
denoiser and its place in the process only as a `Step`, so that a new solver is one function here;
multistep methods keep earlier predictions in `memory`.

The denoiser is asked at steps that the network was trained on, never between them: where a method
wants another noise level, such as halfway through a step, it takes the nearest, as EDM does with
ADM's networks (Karras et al. 2022, appendix C.3.4), and computes with that level's own sigma. So
the formulas here are those of uneven steps, and rounding costs no order of convergence.

The methods beyond the reference's two integrate the probability flow in EDM's coordinates,
x / sqrt(alpha_bar), where a prediction x_0 that does not change over a step carries x straight:

    x' = ratio x + (1 - ratio) x_0,    ratio = sigma' / sigma = exp(-h)

h is the step in lambda = -log sigma. Learned variances do not enter. Guidance does by way of x_0
and eps, as in DDIM.
"""

import functools
from typing import Any, Callable, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.process.diffusion import Denoiser, Prediction
from adm_jax.process.schedules import Schedule

Array = jax.Array


@flax.struct.dataclass
class Step:
  """Where a step goes from and to; as the `xs` of the scan, with a leading axis of steps.

  Sigmas are EDM's noise levels sqrt((1 - alpha_bar) / alpha_bar), 0 for clean data, rounded from
  float64 where alpha_bar in float32 has lost the digits of 1 - alpha_bar.
  """
  index: Array           # i32: position in the run from 0, names the step's noise
  left: Array            # i32: steps that follow to clean data; many if it does not end there
  t: Array               # i32: index of the schedule, where the denoiser is asked
  alpha_bar: Array       # f32: there
  alpha_bar_next: Array  # f32: where the step ends
  sigma: Array           # f32: at t
  sigma_next: Array      # f32: where the step ends
  sigma_start: Array     # f32: where x lies: sigma, but below it with churn (`churned`)
  t_next: Array          # i32: where the step ends; means nothing at clean data
  t_middle: Array        # i32: nearest to halfway in log sigma, t_next if nothing lies between
  sigma_middle: Array    # f32: there


class Solver(NamedTuple):
  """A numerical method.

  Attributes:
    init: x [B H W C] -> memory, any pytree of numbers and of arrays with the leading axis B.
    step: (denoise, x, memory, step, noise) -> (x, memory, prediction): from x at `step.alpha_bar`
      to `step.alpha_bar_next`. `noise` is fresh standard normal [B H W C]; a solver that ignores it
      costs nothing, since XLA removes what is not used.
    evaluations: of the denoiser in a step; but every solver asks just once in a step to clean data.
    clip_guided_above: in runs that begin above this sigma, x_0 is clipped again after a classifier
      has moved it, where nothing else is said. The reference's two methods never do. But where
      alpha_bar is all but 0, as at the end of the cosine schedule, all except ancestral sampling
      would end in saturated images: DDIM is clipped there, where no published number was made.
  """
  init: Callable[[Array], Any]
  step: Callable[[Denoiser, Array, Any, Step, Array], tuple[Array, Any, Prediction]]
  evaluations: int = 1
  clip_guided_above: float = 0.0


# ---------------------------------------------------------------------------------------------
# Where to go; `spacing` has more.


def descend(schedule: Schedule) -> Step:
  """All steps from the noisiest, t = S - 1, to clean data; leading axis S."""
  return to_clean(schedule, np.arange(schedule.num_steps)[::-1])


def ascend(schedule: Schedule) -> Step:
  """The S - 1 steps from data, taken to be x_{t=0}, up to x_{t = S-1}, where `descend` starts.

  DDIM along these steps is the reference's `ddim_reverse_sample`: it encodes an image (ADM paper,
  appendix F, which also leaves out the step that would end in pure noise).
  """
  order = np.arange(schedule.num_steps - 1)
  return walk(schedule, order, order + 1)


CLEAN = -1  # in place of an index of the schedule: before its first noise
_MANY = 2**20


def to_clean(schedule: Schedule, order: np.ndarray) -> Step:
  """From each index of the schedule in `order`, i64[S], falling, to the next, and to clean data."""
  return walk(schedule, order, np.append(order[1:], CLEAN))


def walk(schedule: Schedule, order: np.ndarray, ends: np.ndarray,
         starts: np.ndarray | None = None) -> Step:
  """Steps between indices of a schedule, each i64[S].

  Args:
    schedule: the process.
    order: where the denoiser is asked.
    ends: where each step ends, or CLEAN.
    starts: where x lies at first, by default at `order`; noise is added from there (`churned`).
  """
  # CLEAN, -1, finds the entry appended here.
  alpha_bar, sigma = np.append(schedule.alpha_bar, 1.0), np.append(schedule.sigma, 0.0)
  middle = np.array([_middle(schedule.sigma, *pair) for pair in zip(order, ends)], int)
  place = functools.partial(jnp.asarray, dtype=jnp.int32)
  level = functools.partial(jnp.asarray, dtype=jnp.float32)
  to_data = len(ends) > 0 and ends[-1] == CLEAN
  return Step(
      index=jnp.arange(len(order)),
      left=place(np.arange(len(order))[::-1] + (0 if to_data else _MANY)), t=place(order),
      alpha_bar=level(alpha_bar[order]), alpha_bar_next=level(alpha_bar[ends]),
      sigma=level(sigma[order]), sigma_next=level(sigma[ends]),
      sigma_start=level(sigma[order if starts is None else starts]),
      t_next=place(np.maximum(ends, 0)), t_middle=place(middle), sigma_middle=level(sigma[middle]))


def _middle(sigma: np.ndarray, here: int, there: int) -> int:
  """The index from `there` to `here`, which is left out, nearest to halfway in log sigma."""
  if there == CLEAN:
    return 0
  between = np.arange(there, here, np.sign(here - there))
  halfway = np.sqrt(sigma[here] * sigma[there])
  return between[np.argmin(np.abs(np.log(sigma[between] / halfway)))]


def num_evaluations(solver: Solver, steps: Step) -> int:
  """How often `solver` asks the denoiser along `steps`."""
  once = int((np.asarray(steps.sigma_next) == 0).sum())
  return once + solver.evaluations * (len(steps.t) - once)


# ---------------------------------------------------------------------------------------------
# The reference's two.


def _no_memory(x: Array) -> tuple:
  del x
  return ()


def ancestral() -> Solver:
  """Draws x_{t-1} from p(x_{t-1} | x_t): DDPM, algorithm 2; no noise at t = 0.

  A guidance gradient enters through the mean. Walks `descend` of the schedule only: p knows no
  other steps.
  """
  def step(denoise, x, memory, step, noise):
    p = denoise(x, step.t)
    noisy = (step.t != 0).astype(x.dtype)
    return p.mean + noisy * jnp.exp(0.5 * p.log_variance) * noise, memory, p
  return Solver(_no_memory, step, clip_guided_above=np.inf)


def ddim(eta: float = 0.0) -> Solver:
  """Song et al. (2021), eq. 12 and 16; a guidance gradient enters through eps.

  Args:
    eta: 0 is deterministic, and also runs backwards (`ascend`); 1 has the noise of DDPM with the
      small variance.
  """
  def step(denoise, x, memory, step, noise):
    p = denoise(x, step.t)
    here, there = step.alpha_bar, step.alpha_bar_next
    if eta == 0:
      return jnp.sqrt(there) * p.x0 + jnp.sqrt(1 - there) * p.eps, memory, p
    sigma = eta * jnp.sqrt((1 - there) / (1 - here)) * jnp.sqrt(1 - here / there)
    # Rounding must not make the root of a difference that is exactly 0 for eta = 1 a NaN.
    direction = jnp.sqrt(jnp.maximum(1 - there - sigma**2, 0))
    noisy = (step.t != 0).astype(x.dtype)
    x = jnp.sqrt(there) * p.x0 + direction * p.eps + noisy * sigma * noise
    return x, memory, p
  return Solver(_no_memory, step, clip_guided_above=1e3)


# ---------------------------------------------------------------------------------------------
# Few evaluations.


def flow(x: Array, x0: Array, sigma: Array, sigma_next: Array) -> Array:
  """Carries x [B H W C] along the probability flow, were x_0 the prediction all the way: DDIM."""
  ratio = sigma_next / sigma
  return (ratio * _scale(sigma) * x + (1 - ratio) * x0) / _scale(sigma_next)


def _scale(sigma: Array) -> Array:
  """1 / sqrt(alpha_bar): x times it is in EDM's coordinates."""
  return jnp.sqrt(1 + sigma ** 2)


def churned(solver: Solver, noise_scale: float = 1.0) -> Solver:
  """Adds noise before each step, up to where it asks the denoiser (EDM, algorithm 2).

  `churned(heun())` is that algorithm and `churned(ddim())` its Euler's method. `spacing.churned`
  says how much; along other steps there is nothing to add.

  Args:
    solver: a method without memory or noise of its own.
    noise_scale: S_noise.
  """
  def step(denoise, x, memory, step, noise):
    # The difference of squares, which is exactly 0 where there is nothing to add.
    added = jnp.sqrt((step.sigma - step.sigma_start) * (step.sigma + step.sigma_start))
    x = (_scale(step.sigma_start) * x + noise_scale * added * noise) / _scale(step.sigma)
    return solver.step(denoise, x, memory, step, noise)
  return solver._replace(step=step)


def heun() -> Solver:
  """Heun's method in sigma, of order 2 (Karras et al. 2022, algorithm 1): two evaluations a step.

  Euler's step, which is DDIM, then again with the mean of eps at both its ends.
  """
  def step(denoise, x, memory, step, noise):
    del noise
    p = denoise(x, step.t)
    end = flow(x, p.x0, step.sigma, step.sigma_next)

    def corrected(end):
      slope = (denoise(end, step.t_next).eps - p.eps) / 2
      return end + (step.sigma_next - step.sigma) * slope / _scale(step.sigma_next)
    return jax.lax.cond(step.sigma_next > 0, corrected, lambda end: end, end), memory, p
  return Solver(_no_memory, step, evaluations=2)


def dpm_singlestep() -> Solver:
  """DPM-Solver++(2S), of order 2 (Lu et al. 2022b, algorithm 1): two evaluations a step.

  The second is halfway in lambda, or as near to it as there is a step of the schedule.
  """
  def step(denoise, x, memory, step, noise):
    del noise
    p = denoise(x, step.t)

    def by_two(x):
      middle = flow(x, p.x0, step.sigma, step.sigma_middle)
      q = denoise(middle, step.t_middle)
      past = _Past(2, (step.sigma, step.sigma_middle), (p.x0, q.x0))
      return flow(x, past.mean(step.sigma, step.sigma_next, 2), step.sigma, step.sigma_next)
    # To clean data the step is infinite in lambda, and has no middle.
    x = jax.lax.cond(step.sigma_next > 0, by_two, lambda x: p.x0, x)
    return x, memory, p
  return Solver(_no_memory, step, evaluations=2)


def dpm_multistep(order: int = 2, sde: bool = False) -> Solver:
  """DPM-Solver++ from the last `order` predictions (Lu et al. 2022b, algorithm 2 for order 2, 2M).

  The first steps, which have no past, and the last, which run into clean data, are of lower order.

  Args:
    order: 1 is DDIM; 2 is for guided and 3 for unguided sampling. Order 3 integrates the parabola
      through its predictions; released code (the authors', Diffusers) halves its last term, which
      leaves order 2.
    sde: SDE-DPM-Solver++ (there, section 5): fresh noise in every step, in the amount of `ddim`
      with eta 1, which this is for order 1.
  """
  _check_order(order)

  def step(denoise, x, past, step, noise):
    p = denoise(x, step.t)
    past = past.add(step.sigma, p.x0)
    here, there = step.sigma, step.sigma_next
    used = jnp.minimum(past.count, step.left + 1)
    if not sde:
      return flow(x, past.mean(here, there, used), here, there), past.latest(order - 1), p
    # The noise decays as fast again as along the flow, and its lost variance is drawn anew.
    ratio = (there / here) ** 2
    x = (ratio * _scale(here) * x + (1 - ratio) * past.mean(here, there, used, rate=2)
         + there * jnp.sqrt(1 - ratio) * noise) / _scale(there)
    return x, past.latest(order - 1), p
  return Solver(lambda x: _Past.none(x, order - 1), step)


def unipc(order: int = 2) -> Solver:
  """UniPC (Zhao et al. 2023) in x_0, B(h) = e^h - 1: one evaluation a step.

  The prediction at the end of a step first corrects the step that led there, to one order more, and
  then serves the next, from the corrected point.

  Args:
    order: of the predictor.
  """
  _check_order(order)

  def step(denoise, x, memory, step, noise):
    del noise
    (before, past), here, there = memory, step.sigma, step.sigma_next
    p = denoise(x, step.t)
    past_and_now = past.add(here, p.x0)
    # `left + 2` is what the step before had left, and `+ 1` is the new prediction.
    used = jnp.minimum(jnp.minimum(past.count, order), step.left + 2) + 1
    corrected = flow(before, past_and_now.mean(past.sigma[0], here, used), past.sigma[0], here)
    x = jnp.where(past.count > 0, corrected, x)
    past = past_and_now.latest(order)
    used = jnp.minimum(past.count, step.left + 1)
    return flow(x, past.mean(here, there, used), here, there), (x, past), p
  return Solver(lambda x: (jnp.zeros_like(x), _Past.none(x, order)), step)


def _check_order(order: int) -> None:
  if order not in (1, 2, 3):
    raise UsageError(f'order={order}: there are orders 1, 2 and 3')


@flax.struct.dataclass
class _Past:
  """The latest K predictions, newest first; those beyond `count` mean nothing."""
  count: Array | int        # i32, at most K
  sigma: tuple[Array, ...]  # f32[] each: where they were made
  x0: tuple[Array, ...]     # [B H W C] each

  @classmethod
  def none(cls, x: Array, size: int) -> '_Past':
    # Arrays of their own each, since a sampler donates them.
    return cls(jnp.int32(0), tuple(jnp.ones((), x.dtype) for _ in range(size)),
               tuple(jnp.zeros_like(x) for _ in range(size)))

  def add(self, sigma: Array, x0: Array) -> '_Past':
    return _Past(self.count + 1, (sigma, *self.sigma), (x0, *self.x0))

  def latest(self, size: int) -> '_Past':
    return _Past(jnp.minimum(self.count, size), self.sigma[:size], self.x0[:size])

  def mean(self, here: Array, there: Array, used: Array | int, rate: int = 1) -> Array:
    """The mean of x_0 over a step, by the polynomial in lambda through the newest `used` of them.

    Args:
      here: sigma where the step starts.
      there: where it ends.
      used: 1 to K.
      rate: the mean is weighted by exp(rate lambda).
    """
    h = jnp.log(here / there)
    nodes = [jnp.log(here / sigma) / h for sigma in self.sigma]  # 0 is here, 1 is there
    size = len(nodes)
    weights = jnp.stack([
        jnp.stack(_weights(nodes[:k], _moments(rate * h, k)) + [jnp.float32(0)] * (size - k))
        for k in range(1, size + 1)])  # [K K]
    # An order that is not used may divide by zero; a row that is not taken does no harm.
    return sum(weight * x0 for weight, x0 in zip(weights[used - 1], self.x0))


def _moments(h: Array, count: int) -> list[Array]:
  """The means of u^k, k < `count`, for u in [0, 1] weighted by exp(h u)."""
  if count == 2:
    return [1.0, 0.5]  # the papers' choice where nothing more is asked: the limit for small h
  integral = -jnp.expm1(-h)
  whole, means = integral, [1.0]
  for k in range(1, count):
    integral = 1 - k / h * integral
    means.append(integral / whole)
  return means


def _weights(nodes: list[Array], moments: list[Array]) -> list[Array]:
  """w such that sum_i w_i f(nodes_i) is the mean of the polynomial through (nodes, f)."""
  weights = []
  for i, node in enumerate(nodes):
    coefficients = [jnp.float32(1)]  # of Lagrange's polynomial, rising powers
    for other in nodes[:i] + nodes[i + 1:]:
      coefficients = [(a - other * b) / (node - other)
                      for a, b in zip([0, *coefficients], [*coefficients, 0])]
    weights.append(sum(c * m for c, m in zip(coefficients, moments)))
  return weights
