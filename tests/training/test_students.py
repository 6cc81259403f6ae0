"""What a student begins with, and how its output is read."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from adm_jax import config as config_lib
from adm_jax.errors import UsageError
from adm_jax.process import continuous, schedules
from adm_jax.process.diffusion import Diffusion, Eps, FixedSmall, TemperedEps, V, predict
from adm_jax.training import distillation, fine_tuning, student_recipes, tasks
from adm_jax.weights import folders, pretrained

SCHEDULE = schedules.cosine(num_steps=1000)
X, X0 = (jax.random.normal(jax.random.key(i), (4, 2, 2, 1)) for i in (0, 1))
T = jnp.asarray([0, 300, 900, 999])


def _read(mean, output):
  return predict(Diffusion(SCHEDULE, mean, FixedSmall()), output, X, T, clip=False)


def test_an_output_that_was_the_target_gives_the_image():
  at = continuous.at_step(SCHEDULE, T)
  eps = (X - at.alpha * X0) / at.sigma
  for mean in (TemperedEps(), TemperedEps(0.3), V()):
    target = mean.target(SCHEDULE, X0, X, T, eps)
    np.testing.assert_allclose(_read(mean, target).x0, X0, atol=2e-4)
    np.testing.assert_allclose(mean.v(target, X, at.alpha, at.sigma),
                               at.alpha * eps - at.sigma * X0, atol=2e-4)


def test_tempered_eps_is_eps_where_there_is_an_image_and_bounded_where_there_is_none():
  clear = slice(0, 2)
  np.testing.assert_allclose(_read(TemperedEps(), X0).x0[clear], _read(Eps(), X0).x0[clear],
                             rtol=0.02, atol=0.05)
  np.testing.assert_allclose(_read(TemperedEps(0.0), X0).x0[:3], _read(Eps(), X0).x0[:3], rtol=1e-4,
                             atol=1e-4)
  wrong = _read(TemperedEps(), X0 + 0.01).x0 - _read(TemperedEps(), X0).x0
  assert np.abs(wrong).max() < 0.11 and np.abs(
      _read(Eps(), X0 + 0.01).x0 - _read(Eps(), X0).x0).max() > 100


def _student(teacher):
  return config_lib.build(student_recipes.network(pretrained.network_config(teacher), (0.0, 4.0),
                                                  num_classes=5))


def _start(teacher, network):
  return fine_tuning.start(teacher, types.SimpleNamespace(
      task=tasks.Task(network, None, None), seed=0))


def test_a_student_begins_as_its_teacher_whatever_the_class_and_the_scale(tmp_path):
  teacher = tiny_models.unet(tmp_path / 'unet')
  student = _student(teacher)
  params, text = _start(teacher, student)
  assert 'conv_out' not in text and 'embedding/scale' in text
  trained = folders.load(teacher)
  x, t = jax.random.normal(jax.random.key(2), (3, 8, 8, 3)), jnp.asarray([10, 400, 900])
  wanted = trained.network.apply(trained.params, x, t)[..., :3]
  for y, scale in ((0, 0.0), (4, 3.0)):
    found = student.apply(params, x, t, jnp.full(3, y), scale=jnp.full(3, scale))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_second_stage_may_compute_in_another_way_than_the_first(tmp_path):
  teacher = str(tiny_models.student(tmp_path / 'guided', steps=None))
  student = dataclasses.replace(folders.load(teacher).network, steps=(2,))
  task = distillation.progressive(
      student.having(remat='full', attention_implementation='xla'), teacher)
  assert task.network.module.remat == 'full'
  with pytest.raises(UsageError, match='is another network than the student'):
    distillation.progressive(student.having(depth=2), teacher)


def test_a_student_that_is_to_go_on_with_eps_needs_a_teacher_of_it(tmp_path):
  teacher = tiny_models.unet(tmp_path / 'unet')
  student = _student(teacher)
  config = pretrained.network_config(teacher)
  config.diffusion.mean = config_lib.call(V)
  folders.save(tmp_path / 'v', config, folders.load(teacher).params)
  with pytest.raises(UsageError, match='does not predict eps'):
    _start(tmp_path / 'v', student)
  of_v = dataclasses.replace(student, diffusion=dataclasses.replace(student.diffusion, mean=V()))
  assert 'conv_out/kernel' in _start(tmp_path / 'v', of_v)[1]
