"""The training step is a pure function of (state, batch, key)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from stand_ins import StandIn

from adm_jax import config as config_lib
from adm_jax import networks
from adm_jax.data import loading
from adm_jax.errors import UsageError
from adm_jax.models import SuperRes, UNet
from adm_jax.training import tasks
from adm_jax.training.state import adamw, init_state
from adm_jax.training.steps import by_quartile, train_step

KEY = jax.random.key(5)


def _make(run, **kwargs):
  return train_step(run.task, run.optimizer, run.timestep_sampler, ema_rates=run.ema_rates,
                    **kwargs)


@pytest.fixture(scope='module')
def run():
  return tiny.unet_run()


@pytest.fixture(scope='module')
def step(run):
  """One compiled step for the whole module; nothing is donated."""
  return jax.jit(_make(run))


@pytest.fixture(scope='module')
def state(run):
  return run.init()


@pytest.fixture(scope='module')
def batch(run):
  return next(loading.batches(run.data, batch_size=run.batch_size, seed=0))


def _close(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_step_is_repeatable_and_depends_on_its_number(step, state, batch):
  once, metrics = step(state, batch, KEY)
  again, same = step(state, batch, KEY)
  _equal((once, metrics), (again, same))
  _, other = step(state.replace(step=state.step + 1), batch, KEY)
  assert metrics['loss'].value != other['loss'].value


def test_microbatches_change_neither_update_nor_metrics(run, step, state, batch):
  whole, metrics = step(state, batch, KEY)
  parts, parts_metrics = jax.jit(_make(run, microbatches=4))(state, batch, KEY)
  # Adam's first update is lr * sign(g): compare the moments, which are linear in the gradient.
  _close(optax.tree.get(whole.opt_state, 'mu'), optax.tree.get(parts.opt_state, 'mu'), atol=1e-6)
  for name, mean in metrics.items():
    np.testing.assert_allclose(mean.value, parts_metrics[name].value, rtol=1e-4, err_msg=name)


def test_each_average_follows_its_own_rate(run, step, state, batch):
  later, _ = step(state, batch, KEY)
  for rate in run.ema_rates:
    wanted = jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, state.params, later.params)
    _close(later.ema[str(rate)], wanted, rtol=1e-6, atol=1e-7)


def test_ema_warmup_uses_the_smaller_rate(run, state, batch):
  later, _ = jax.jit(_make(run, ema_warmup=True))(state, batch, KEY)
  wanted = jax.tree.map(lambda a, p: 0.1 * a + 0.9 * p, state.params, later.params)
  _close(later.ema['0.9'], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('what', ['loss', 'gradient'])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(run, state, batch, what):
  """sqrt(0) has a finite value and an infinite gradient."""
  def terms(params, frozen, examples, dropout_keys):
    first = jax.tree.leaves(params)[0].ravel()[0]
    bad = jnp.log(-1.0) if what == 'loss' else jnp.sqrt(0 * first)
    return {'loss': jnp.ones(examples['t'].shape) * bad}

  broken = dataclasses.replace(run, task=run.task._replace(terms=terms))
  bad_step = jax.jit(_make(broken))
  later, metrics = bad_step(state, batch, KEY)
  for name in ('params', 'ema', 'opt_state', 'timesteps'):
    _equal(getattr(later, name), getattr(state, name))
  assert (later.step, later.skipped, later.skipped_in_a_row) == (1, 1, 1)
  assert metrics['skipped'].value == 1 and metrics['loss'].count == 0
  later, _ = bad_step(later, batch, KEY)
  assert (later.skipped, later.skipped_in_a_row) == (2, 2)
  later, _ = jax.jit(_make(run))(later, batch, KEY)
  assert (later.skipped, later.skipped_in_a_row) == (2, 0)


def test_a_result_that_is_not_finite_is_not_kept_either(run, batch):
  """Of an optimizer that is not known to be bounded: here its update overflows."""
  broken = dataclasses.replace(run, optimizer=optax.sgd(3e38))
  state = init_state(KEY, broken.task, broken.optimizer, broken.ema_rates,
                     broken.timestep_sampler)
  later, _ = jax.jit(_make(broken))(state, batch, KEY)
  later, metrics = jax.jit(_make(broken))(later, batch, KEY)
  assert later.skipped == 2 and metrics['skipped'].value == 1
  _equal(later.params, state.params)


@pytest.mark.parametrize('kwargs, wanted', [
    ({}, True), ({'weight_decay': 0.1, 'linear_decay_steps': 9, 'clip_norm': 1.0}, True),
    ({'eps': 0.0}, False), ({'weight_decay': 100.0}, False), ({'b1': 0.99, 'b2': 0.9}, False)])
def test_adamw_knows_whether_its_updates_are_bounded(kwargs, wanted):
  """And keeps the promise for the largest gradients, and tiny ones after them."""
  optimizer = adamw(0.1, **kwargs)
  assert optimizer.bounded is wanted
  if not wanted:
    return
  params = jnp.zeros(4)
  memory = optimizer.init(params)
  for size in (9e18, 1e-38, 0.0, 1e-38, 9e18):
    updates, memory = optimizer.update(jnp.full(4, size), memory, params)
    params = params + updates
    assert jnp.abs(updates).max() < 10 and jnp.isfinite(params).all()


def test_a_config_can_compute_in_bfloat16(batch):
  """The loss stays close, and parameters, averages and metrics stay float32."""
  run = config_lib.build(config_lib.override(tiny.get_config(),
                                             ['--config.task.network.module.dtype=bfloat16']))
  state = run.init()
  later, metrics = jax.jit(_make(run))(state, batch, KEY)
  _, exact = jax.jit(_make(tiny.unet_run()))(state, batch, KEY)
  assert {leaf.dtype for leaf in jax.tree.leaves((later.params, later.ema, metrics))} == {
      np.dtype('float32')}
  np.testing.assert_allclose(metrics['mse'].value, exact['mse'].value, rtol=0.02)


def test_quartiles_part_the_batch():
  t = jnp.array([0, 9, 10, 19, 20, 39, 39])
  values = jnp.arange(7.0)
  means = by_quartile({'loss': values}, t, 40)
  got = [(means[f'loss_q{q}'].total, means[f'loss_q{q}'].count) for q in range(4)]
  assert got == [(1, 2), (5, 2), (4, 1), (11, 2)]
  assert (means['loss'].total, means['loss'].count) == (21, 7)


def test_the_loss_history_fills_in_the_state(batch):
  run = config_lib.build(tiny.second_moment_config())
  state, step = run.init(), jax.jit(_make(run))
  for _ in range(3):
    state, _ = step(state, batch, KEY)
  assert state.timesteps.counts.sum() == 3 * run.batch_size


def test_overfitting_one_batch_lowers_the_loss(step, state, batch):
  losses = []
  for _ in range(60):
    state, metrics = step(state, batch, KEY)
    losses.append(float(metrics['mse'].value))
  assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])


def test_the_classifier_learns_one_clean_batch_and_reports_top1_and_top5(batch):
  config = config_lib.override(tiny.classifier_config(), ['--config.task.noised=False'])
  run = config_lib.build(config)
  state, step = run.init(), jax.jit(_make(run))
  _, first = step(state, batch, KEY)
  for _ in range(60):
    state, metrics = step(state, batch, KEY)
  assert metrics['loss'].value < 0.5 * first['loss'].value
  assert metrics['accuracy_top5'].value >= metrics['accuracy_top1'].value > 0.6


def test_classifier_accuracies_rank_the_right_class():
  """A network whose logits are fixed: the right class is 1st, 3rd and 7th."""
  def fixed(params, x, t, **kwargs):
    return jnp.broadcast_to(-jnp.arange(10.0), (len(x), 10))
  network = config_lib.build(tiny.classifier_config().task.network)
  task = tasks.classifier(StandIn(network, fixed))
  examples = {'image': jnp.zeros((3, 8, 8, 1), jnp.uint8), 'label': jnp.array([0, 2, 6]),
              't': jnp.zeros(3, jnp.int32), 'key': jax.random.split(KEY, 3)}
  terms = task.terms({}, (), examples, None)
  np.testing.assert_array_equal(terms['accuracy_top1'], [1, 0, 0])
  np.testing.assert_array_equal(terms['accuracy_top5'], [1, 1, 0])


@pytest.mark.parametrize('logits, top1, top5', [
    ([0.0] * 10, 0, 0), ([1.0, 1.0] + [0.0] * 8, 0, 1), ([jnp.nan] * 10, 0, 0),
    ([jnp.nan] * 3, 0, 0), ([1.0, jnp.nan] + [0.0] * 8, 0, 1), ([jnp.inf] + [0.0] * 9, 1, 1)])
def test_a_tie_and_nan_are_wrong(logits, top1, top5):
  """The right class is the first."""
  logits, label = jnp.array([logits]), jnp.array([0])
  assert tasks.among_first(logits, label, 1).tolist() == [top1]
  assert tasks.among_first(logits, label, 5).tolist() == [top5]


def test_the_upsampler_trains_on_area_averages(run, batch):
  """The network sees exactly the average of each 2 x 2 area, and the loss reaches its weights."""
  seen = {}
  module = SuperRes(UNet(image_size=8, out_channels=2, in_channels=2, channels=32,
                         channel_mult=(1,), depth=1, attention_resolutions=()))
  network = networks.superres(module, run.task.network.diffusion, low_res_size=4)

  def spy(params, x, t, y, *, low_res, **kwargs):
    seen['low_res'] = low_res
    return network.apply(params, x, t, y, low_res=low_res, **kwargs)

  task = tasks.diffusion(StandIn(network, spy))
  examples = {**batch, 't': jnp.zeros(8, jnp.int32), 'key': jax.random.split(KEY, 8)}

  def loss(params):
    return task.terms(params, (), examples, None)['loss'].mean(), seen['low_res']
  grads, low_res = jax.jit(jax.grad(loss, has_aux=True))(jax.jit(network.init)(KEY))
  image = batch['image'].astype(np.float32) / 127.5 - 1
  wanted = image.reshape(8, 4, 2, 4, 2, 1).mean(axis=(2, 4))
  np.testing.assert_allclose(low_res, wanted, atol=1e-6)
  assert optax.tree.norm(grads) > 0


def test_labels_are_hidden_in_training_at_their_rate_and_never_else(run):
  """From a class table with one row more, the last; each example by its own key."""
  seen = {}

  def spy(params, x, t, y, **kwargs):
    seen['labels'] = y
    return jnp.zeros((*x.shape[:-1], 2))

  module = run.task.network.module.clone(num_classes=10)
  network = networks.unet(module, run.task.network.diffusion, with_null_label=True)
  assert (network.null_label, network.num_classes, network.module.num_classes) == (10, 10, 11)
  task = tasks.diffusion(StandIn(network, spy), label_dropout=0.1)
  table = network.abstract_params()['embedding']
  assert 11 in {leaf.shape[0] for leaf in jax.tree.leaves(table)}
  examples = {'image': jnp.zeros((4000, 8, 8, 1), jnp.uint8), 't': jnp.zeros(4000, jnp.int32),
              'label': jnp.arange(4000) % 10, 'key': jax.random.split(KEY, 4000)}
  task.terms({}, (), examples, KEY)
  hidden = np.asarray(seen['labels'] == 10)
  assert abs(hidden.mean() - 0.1) < 0.02
  np.testing.assert_array_equal(seen['labels'][~hidden], examples['label'][~hidden])
  task.terms({}, (), jax.tree.map(lambda a: a[1000:2000], examples), jax.random.key(0))
  np.testing.assert_array_equal(seen['labels'] == 10, hidden[1000:2000])
  task.terms({}, (), examples, None)
  np.testing.assert_array_equal(seen['labels'], examples['label'])
  assert networks.unet(module, network.diffusion).module.num_classes == 10


@pytest.mark.parametrize('label_dropout, num_classes, message', [
    (0.1, None, 'no label that stands for any class'), (1.0, 10, r'share in \[0, 1\)')])
def test_labels_that_cannot_be_hidden_are_refused(run, label_dropout, num_classes, message):
  model = run.task.network.module.clone(num_classes=num_classes)
  with pytest.raises(UsageError, match=message):
    tasks.diffusion(networks.unet(model, run.task.network.diffusion), label_dropout=label_dropout)


def test_learning_rates():
  """Constant, or linear to zero; the first Adam update has the size of the rate."""
  params = {'w': jnp.zeros(3)}
  def sizes(optimizer, count):
    opt_state, result = optimizer.init(params), []
    for _ in range(count):
      update, opt_state = optimizer.update({'w': jnp.ones(3)}, opt_state, params)
      result.append(-float(update['w'][0]))
    return result
  np.testing.assert_allclose(sizes(adamw(0.1), 3), [0.1] * 3, rtol=1e-4)
  np.testing.assert_allclose(sizes(adamw(0.1, linear_decay_steps=4), 5),
                             [0.1, 0.075, 0.05, 0.025, 0], rtol=1e-4, atol=1e-9)


def test_the_decay_can_lag_as_in_guided_diffusion():
  """Its loop: step at the current rate, then rate * (1 - steps / N), then count the step."""
  want, rate = [], 0.1
  for step in range(6):
    want.append(rate)
    rate = 0.1 * (1 - min(step / 4, 1))
  lagging = adamw(0.1, linear_decay_steps=4, decay_after_step=True)
  np.testing.assert_allclose([lagging.learning_rate(jnp.int32(n)) for n in range(6)], want,
                             rtol=1e-6, atol=1e-9)
  assert want[:3] == [0.1, 0.1, 0.1 * 0.75]


@pytest.mark.parametrize('lags', [False, True])
def test_a_decay_ends_after_as_many_updates_as_it_says(lags):
  optimizer = adamw(0.1, linear_decay_steps=4, decay_after_step=lags)
  rates = [float(optimizer.learning_rate(jnp.int32(count))) for count in range(8)]
  assert [rate > 0 for rate in rates] == [count < optimizer.num_updates for count in range(8)]
  assert adamw(0.1).num_updates is None


@pytest.mark.parametrize('kwargs, match', [
    (dict(learning_rate=0.0), 'learning_rate=0.0'), (dict(weight_decay=-0.1), 'weight_decay=-0.1'),
    (dict(linear_decay_steps=0), 'linear_decay_steps=0'), (dict(clip_norm=0.0), 'clip_norm=0.0'),
    (dict(clip_norm=-1.0), 'clip_norm=-1.0'), (dict(b1=1.0), 'b1=1.0'), (dict(b2=-0.1), 'b2=-0.1'),
    (dict(b2=1.0), 'b2=1.0'), (dict(eps=-1e-8), 'eps=-1e-08')])
def test_numbers_that_no_training_can_have_are_refused(kwargs, match):
  with pytest.raises(UsageError, match=match) as error:
    adamw(**{'learning_rate': 0.1, **kwargs})
  assert '\n' not in str(error.value)


def test_weight_decay_is_decoupled_and_clipping_bounds_the_gradient():
  params = {'w': jnp.full(4, 2.0)}
  zero = {'w': jnp.zeros(4)}
  decay = adamw(0.1, weight_decay=0.5)
  update, _ = decay.update(zero, decay.init(params), params)
  np.testing.assert_allclose(update['w'], -0.1 * 0.5 * 2.0, rtol=1e-6)
  clip = adamw(0.1, clip_norm=1.0)
  _, opt_state = clip.update({'w': jnp.full(4, 50.0)}, clip.init(params), params)
  np.testing.assert_allclose(optax.tree.get(opt_state, 'mu')['w'], 0.1 * 0.5, rtol=1e-6)


def test_a_batch_that_microbatches_do_not_divide_is_refused(run, state, batch):
  with pytest.raises(UsageError, match='3 microbatches'):
    jax.eval_shape(_make(run, microbatches=3), state, batch, KEY)


def test_averages_start_at_the_initial_parameters(run):
  state = init_state(KEY, run.task, run.optimizer, (0.99,), run.timestep_sampler)
  _equal(state.ema['0.99'], state.params)
