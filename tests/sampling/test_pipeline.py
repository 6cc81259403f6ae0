"""A model by path, sampled: labels, seeds and what goes together."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from adm_jax.errors import UsageError
from adm_jax.io.pixels import to_float
from adm_jax.process import schedules
from adm_jax.sampling import courses, initial_states, pipeline, solvers, spacings
from adm_jax.sampling.guidance import Bound, ByClassifier, ByWeakerModel, ClassifierFree
from adm_jax.sampling.sampler import image_keys, padded
from adm_jax.weights import folders

NUM = 7
LABELS = np.arange(NUM) % tiny_models.NUM_CLASSES


def close(a, b):
  """Equal but for rounding, which truncation to 8 bits shows as one level."""
  return (np.abs(a.astype(int) - b.astype(int)) <= 1).all()


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  root = tmp_path_factory.mktemp('models')
  return {'unet': tiny_models.unet(root / 'unet', tiny_models.NUM_CLASSES),
          'classifier': tiny_models.classifier(root / 'classifier'),
          'upsampler': tiny_models.upsampler(root / 'upsampler')}


@pytest.fixture(scope='module')
def adm(models):
  guidance = (ByClassifier(models['classifier'], 2.0),)
  return pipeline.load(models['unet'], guidance=guidance, steps='5')


@pytest.fixture(scope='module')
def images(adm):
  return adm(LABELS, seed=3)


def test_labels_in_images_out(adm, images):
  assert images.shape == (NUM, 8, 8, 3) and images.dtype == np.uint8 and images.std() > 1
  assert close(adm(LABELS, seed=3, batch_size=3), images)
  assert not close(adm(LABELS, seed=4), images)
  assert not close(adm((LABELS + 1) % tiny_models.NUM_CLASSES, seed=3), images)


def test_a_job_goes_on_where_it_stopped(adm, images):
  rest = np.concatenate(list(adm.batches(NUM, 3, LABELS, begin=4)))
  assert close(rest, images[4:])


def test_a_scale_may_be_one_a_step(models, images, adm):
  """And is described as the numbers that it is, from which a job knows that it is the same one."""
  def load(scale):
    return pipeline.load(models['unet'], guidance=(ByClassifier(models['classifier'], scale),),
                         steps=5)
  steady = load(np.full(5, 2.0))
  assert close(steady(LABELS, seed=3), images)
  falling = load(lambda sigma: np.linspace(0, 9, len(sigma)))
  assert not close(falling(LABELS, seed=3), images)
  def described(adm):
    return json.loads(json.dumps(adm.description))['guidance']['classifier']['scale']
  assert described(falling) == [0, 2.25, 4.5, 6.75, 9] and described(adm) == 2.0


def test_without_labels_they_are_drawn(adm):
  drawn = adm.labels(NUM, 5)
  assert close(adm(num=NUM, seed=5), adm(drawn, seed=5))
  np.testing.assert_array_equal(adm.labels(3, 5), drawn[:3])


def test_the_predictions_of_x0_end_in_the_images(adm, images):
  """At t = 0 the mean of p(x_{t-1} | x_t) is x_0."""
  course = list(adm.progressive(LABELS, seed=3, chunks=5))
  # The mean is moved by the gradient once more, the predicted x_0 is not clipped after it was.
  assert len(course) == 5 and not close(course[0], course[-1])
  unguided = dataclasses.replace(
      adm, sampler=dataclasses.replace(adm.sampler, denoiser=dataclasses.replace(
          adm.sampler.denoiser, guidance=())))
  assert close(list(unguided.progressive(LABELS, seed=3, chunks=5))[-1], unguided(LABELS, seed=3))


def test_an_upsampler_keeps_order_and_labels(models, images):
  up = pipeline.load(models['upsampler'], steps='3')
  large = up(LABELS, seed=3, low_res=images)
  assert large.shape == (NUM, 16, 16, 3)
  assert close(up(LABELS[:4], seed=3, low_res=images[:4], batch_size=2), large[:4])
  assert not close(up(LABELS, seed=3, low_res=images[::-1]), large)
  for kwargs, message in [({}, 'give low_res'), ({'low_res': large}, '16 x 16 x 3: give'),
                          ({'low_res': to_float(images)}, 'give uint8'),
                          ({'low_res': images[:2]}, '2 small images do not make')]:
    with pytest.raises(UsageError, match=message):
      up(LABELS, **kwargs)
    with pytest.raises(UsageError, match=message):
      next(up.progressive(LABELS, **kwargs))


@pytest.mark.parametrize('kwargs, message', [
    ({'labels': [1, 2], 'num': 3}, 'give one per image'), ({'num': -1}, 'from 1 to'),
    ({'num': 10 ** 12}, 'from 1 to'), ({'num': '3'}, 'give a whole number'),
    ({'labels': 3}, r"labels=3: give a label for each image, as \[3\]"),
    ({'labels': 'dog'}, 'the classes of this model have no names'),
    ({'labels': '4-5'}, 'class 4-5 is out of range'),
    ({'labels': [1.7]}, 'whole numbers'), ({'labels': [5]}, 'label 5 is out of range'),
    ({'seed': -1}, 'seed=-1: give'), ({'seed': 0.5}, 'seed=0.5: give')])
def test_a_mistake_in_a_call_is_one_line(adm, kwargs, message):
  with pytest.raises(UsageError, match=message):
    adm(**kwargs)
  with pytest.raises(UsageError, match=message):
    next(adm.progressive(**kwargs))


def test_images_that_are_not_finite_are_no_images(adm):
  broken = dataclasses.replace(adm, weights=jax.tree.map(lambda leaf: leaf * np.nan, adm.weights))
  with pytest.raises(UsageError, match='images 0 to 6 are not finite'):
    broken(LABELS)


def test_an_upsampler_draws_other_noise_than_the_model_before_it(models, adm):
  up = pipeline.load(models['upsampler'], steps='3')
  assert not np.allclose(initial_states.noise_of_seed(adm, 0).ravel()[:10],
                         initial_states.noise_of_seed(up, 0).ravel()[:10])


def test_what_does_not_go_together_is_refused(models, tmp_path):
  unet = models['unet']
  large = tiny_models.classifier(tmp_path / 'large', image_size=16)
  many = tiny_models.classifier(tmp_path / 'many', num_classes=9)
  for kwargs, message in [
      ({'guidance': (ByClassifier(large),)}, '16 x 16'),
      ({'guidance': (ByClassifier(many),)}, 'knows 9 classes'),
      ({'guidance': (ByClassifier(unet),)}, 'network that makes images'),
      ({'guidance': (ByWeakerModel(models['classifier']),)}, 'is a classifier'),
      ({'guidance': (ClassifierFree(2.0),)}, 'without label dropout'),
      ({'guidance': (ByClassifier(models['classifier'], float('nan')),)}, 'finite'),
      ({'guidance': (ByClassifier(models['classifier'], '2'),)}, 'give a number'),
      ({'steps': '2000'}, 'of the 1000 steps'), ({'fsdp': 3}, 'does not divide'),
      ({'steps': 0}, 'steps=0'), ({'steps': 3, 'spacing': 'karras'}, 'one by one'),
      ({'solver': 'dpm'}, 'dpm'), ({'solver': 'heun', 'spacing': 'even'}, 'even'),
      ({'weights': '0.9'}, 'one set of weights')]:
    with pytest.raises(UsageError, match=message):
      pipeline.load(unet, **kwargs)
  with pytest.raises(UsageError, match='is a classifier'):
    pipeline.load(models['classifier'])
  other = _with_schedule(folders.load(models['classifier']), lambda schedule: schedules.respace(
      schedule, '500'))
  with pytest.raises(UsageError, match='another noise schedule'):
    pipeline.load(unet, guidance=(ByClassifier(other),))


def _with_schedule(trained, change):
  """A network with another schedule."""
  diffusion = trained.network.diffusion
  diffusion = dataclasses.replace(diffusion, schedule=change(diffusion.schedule))
  return dataclasses.replace(trained, network=dataclasses.replace(
      trained.network, diffusion=diffusion))


def test_guided_predictions_are_clipped_again_but_by_the_references_solvers(models):
  def clips(model=models['unet'], classifier=models['classifier'], clip=None, steps='3', **kwargs):
    adm = pipeline.load(model, guidance=(ByClassifier(classifier, clip=clip),), steps=steps,
                        **kwargs)
    return adm.description['guidance']['classifier']['clip']
  assert not clips() and not clips(solver='ddim')
  # At the end of the cosine schedule the smallest gradient moves x_0 by thousands.
  cosine, guide = (_with_schedule(folders.load(models[name]), lambda _: schedules.cosine(
      num_steps=1000)) for name in ('unet', 'classifier'))
  for solver, steps, wanted in (('ddim', '25', True), ('ddim', 'ddim25', False),
                                ('ancestral', '25', False)):
    assert clips(cosine, guide, solver=solver, steps=steps) == wanted
  assert clips(solver=solvers.dpm_multistep()) and clips(solver='heun')
  assert clips(clip=True) and not clips(solver='unipc2', clip=False)


@pytest.fixture
def compilations():
  """A list that grows with every program that is compiled."""
  found = []

  def listen(event, seconds, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      found.append(event)
  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


def test_another_scale_label_seed_or_interval_compiles_nothing(models, compilations):
  """They are arrays to the compiled program, which makes the images of a pipeline loaded anew."""
  def value(scale, between):
    return (ByClassifier(models['classifier'], scale, between),)
  adm = pipeline.load(models['unet'], guidance=value(2.0, (0.5, 20.0)), steps='5')
  adm(LABELS, seed=3)
  del compilations[:]
  moved = adm.guided(scale=7.0, between=(0.1, 9.0))(LABELS[::-1], seed=4)
  assert close(adm(LABELS[::-1], seed=4, scale=7.0), adm.guided(scale=7.0)(LABELS[::-1], seed=4))
  adm.with_guidance(value(lambda sigma: sigma / 10, (0.5, 50.0)))(LABELS, seed=5)
  assert not compilations
  anew = pipeline.load(models['unet'], guidance=value(7.0, (0.1, 9.0)), steps='5')
  assert close(moved, anew(LABELS[::-1], seed=4))


def test_steps_that_were_asked_for_before_compile_nothing(adm, models, compilations):
  first = adm(LABELS, seed=3, steps=3, scale=4.0)
  del compilations[:]
  again = adm(LABELS, seed=3, steps=3, scale=4.0)
  adm(LABELS, seed=4, steps=3, scale=1.5)
  adm(LABELS, seed=3, steps=5)  # its own
  assert not compilations
  np.testing.assert_array_equal(first, again)
  guidance = (ByClassifier(models['classifier'], 4.0),)
  anew = pipeline.load(models['unet'], guidance=guidance, steps=3)
  assert close(first, anew(LABELS, seed=3))
  assert adm.guided(scale=4.0).with_steps(3).description == anew.description
  other = adm.with_steps(3, solver='ddim')
  assert other.description == pipeline.load(
      models['unet'], guidance=(ByClassifier(models['classifier'], 2.0),), steps=3, solver='ddim'
  ).description


def test_numbers_of_images_that_share_a_batch_compile_nothing(adm, compilations):
  five = adm([1, 2, 3, 4, 0], seed=3)
  del compilations[:]
  assert len(adm([1, 2, 3, 4, 0, 1], seed=4)) == 6 and len(list(adm.progressive([1] * 5))[-1]) == 5
  assert close(adm('1-4,0,1', seed=3)[:5], five)
  assert not compilations
  assert [padded(num) for num in (1, 2, 3, 4, 5, 9, 13, 17, 33, 100)] == [
      1, 2, 3, 4, 6, 12, 16, 20, 40, 112]
  assert all(num <= padded(num) <= 4 / 3 * num for num in range(1, 2000))


@pytest.mark.parametrize('batch_size', [0, -1, 2.5])
def test_a_batch_of_no_number_of_images_is_refused(adm, batch_size):
  with pytest.raises(UsageError, match=f'batch_size={batch_size}: give a whole number from 1'):
    adm(LABELS, batch_size=batch_size)


def test_the_room_for_a_batch_is_what_this_process_s_device_says(adm):
  """The first device of a mesh may be another process's, which does not say."""
  def device(process_index):
    def memory_stats():
      assert process_index == jax.process_index()
      return {'bytes_limit': 1000}
    return types.SimpleNamespace(platform='gpu', device_kind='GPU', process_index=process_index,
                                 memory_stats=memory_stats)
  mesh = types.SimpleNamespace(devices=np.array([device(1), device(0)]), size=2)
  shared = dataclasses.replace(adm, sampler=types.SimpleNamespace(shape=(8, 8, 3), mesh=mesh))
  with pytest.raises(UsageError, match='of each GPU, which has'):
    shared.check_batch_size(4, 4)


def test_another_scale_of_churned_noise_is_another_sampler(adm):
  course = courses.Course('', lambda schedule: spacings.churned(
      schedule, spacings.karras(schedule, 4), 1.0))
  one, other = (adm.with_steps(course, solver=solvers.churned(solvers.euler(), scale))
                for scale in (1.0, 3.0))
  assert one.sampler is not other.sampler
  assert one.sampler is one.with_steps(course).sampler
  assert [each.description['noise_scale'] for each in (one, other)] == [1.0, 3.0]


@pytest.mark.parametrize('kwargs, message', [
    ({'solver': 'dddim'}, 'did you mean ddim'), ({'solver': 3}, 'solver=3: give its name'),
    ({'solver': solvers.ddim}, 'what a function of adm_jax.solvers returns'),
    ({'spacing': 'karas', 'solver': 'heun'}, 'did you mean karras'),
    ({'spacing': 3, 'solver': 'heun'}, 'spacing=3: give its name'),
    ({'steps': 0}, 'steps=0: give'), ({'steps': 2.5}, 'steps=2.5: give'),
    ({'guidance': 2.0}, 'guidance 2.0: give values of adm_jax.guidance'),
    ({'guidance': ByClassifier}, 'give values of adm_jax.guidance')])
def test_a_mistake_in_loading_is_one_line(models, kwargs, message):
  with pytest.raises(UsageError, match=message) as caught:
    pipeline.load(models['unet'], **kwargs)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('scale', ['2', float('nan'), True, [1, 2]])
def test_a_scale_that_is_no_number_is_one_line(adm, scale):
  with pytest.raises(UsageError, match='a guidance scale of'):
    adm(LABELS, scale=scale)


@dataclasses.dataclass(frozen=True)
class Everywhere:
  """Guidance with a scale, and without an interval, as a student's."""
  scale: float = 1.0

  def bind(self, run, dtype, loaded=None):
    return Bound('everywhere', lambda conditional, context: conditional, (Everywhere,),
                 {'scale': self.scale})


def test_an_interval_is_of_the_guidance_that_has_one(models):
  def load(*guidance):
    return pipeline.load(models['unet'], guidance=guidance, steps='5')
  both = load(ByClassifier(models['classifier'], 2.0), Everywhere()).guided(between=(0.5, 20.0))
  assert both.guidance[0].between == (0.5, 20.0) and both.guidance[1] == Everywhere()
  with pytest.raises(UsageError, match='the guidance Everywhere has no between: leave it out'):
    load(Everywhere()).guided(between=(0.5, 20.0))


def test_other_guidance_is_another_pipeline(adm, models):
  with pytest.raises(UsageError, match='ClassifierFree'):
    adm.with_guidance((ClassifierFree(2.0),))
  with pytest.raises(UsageError, match='another program'):
    adm.with_guidance((ByClassifier(models['classifier'], normalize=True),))
  with pytest.raises(UsageError, match='0 kinds of guidance'):
    pipeline.load(models['unet'], steps='5')(LABELS, scale=2.0)


# ---------------------------------------------------------------------------------------------
# Starts.


@pytest.fixture(scope='module')
def zero(models):
  """A network that predicts eps = 0, as it does before training: its DDIM has a closed form."""
  trained = folders.load(models['unet'])
  params = jax.tree.map(np.zeros_like, trained.params)
  return pipeline.load(dataclasses.replace(trained, params=params), steps='5', solver='ddim')


def test_codes_decode_to_the_images(zero, images):
  """With eps = 0, x_t = sqrt(alpha_bar_t) x_0 from end to end."""
  images = images // 2 + 60  # away from -1 and 1, where predictions are clipped
  first, last = zero.diffusion.schedule.alpha_bar[[0, -1]]
  codes = initial_states.codes(zero, images, LABELS)
  np.testing.assert_allclose(codes, np.sqrt(last / first) * to_float(images), atol=1e-5)
  encoded = initial_states.encoded(zero, images, LABELS)
  again = np.concatenate(list(zero.batches(NUM, 0, LABELS, x=encoded)))
  # The first step of the process is undone, but was never taken (ADM paper, appendix F).
  wanted = np.asarray(to_float(images)) / np.sqrt(first)
  np.testing.assert_allclose(again, (wanted + 1) * 127.5, atol=1.01)


def test_codes_lie_where_decoding_starts(zero, images):
  """Below the noisiest step, for a run that starts in the middle."""
  def predict_nothing(params, x, time, labels, **kwargs):
    return jnp.zeros((*x.shape[:-1], 6))
  network = types.SimpleNamespace(apply=predict_nothing, num_classes=tiny_models.NUM_CLASSES)
  adm = dataclasses.replace(zero, sampler=dataclasses.replace(
      zero.sampler, denoiser=dataclasses.replace(zero.sampler.denoiser, network=network),
      steps=initial_states.from_step(500)(zero.diffusion.schedule)))
  images = images // 2 + 60
  first, last = zero.diffusion.schedule.alpha_bar[[0, 2]]
  np.testing.assert_allclose(initial_states.codes(adm, images, LABELS),
                             np.sqrt(last / first) * to_float(images), atol=1e-5)


def test_noised_images_have_the_moments_of_q(zero, models):
  adm = dataclasses.replace(zero, sampler=dataclasses.replace(
      zero.sampler, steps=initial_states.from_step(500)(zero.diffusion.schedule)))
  assert int(adm.sampler.steps.t[0]) == 2  # of steps 0, 250, 500, 749, 999
  images = np.full((64, 8, 8, 3), 255, np.uint8)
  x = np.asarray(initial_states.noised(adm, images, seed=1)(np.arange(64)))
  alpha_bar = zero.diffusion.schedule.alpha_bar[2]
  np.testing.assert_allclose(x.mean(), np.sqrt(alpha_bar), atol=0.04)
  np.testing.assert_allclose(x.std(), np.sqrt(1 - alpha_bar), rtol=0.02)
  np.testing.assert_allclose(initial_states.noised(adm, images, seed=1)(np.arange(9, 12)), x[9:12],
                             atol=1e-6)


def test_a_start_in_the_middle_of_a_spacing_takes_the_steps_that_are_left():
  steps = initial_states.from_step(500, lambda schedule: spacings.by_time(schedule, 11))(
      schedules.linear(num_steps=1000))
  np.testing.assert_array_equal(steps.t, [500, 400, 300, 200, 100, 0])
  assert steps.sigma_next[-1] == 0 and steps.left[0] == 5


@pytest.mark.parametrize('t, message', [(1000, '0 to 999'), (-1, '0 to 999')])
def test_a_step_that_is_not_there_is_refused(zero, t, message):
  with pytest.raises(UsageError, match=message):
    initial_states.from_step(t)(zero.diffusion.schedule)


def test_the_way_between_two_noises_keeps_their_norm_and_ends_at_them():
  a, b = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
  b *= np.linalg.norm(a) / np.linalg.norm(b)
  way = np.asarray(initial_states.between(a, b, 9)(np.arange(9)))
  np.testing.assert_allclose(way[0], a, atol=1e-5)
  np.testing.assert_allclose(way[-1], b, atol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(way.reshape(9, -1), axis=1), np.linalg.norm(a),
                             rtol=1e-5)
  steps = np.linalg.norm(np.diff(way.reshape(9, -1), axis=0), axis=1)
  np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_the_way_between_a_noise_and_itself_stays_there():
  a = np.random.default_rng(0).standard_normal((4, 4, 1)).astype(np.float32)
  middle = initial_states.between(a, 2 * a, 3)(np.arange(3))[1]
  np.testing.assert_allclose(middle, 1.5 * a, rtol=1e-4)


def test_in_16_bits_weights_are_rounded_once_and_no_image_changes(models, monkeypatch):
  """Of the networks and of what guides them; embeddings, norms and heads keep their 32 bits."""
  def load():
    return pipeline.load(models['unet'], guidance=(ByClassifier(models['classifier'], 2.0),),
                         steps='3', dtype='bfloat16')
  adm = load()
  kinds = {jax.tree_util.keystr(path, simple=True, separator='/'): str(leaf.dtype)
           for path, leaf in jax.tree_util.tree_leaves_with_path(adm.weights)}
  assert {name for name, kind in kinds.items() if kind == 'float32'} == {
      name for name in kinds
      if any(part in name for part in ('embed', 'norm', 'model/conv_out', 'pool'))}
  assert set(kinds.values()) == {'float32', 'bfloat16'}
  monkeypatch.setattr(pipeline, '_read_dtypes', lambda denoiser, weights, dtype: jax.tree.map(
      lambda leaf: np.dtype(leaf.dtype), weights))
  wide = load()
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(wide.weights))
  def sampled(adm):
    return adm.sampler(adm.params, image_keys(adm.key(3), np.arange(NUM)), LABELS)
  np.testing.assert_array_equal(sampled(adm), sampled(wide))


def test_in_float32_weights_stay_as_they_are(adm):
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(adm.weights))
