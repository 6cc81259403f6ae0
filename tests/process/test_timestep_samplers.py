"""Timestep samplers: parity with the published importance sampling, and unbiased weights."""

import dataclasses

import golden_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adm_jax.errors import UsageError
from adm_jax.process.timestep_samplers import (
  LossHistory,
  loss_second_moment,
  second_moment_weights,
  uniform,
)

KEYS = jax.random.split(jax.random.key(0), 40000)


def warm(num_steps=6, history=3, seed=0):
  """A state in which every timestep has its losses."""
  losses = jax.random.uniform(jax.random.key(seed), (num_steps, history), minval=0.1, maxval=4.0)
  return LossHistory(losses, jnp.full(num_steps, history))


@golden_files.parametrize('second_moment_resampler')
def test_second_moment_weights_are_the_reference_s(golden):
  """After every batch of updates that it recorded, in float64, its weights and counts."""
  meta, arrays = golden_files.load(golden)
  with jax.enable_x64(True):
    sampler = loss_second_moment(meta['num_timesteps'], history=meta['history_per_term'],
                                 uniform_probability=meta['uniform_prob'])
    state, update = sampler.init(), jax.jit(sampler.update)
    for i, (t, loss) in enumerate(zip(arrays['t'], arrays['loss']), start=1):
      state = update(state, jnp.asarray(t), jnp.asarray(loss))
      key = f'weights_after_{i}'
      if key in arrays:
        got = np.asarray(second_moment_weights(state, meta['uniform_prob']))
        assert got.dtype == np.float64
        np.testing.assert_allclose(got / got.sum(), arrays[key] / arrays[key].sum(), rtol=1e-12)
  kept = np.minimum(state.counts, meta['history_per_term'])  # the reference counts no further
  np.testing.assert_array_equal(kept, arrays['counts'])


def test_uniform_draws_every_timestep_alike():
  """The first and the last included, none beyond, with weight 1."""
  t, weights = uniform(5).sample((), KEYS)
  np.testing.assert_allclose(np.bincount(t, minlength=5) / len(t), 0.2, atol=0.01)
  assert t.max() == 4
  np.testing.assert_array_equal(weights, 1)


def test_second_moment_sampling_is_uniform_until_warm():
  """One loss short at one timestep, and no timestep is preferred."""
  state = warm()
  state = dataclasses.replace(state, counts=state.counts.at[5].set(2))
  t, weights = loss_second_moment(6, history=3).sample(state, KEYS)
  np.testing.assert_allclose(np.bincount(t, minlength=6) / len(t), 1 / 6, atol=0.01)
  np.testing.assert_allclose(weights, 1, rtol=1e-5)


def test_second_moment_sampling_follows_the_losses():
  """p(t) ~ sqrt(E loss^2), a little of it spread evenly (IDDPM, eq. 18)."""
  state = warm()
  t, _ = loss_second_moment(6, history=3, uniform_probability=0.1).sample(state, KEYS)
  root = np.sqrt((np.asarray(state.losses) ** 2).mean(axis=1))
  want = 0.9 * root / root.sum() + 0.1 / 6
  np.testing.assert_allclose(np.bincount(t, minlength=6) / len(t), want, atol=0.01)


def test_a_timestep_without_loss_is_not_forgotten():
  """Every timestep keeps uniform_probability / T."""
  state = dataclasses.replace(warm(), losses=jnp.zeros((6, 3)).at[2].set(1.0))
  p = second_moment_weights(state, 0.3)
  np.testing.assert_allclose(p, [0.05, 0.05, 0.75, 0.05, 0.05, 0.05], rtol=1e-6)


@pytest.mark.parametrize('state', [warm(), warm(seed=1), loss_second_moment(6, history=3).init()],
                         ids=['warm', 'other', 'cold'])
def test_weights_undo_the_preference(state):
  """Weight 1 / (T p(t)): sum_t p(t) w(t) f(t) is the mean of any f, without chance."""
  t, weights = loss_second_moment(6, history=3).sample(state, KEYS)
  by_timestep = np.zeros(6)
  by_timestep[np.asarray(t)] = weights
  p = np.asarray(second_moment_weights(state, 0.001), np.float64)
  p /= p.sum()
  f = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0])
  np.testing.assert_allclose((p * by_timestep * f).sum(), f.mean(), rtol=1e-5)


@pytest.mark.parametrize('sampler', [uniform(6), loss_second_moment(6, history=3)],
                         ids=['uniform', 'second_moment'])
def test_a_draw_depends_on_its_key_alone(sampler):
  """An example's timestep is the same in any batch."""
  state = sampler.init() or warm()
  t, weights = sampler.sample(state, KEYS[:10])
  for i in (0, 4, 9):
    alone, weight = sampler.sample(state, KEYS[i:i + 1])
    assert alone[0] == t[i] and weight[0] == weights[i]


@pytest.mark.parametrize('t', [
    [0, 1, 2, 3], [2, 2, 1, 2], [3] * 4, [1] * 11, [0, 3, 3, 3, 3, 0, 3, 3, 1, 3, 3]],
    ids=['distinct', 'duplicates', 'one', 'more_than_history', 'some_more_than_history'])
def test_a_batch_is_its_examples_one_by_one(t):
  """Duplicates are counted in order, and of more than the history only the latest stay."""
  sampler = loss_second_moment(4, history=3)
  state = sampler.init()
  losses = jnp.arange(1.0, len(t) + 1)
  for _ in range(2):  # once on an empty history, once on a partly filled one
    together = sampler.update(state, jnp.array(t), losses)
    for i in range(len(t)):
      state = sampler.update(state, jnp.array(t[i:i + 1]), losses[i:i + 1])
    np.testing.assert_array_equal(together.losses, state.losses)
    np.testing.assert_array_equal(together.counts, state.counts)


def test_the_history_is_the_latest_losses():
  """As a queue would hold them, whatever the order of the ring."""
  sampler, num_steps, history = loss_second_moment(5, history=4), 5, 4
  state, update, queues = sampler.init(), jax.jit(sampler.update), [[] for _ in range(num_steps)]
  rng = np.random.default_rng(0)
  for _ in range(12):
    t, losses = rng.integers(0, num_steps, 7), rng.uniform(0, 1, 7).astype(np.float32)
    state = update(state, jnp.asarray(t), jnp.asarray(losses))
    for i, loss in zip(t, losses):
      queues[i] = (queues[i] + [loss])[-history:]
  for row, queue in zip(state.losses, queues):
    np.testing.assert_array_equal(np.sort(row)[history - len(queue):], np.sort(queue))


def test_uniform_sampling_keeps_no_state():
  assert not jax.tree.leaves(uniform(5).update((), jnp.arange(3), jnp.ones(3)))


@pytest.mark.parametrize('kwargs, message', [
    ({'history': 0}, 'history=0: give at least 1'),
    ({'uniform_probability': 0.0}, 'uniform_probability=0.0: give'),
    ({'uniform_probability': 1.5}, 'uniform_probability=1.5: give')])
def test_weights_that_would_not_be_numbers_are_refused(kwargs, message):
  with pytest.raises(UsageError, match=message):
    loss_second_moment(6, **kwargs)
