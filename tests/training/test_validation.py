"""What is measured on held-out images is right, repeatable, and changes nothing of training."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.data.sources import ArraySource
from adm_jax.devices import sharding
from adm_jax.errors import UsageError
from adm_jax.training import loop, validation


def _train(workdir, make=tiny.classifier_config, **kwargs):
  config = make(total_steps=4, save_every=4, **kwargs)
  state = loop.train(config_lib.build(config), stored_configs.to_json(config), workdir)
  path = workdir / 'validation.jsonl'
  return state, [json.loads(line) for line in open(path)] if path.exists() else None


def _validated(**kwargs):
  return dict(validation=call(digits, split='held_out'), validate_every=2, **kwargs)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('trained')
  return folder, *_train(folder / 'run', **_validated())


def test_loss_and_accuracies_are_written_by_quartile_of_weights_and_average(trained):
  _, _, lines = trained
  assert [line['step'] for line in lines] == [2, 4]
  terms = ('loss', 'accuracy_top1', 'accuracy_top5')
  wanted = {f'{prefix}{term}{part}' for prefix in ('', 'ema_') for term in terms
            for part in ('', '_q0', '_q1', '_q2', '_q3')}
  assert all(line.keys() == {'step', *wanted} for line in lines)
  assert lines[-1]['loss'] != lines[-1]['ema_loss']
  assert all(0 <= line['accuracy_top1'] <= line['accuracy_top5'] <= 1 for line in lines)


def test_training_is_the_same_with_and_without(trained, tmp_path):
  folder, state, _ = trained
  plain, lines = _train(tmp_path / 'run')
  assert lines is None
  jax.tree.map(np.testing.assert_array_equal, plain, state)
  assert (folder / 'run' / 'metrics.jsonl').read_bytes() == (
      tmp_path / 'run' / 'metrics.jsonl').read_bytes()


def test_pmap_measures_what_a_mesh_does(trained, tmp_path):
  _, _, lines = trained
  _, mapped = _train(tmp_path / 'run', **_validated(parallel='pmap'))
  for name, value in lines[-1].items():
    np.testing.assert_allclose(mapped[-1][name], value, rtol=1e-3, atol=3e-3, err_msg=name)


def test_it_is_a_function_of_seed_and_step_and_of_each_image_alone():
  """Not of the batches; padding counts as nothing."""
  run = config_lib.build(tiny.classifier_config())
  state, held_out = run.init(), digits('held_out')
  few = ArraySource('few', held_out.images[:13], held_out.labels[:13], held_out.class_names)
  mesh = sharding.mesh()
  def measure(batch_size, step, seed=0, source=few):
    return validation.validator(run.task, source, mesh, batch_size=batch_size, seed=seed)(
        state, (), step)
  whole = measure(16, 2)
  for name, value in measure(8, 2).items():
    np.testing.assert_allclose(value, whole[name], rtol=1e-5)
  assert whole == measure(16, 2)
  assert whole['loss_q1'] != measure(16, 3)['loss_q1'] != measure(16, 3, seed=1)['loss_q1']


def test_the_mean_is_of_the_tasks_terms():
  """A task whose loss is the image's label + t: by hand."""
  run = config_lib.build(tiny.classifier_config())
  def terms(params, frozen, examples, dropout_keys):
    assert dropout_keys is None
    return {'loss': examples['label'].astype(jnp.float32), 't': examples['t'].astype(jnp.float32)}
  held_out = digits('held_out')
  found = validation.validator(run.task._replace(terms=terms), held_out, sharding.mesh(),
                               batch_size=64, seed=0)(run.init(), (), 0)
  np.testing.assert_allclose(found['loss'], held_out.labels.mean(), rtol=1e-6)
  for q in range(4):  # of 40 timesteps, uniform
    np.testing.assert_allclose(found[f't_q{q}'], 10 * q + 4.5, atol=1.5)


def test_a_diffusion_model_is_validated_too(tmp_path):
  _, lines = _train(tmp_path / 'run', make=tiny.get_config, **_validated())
  assert lines[-1]['ema_loss'] > 0 and 'accuracy_top1' not in lines[-1]


@pytest.mark.parametrize('kwargs, message', [
    (dict(validate_every=2), 'nothing to validate on'), (dict(validate_every=-1), 'give 0'),
    (dict(data=SimpleNamespace(name='mine', image_shape=(8, 8, 1)), validation=digits('held_out')),
     'SimpleNamespace is no source of images, for want of class_names'),
    (dict(validation=ArraySource('other', np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int32),
                                 ('a', 'b'))), 'other classes'),
    (dict(validation=ArraySource('large', np.zeros((2, 9, 9, 1), np.uint8), np.zeros(2, np.int32),
                                 ())), r'images of \(9, 9, 1\)')])
def test_mistakes_are_found_before_training(kwargs, message):
  with pytest.raises(UsageError, match=message):
    config_lib.build(tiny.classifier_config(**kwargs))


def test_a_run_from_before_goes_on_with_validation(tmp_path):
  """In the same work directory, from a config that knows nothing of it."""
  _train(tmp_path / 'run')
  text = (tmp_path / 'run' / 'config.json').read_text()
  config = tiny.classifier_config(total_steps=6, save_every=4, **_validated())
  assert stored_configs.differences(text, stored_configs.to_json(config), loop.MAY_CHANGE) == []
  loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run')
  lines = [json.loads(line) for line in open(tmp_path / 'run' / 'validation.jsonl')]
  assert [line['step'] for line in lines] == [6]
