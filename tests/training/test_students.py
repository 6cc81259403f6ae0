"""What a student begins with, and how its output is read."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from stand_ins import StandIn

from adm_jax import config as config_lib
from adm_jax.config import call
from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_float
from adm_jax.process import continuous, schedules
from adm_jax.process import distillation as process
from adm_jax.process.diffusion import X0, Diffusion, Eps, FixedSmall, TemperedEps, V, predict
from adm_jax.sampling.sampler import normal_each
from adm_jax.training import distillation, fine_tuning, student_recipes, tasks
from adm_jax.weights import folders, pretrained

SCHEDULE = schedules.cosine(num_steps=1000)
X, CLEAN = (jax.random.normal(jax.random.key(i), (4, 2, 2, 1)) for i in (0, 1))
T = jnp.asarray([0, 300, 900, 999])


def _read(mean, output):
  return predict(Diffusion(SCHEDULE, mean, FixedSmall()), output, X, T, clip=False)


def test_an_output_that_was_the_target_gives_the_image():
  at = continuous.at_step(SCHEDULE, T)
  eps = (X - at.alpha * CLEAN) / at.sigma
  for mean in (TemperedEps(), TemperedEps(0.3), V()):
    target = mean.target(SCHEDULE, CLEAN, X, T, eps)
    np.testing.assert_allclose(_read(mean, target).x0, CLEAN, atol=2e-4)
    np.testing.assert_allclose(mean.v(target, X, at.alpha, at.sigma),
                               at.alpha * eps - at.sigma * CLEAN, atol=2e-4)


def test_tempered_eps_is_eps_where_there_is_an_image_and_bounded_where_there_is_none():
  clear = slice(0, 2)
  np.testing.assert_allclose(_read(TemperedEps(), CLEAN).x0[clear], _read(Eps(), CLEAN).x0[clear],
                             rtol=0.02, atol=0.05)
  np.testing.assert_allclose(_read(TemperedEps(0.0), CLEAN).x0[:3], _read(Eps(), CLEAN).x0[:3],
                             rtol=1e-4, atol=1e-4)
  wrong = _read(TemperedEps(), CLEAN + 0.01).x0 - _read(TemperedEps(), CLEAN).x0
  assert np.abs(wrong).max() < 0.11 and np.abs(
      _read(Eps(), CLEAN + 0.01).x0 - _read(Eps(), CLEAN).x0).max() > 100


def _student(teacher):
  return config_lib.build(student_recipes.network(pretrained.network_config(teacher), (0.0, 4.0),
                                                  num_classes=5))


def _start(teacher, network):
  return fine_tuning.start(teacher, types.SimpleNamespace(
      task=tasks.Task(network, None, None), seed=0))


def _teacher_that_predicts(mean, path):
  teacher = tiny_models.unet(path / 'eps')
  config = pretrained.network_config(teacher)
  config.diffusion.mean = mean
  folders.save(path / 'teacher', config, folders.load(teacher).params)
  return path / 'teacher'


@pytest.mark.parametrize('mean', [call(Eps), call(TemperedEps, floor=0.3), call(V)], ids=str)
def test_a_student_begins_as_its_teacher_whatever_the_class_and_the_scale(tmp_path, mean):
  teacher = _teacher_that_predicts(mean, tmp_path)
  student = _student(teacher)
  assert student.diffusion.mean == (TemperedEps() if mean.fn is Eps else config_lib.build(mean))
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


def test_a_student_that_predicts_something_else_than_its_teacher(tmp_path):
  """Learns it anew if it is v; eps, of which it would begin, needs a teacher of eps."""
  teacher = _teacher_that_predicts(call(X0), tmp_path)
  student = _student(teacher)
  assert student.diffusion.mean == V()
  assert 'conv_out/kernel' in _start(teacher, student)[1]
  of_eps = dataclasses.replace(student, diffusion=dataclasses.replace(student.diffusion,
                                                                      mean=TemperedEps()))
  with pytest.raises(UsageError, match='does not predict eps'):
    _start(teacher, of_eps)


def _batch(seed=0):
  """What a task learns on: four images, at times all over the process."""
  pixels = np.random.default_rng(seed).integers(0, 256, (4, 8, 8, 3), np.uint8)
  return {'image': pixels, 't': jnp.asarray([5, 300, 600, 990]), 'label': jnp.arange(4),
          'key': jax.random.split(jax.random.key(seed), 4), 'step': jnp.zeros(4)}


def _noised(examples, here):
  """z at a noise level, from the noise that the examples' keys draw."""
  return here.alpha * to_float(examples['image']) + here.sigma * normal_each(examples['key'],
                                                                             (8, 8, 3))


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """A folder with a teacher, all that may guide it, and a student of stage 1."""
  folder = tmp_path_factory.mktemp('models')
  tiny_models.unet(folder / 'unet', 5, with_null_label=True)
  tiny_models.unet(folder / 'weaker', 5, seed=4)
  tiny_models.classifier(folder / 'classifier')
  tiny_models.student(folder / 'student', steps=None)
  return folder


@pytest.mark.parametrize('guide', ['itself', 'weaker', 'classifier'])
def test_stage_1_teaches_the_guided_x_0_at_the_scale_that_the_student_is_told(models, guide):
  """By the formulas of each guidance, written out: who knows them misses nothing."""
  teacher, other = (folders.load(models / name) for name in (
      'unet', 'unet' if guide == 'itself' else guide))
  student = _student(str(models / 'unet'))
  examples = _batch()
  t, y = examples['t'], examples['label']
  here = continuous.at_step(student.diffusion.schedule, t)

  def eps_of(trained, z, labels):
    return trained.network.apply(trained.params, z, t, labels)[..., :3]

  def guided_eps(z, scale):
    eps = eps_of(teacher, z, y)
    if guide == 'classifier':
      def log_p(z):
        logits = other.network.apply(other.params, z, t)
        return jax.nn.log_softmax(logits)[jnp.arange(4), y].sum()
      eps = (z - here.alpha * jnp.clip((z - here.sigma * eps) / here.alpha, -1, 1)) / here.sigma
      return eps - scale * here.sigma * jax.grad(log_p)(z)
    away = eps_of(other, z, y if guide == 'weaker' else jnp.full(4, teacher.network.null_label))
    return away + scale * (eps - away)

  def apply(more, z, time, y, scale, dropout_keys):
    """A student that answers with the teacher's x_0 at its scale and `more`."""
    eps = guided_eps(z, scale[:, None, None, None] + more)
    x0 = jnp.clip((z - here.sigma * eps) / here.alpha, -1, 1)
    eps = (z - here.alpha * x0) / here.sigma
    return student.diffusion.mean.target(student.diffusion.schedule, x0, z, t, eps)
  given = {} if guide == 'itself' else {guide: str(models / guide)}
  task = distillation.guided(StandIn(student, apply), str(models / 'unet'), **given)
  loss = jax.jit(lambda more, frozen: task.terms(more, frozen, examples, None)['loss'])
  none, missed = (np.asarray(loss(more, task.load_frozen())) for more in (0.0, 1.0))
  assert (none < 1e-2 * missed).all() and none.max() < 1e-6


def _who_sees_one_value(network):
  """A student whose parameters are the x_0 that it always predicts."""
  schedule = network.diffusion.schedule

  def apply(params, z, time, y, scale, dropout_keys=None):
    here = continuous.level(schedule, (time + 1) / schedule.num_steps)
    return (here.alpha * z - params) / here.sigma  # v, where x_0 is params
  return StandIn(network, apply)


@pytest.mark.parametrize('stage', ['consistency', 'progressive'])
def test_stage_2_teaches_the_way_of_the_teachers_step_and_then_the_students(models, stage):
  """For a teacher that always sees b and a student that sees a, between them: in closed form."""
  network = dataclasses.replace(folders.load(models / 'student').network, steps=(2,))
  schedule, examples, a, b = network.diffusion.schedule, _batch(), 0.4, -0.3
  student, teacher = _who_sees_one_value(network), str(models / 'student')
  fraction = distillation._fraction(network, examples)
  if stage == 'consistency':
    task = distillation.consistency(student, teacher, anneal_steps=10, power=0.5)
    at = process.place(fraction, 2, jnp.asarray(32.0))  # 64 steps at first, in 2 segments
  else:
    task, at = distillation.progressive(student, teacher), process.two_steps(fraction, 2)
  here, there, end = (continuous.level(schedule, u) for u in (at.here, at.next, at.end))
  z = _noised(examples, here)
  z_next = process.ddim(b, z, here, there)
  onwards = process.ddim(a if stage == 'consistency' else b, z_next, there, end)
  has_way_to_go = (at.next > at.end)[:, None, None, None]
  assert has_way_to_go.sum() >= 3
  wanted = process.inverse_ddim(jnp.where(has_way_to_go, onwards, z_next), z, here, end)
  expected = (process.consistency_loss(a, wanted, here, 0.5) if stage == 'consistency' else
              process.truncated_loss(a, wanted, here))
  loss = task.terms(jnp.asarray(a), jnp.asarray(b), examples, None)['loss']
  np.testing.assert_allclose(loss, expected, rtol=1e-3, atol=1e-6)
  if stage == 'progressive':  # a teacher of one mind is followed to its end
    np.testing.assert_allclose(wanted, b, atol=2e-3)
  else:  # what the student's own way adds, which is all where it ends in clean data
    between = wanted[(at.next > at.end) & (at.end > 0)]
    assert between.size and (between > b + 0.1).all() and (between < a - 1e-3).all()
    np.testing.assert_allclose(wanted[(at.next > at.end) & (at.end == 0)], a, atol=1e-5)
