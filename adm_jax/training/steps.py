"""The training step: a pure function of (state, batch, key)."""

from typing import Any, Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax

from adm_jax.devices.layouts import as_stored
from adm_jax.devices.sharding import LEAST_TO_SPLIT, Collectives
from adm_jax.errors import UsageError
from adm_jax.process.timestep_samplers import TimestepSampler
from adm_jax.sampling.sampler import image_keys
from adm_jax.training.state import Optimizer, TrainState
from adm_jax.training.tasks import Task

Array = jax.Array


@flax.struct.dataclass
class Mean:
  """A mean that can be merged with others; NaN of nothing."""
  total: Array
  count: Array

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(self.total + other.total, self.count + other.count)

  @property
  def value(self) -> Array:
    return self.total / self.count


Metrics = dict[str, Mean]
TrainStep = Callable[[TrainState, dict, Array, Any], tuple[TrainState, Metrics]]


def by_quartile(terms: dict[str, Array], t: Array, num_timesteps: int,
                weight: Array | None = None) -> Metrics:
  """The mean of each term f32[B], and its mean over each quarter of the timesteps: `loss_q0` .. 3.

  Quarter 0 holds the least noise. With `weight`, 0 or 1 of f32[B], examples of weight 0 count as
  absent, whatever their terms.
  """
  quartile = 4 * t // num_timesteps
  if weight is not None:
    terms = {name: jnp.where(weight > 0, values, 0) for name, values in terms.items()}
  means = {}
  for name, values in terms.items():
    means[name] = Mean(values.sum(), jnp.float32(values.size) if weight is None else weight.sum())
    for q in range(4):
      inside = (quartile == q).astype(jnp.float32)
      inside = inside if weight is None else inside * weight
      means[f'{name}_q{q}'] = Mean((values * inside).sum(), inside.sum())
  return means


def train_step(task: Task, optimizer: optax.GradientTransformation,
               timestep_sampler: TimestepSampler, *, ema_rates: tuple[float, ...] = (),
               ema_warmup: bool = False, microbatches: int = 1,
               collectives: Collectives = Collectives()) -> TrainStep:
  """Makes (state, batch, key, frozen) -> (state, metrics).

  Everything random, dropout included, is drawn from `key`, the step's number and an example's place
  in the batch, so that a resumed run repeats the uninterrupted one, and neither microbatches nor
  devices change anything but rounding.

  A step whose loss, gradient or result is not finite changes neither parameters, averages,
  optimizer nor timestep sampler; it is counted. After an optimizer that says that it is `bounded`,
  a finite loss and gradient are enough.

  Args:
    task: network and loss.
    optimizer: an optax transformation, as given to `init_state`.
    timestep_sampler: which timesteps to train on.
    ema_rates: as given to `init_state`.
    ema_warmup: use min(rate, (1 + step) / (10 + step)), so that a short run's average is not mostly
      its random start; off, as in the reference, whose average at 10,000 steps is still 37 % start.
    microbatches: into how many parts to cut a batch, one after the other; their gradients are
      averaged (the reference adds them).
    collectives: how to reach the rest of the batch, where the step is given a part of it. State and
      metrics are then of the whole batch, and the same for every part.

  Returns:
    The step. `batch` is {'image': uint8[B H W C], 'label': i32[B]}, `frozen` the task's. Metrics
    hold each term of the loss times the timestep sampler's weight, as in the reference, and its
    quartiles; `grad_norm`, `param_norm`, `learning_rate` and `skipped`, the share of skipped steps.
  """
  num_timesteps = task.network.diffusion.schedule.num_steps

  def loss(params, frozen, examples):
    terms = task.terms(params, frozen, examples, examples['dropout_key'])
    return (terms['loss'] * examples['weight']).mean(), terms

  def gradients(params, frozen, examples):
    """The mean gradient, and all terms f32[B], over the microbatches."""
    def one(params, frozen, examples):
      grads, terms = jax.grad(loss, has_aux=True)(params, frozen, examples)
      return as_stored(grads), terms
    if microbatches == 1:
      return one(params, frozen, examples)
    # Each takes every M-th example: where the batch is split over devices, so is every microbatch.
    slices = jax.tree.map(
        lambda a: a.reshape(-1, microbatches, *a.shape[1:]).swapaxes(0, 1), examples)

    def accumulate(total, examples):
      grads, terms = one(params, frozen, examples)
      return jax.tree.map(lambda a, b: a + b / microbatches, total, grads), terms

    grads, terms = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), slices)
    return grads, jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(-1), terms)

  def step(state: TrainState, batch: dict, key: Array,
           frozen: Any = ()) -> tuple[TrainState, Metrics]:
    batch_size = batch['image'].shape[0]
    if batch_size % microbatches:
      raise UsageError(f'a batch of {batch_size} cannot be cut into {microbatches} microbatches')
    place = collectives.first(batch_size) + jnp.arange(batch_size)
    keys = image_keys(jax.random.fold_in(key, state.step), place)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)  # [B 3]
    t, weight = timestep_sampler.sample(state.timesteps, keys[:, 0])
    examples = {**batch, 't': t, 'weight': weight, 'key': keys[:, 1], 'dropout_key': keys[:, 2],
                'step': jnp.full(batch_size, state.step)}
    grads, terms = gradients(state.params, frozen, examples)
    grads = collectives.mean(grads)
    t, weight, terms = collectives.gather((t, weight, terms))

    grad_norm = _norm(grads)
    good = jnp.isfinite(terms['loss']).all() & jnp.isfinite(grad_norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if not getattr(optimizer, 'bounded', False):
      # All of the result is there, and is read again, before any of it is kept: it costs a pass.
      good &= jnp.isfinite(_norm(params))

    def kept(new, old):
      return jax.tree.map(lambda new, old: jnp.where(good, new, old), new, old)
    # First of all, so that what follows reads what was kept, and the old parameters are done with.
    params = kept(params, state.params)
    param_norm = _norm(params)
    ema = {str(rate): _average(state.ema[str(rate)], params,
                               _ema_rate(rate, state.step, ema_warmup)) for rate in ema_rates}
    chosen = {name: kept(new, getattr(state, name)) for name, new in dict(
        ema=ema, opt_state=opt_state,
        timesteps=timestep_sampler.update(state.timesteps, t, terms['loss'])).items()}
    bad = (~good).astype(jnp.int32)
    before, state = state, TrainState(
        step=state.step + 1, params=params, skipped=state.skipped + bad,
        skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1), **chosen)

    one = jnp.float32(1)
    metrics = by_quartile({name: values * weight for name, values in terms.items()},
                          t, num_timesteps)
    metrics['grad_norm'] = Mean(grad_norm, one)
    metrics['param_norm'] = Mean(param_norm, one)
    if isinstance(optimizer, Optimizer):
      rate = optimizer.learning_rate(before.step - before.skipped)
      metrics['learning_rate'] = Mean(jnp.float32(rate), one)
    # A skipped step must not turn the means of its neighbors into NaN.
    metrics = jax.tree.map(lambda a: jnp.where(good, a, 0), metrics)
    return state, metrics | {'skipped': Mean(bad.astype(jnp.float32), one)}

  return step


def _norm(tree: Any) -> Array:
  """The root of the sum of all squares, f32.

  Small arrays, which are most, are joined first: the sums of each took a quarter of the kernels
  that a GPU was given.
  """
  leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
  small = [leaf.ravel() for leaf in leaves if leaf.size < LEAST_TO_SPLIT]
  joined = [jnp.concatenate(small)] if small else []
  large = [leaf for leaf in leaves if leaf.size >= LEAST_TO_SPLIT]
  return jnp.sqrt(sum((leaf ** 2).sum() for leaf in [*joined, *large]))


def _ema_rate(rate: float, step: Array, warmup: bool) -> Array | float:
  return jnp.minimum(rate, (1 + step) / (10 + step)) if warmup else rate


def _average(average: Any, params: Any, rate: Array | float) -> Any:
  return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)
