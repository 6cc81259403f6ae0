"""Frozen weights in a training step: placed like parameters, neither trained nor checkpointed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from adm_jax import stored_configs
from adm_jax.training import checkpoints, loop, tasks
from adm_jax.weights import checkpoint_files


def _taught(run, teacher):
  """The run with the loss of a student that imitates a teacher of the same network."""
  network = run.task.network

  def terms(params, frozen, examples, dropout_keys):
    x = examples['image'].astype(jnp.float32) / 127.5 - 1
    t = network.diffusion.schedule.network_time(examples['t'])
    wanted = network.apply(frozen, x, t)
    loss = ((network.apply(params, x, t) - wanted) ** 2).mean(axis=(1, 2, 3))
    return {'loss': loss}
  return dataclasses.replace(run, task=tasks.Task(network, terms, run.task.check, teacher))


@pytest.fixture(scope='module')
def teacher():
  params = jax.jit(tiny.unet_run().task.network.init)(jax.random.key(5))
  # Zero-initialized layers would make a teacher that predicts nothing.
  return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.05, params)


@pytest.mark.parametrize('parallel', ['jit', 'pmap'])
def test_a_student_learns_from_a_teacher_that_no_checkpoint_holds(teacher, parallel, tmp_path):
  config = tiny.get_config(parallel=parallel, total_steps=12)
  run = _taught(dataclasses.replace(tiny.unet_run(), parallel=parallel), teacher)
  lines = []
  state = loop.train(run, stored_configs.to_json(config), tmp_path / 'run',
                     progress=lambda step, line: lines.append(line.get('loss')))
  losses = [loss for loss in lines if loss is not None]
  assert losses[-1] < 0.8 * losses[0]
  with checkpoints.Checkpoints(tmp_path / 'run', stored_configs.to_json(config)) as saved:
    restored, _ = saved.restore(12, run.trainer().shapes)
  jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)
  folder = tmp_path / 'run' / 'checkpoints' / '12' / checkpoint_files.STATE
  found = checkpoint_files.shapes_of(
      checkpoint_files.orbax().StandardCheckpointer().metadata(folder).item_metadata.tree)
  assert {name.split('/')[0] for name in found} == {
      'step', 'params', 'ema', 'opt_state', 'skipped', 'skipped_in_a_row'}


def test_frozen_weights_lie_where_parameters_do(teacher):
  trainer = _taught(tiny.unet_run(), teacher).trainer()
  for frozen, param in zip(jax.tree.leaves(trainer.frozen),
                           jax.tree.leaves(trainer.shapes.params), strict=True):
    assert frozen.sharding.is_equivalent_to(param.sharding, frozen.ndim)


def test_shapes_in_place_of_frozen_weights_compile(teacher):
  """A plan needs no teacher's weights, and counts their memory."""
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, teacher))
  run = _taught(tiny.unet_run(), shapes)
  trainer = run.trainer()
  batch = {'image': jax.ShapeDtypeStruct((8, 8, 8, 1), np.uint8),
           'label': jax.ShapeDtypeStruct((8,), np.int32)}
  lowered = trainer.step.lower(trainer.shapes, batch, run.step_key(), trainer.frozen)
  arguments = lowered.compile().memory_analysis().argument_size_in_bytes
  frozen = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
  state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainer.shapes))
  assert arguments >= frozen + state
