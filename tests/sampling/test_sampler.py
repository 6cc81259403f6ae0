"""Sampling runs: an image is a function of its index, and a run is one scan compiled once."""

import re

import golden_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_networks import rule_params

from adm_jax import networks
from adm_jax.errors import UsageError
from adm_jax.models import Classifier, UNet
from adm_jax.process import schedules
from adm_jax.process.diffusion import Diffusion, Eps, FixedSmall, denoiser
from adm_jax.sampling import sampler as sampling
from adm_jax.sampling import solvers
from adm_jax.sampling.guidance import ByClassifier, Run
from adm_jax.sampling.sampler import (
  GuidedNetwork,
  Sampler,
  check_labels,
  divide,
  image_keys,
  initial_noise,
  noise_from_keys,
  sample,
  sample_job,
)
from adm_jax.sampling.steps import descend
from adm_jax.weights.folders import Trained

SHAPE = (8, 8, 3)
NUM_CLASSES = 5
STEPS = 6
SOLVERS = {'ancestral': solvers.ancestral(), 'ddim': solvers.ddim(), 'ddim_1': solvers.ddim(1.0)}


def guided_model():
  """(params, (params, labels) -> denoiser): a small U-Net guided by a small classifier."""
  size = dict(channels=32, channel_mult=(1, 2), depth=1, attention_resolutions=(4,))
  unet = UNet(8, 6, num_classes=NUM_CLASSES, num_heads=2, **size)
  classifier = Classifier(8, NUM_CLASSES, head_channels=32, **size)
  process = Diffusion(schedule())
  trained = Trained(networks.unet(unet, process), rule_params(unet, seed=1))
  guide = Trained(networks.classifier(classifier, process), rule_params(classifier, seed=2))
  run = Run(None, trained, None, schedule(), descend(schedule()), solvers.ddim())
  bound = ByClassifier(guide, 0.5, clip=False).bind(run, None)
  params = {'model': trained.params, 'classifier': guide.params,
            'scales': {'classifier': bound.scales}}
  return params, GuidedNetwork(trained.network, process, (bound,))


key = jax.random.key


def schedule():
  return schedules.respace(schedules.linear(num_steps=1000), str(STEPS))


@pytest.fixture(scope='module')
def model():
  """The guided model and a sampler, whose compiled programs the tests of this module share."""
  params, denoise = guided_model()
  return params, Sampler(denoise, solvers.ddim(0.7), descend(schedule()), SHAPE)


def toy_sampler(solver=solvers.ddim(), **kwargs):
  """A sampler whose network is a formula and reads the label as a shift."""
  diffusion = Diffusion(schedule(), Eps(), FixedSmall())
  toy = golden_process.toy(diffusion)

  def denoise(params, labels):
    shift = 0 if labels is None else labels[:, None, None, None].astype(jnp.float32)
    return denoiser(diffusion, lambda x, t: params * toy(x, t) + 0.1 * shift)
  return Sampler(denoise, solver, descend(schedule()), (2, 2, 3), **kwargs)


# ---------------------------------------------------------------------------------------------
# Image i depends on (seed, i) alone.


@pytest.fixture(scope='module')
def images(model):
  """The 64 images of a job, in one batch."""
  params, sampler = model
  labels = np.arange(64) % NUM_CLASSES
  job = sample_job(sampler, params, key=key(3), num=64, batch_size=64, labels=labels)
  return np.concatenate(list(job)), labels


def test_an_image_alone_is_the_same_image(model, images):
  """Made in a batch of one, of 64, float rounding apart."""
  params, sampler = model
  for i in (0, 13):
    keys = image_keys(jax.random.key(3), jnp.array([i]))
    alone = sampler(params, keys, images[1][i:i + 1])
    np.testing.assert_allclose(alone[0], images[0][i], atol=2e-4)


def test_batches_of_7_and_of_64_make_the_same_images(model, images):
  """The last batch of 7 is padded, and the padding neither shows nor changes anything."""
  params, sampler = model
  batches = list(sample_job(sampler, params, key=key(3), num=17, batch_size=7,
                            labels=images[1][:17]))
  assert [len(batch) for batch in batches] == [7, 7, 3]
  np.testing.assert_allclose(np.concatenate(batches), images[0][:17], atol=2e-4)


def test_another_seed_index_or_label_is_another_image(model, images):
  """Nothing that names an image is ignored."""
  params, sampler = model
  labels = images[1][:7]
  seed = np.concatenate(list(sample_job(sampler, params, key=key(4), num=7, batch_size=7,
                                        labels=labels)))
  label = np.concatenate(list(sample_job(sampler, params, key=key(3), num=7, batch_size=7,
                                         labels=(labels + 1) % NUM_CLASSES)))
  for other in (seed, label, images[0][7:14]):
    assert (np.abs(other - images[0][:7]).max(axis=(1, 2, 3)) > 1e-2).all()


def test_noise_is_independent_between_images_steps_and_the_start():
  """The first two moments across all of them: unit variance, no correlation."""
  keys = image_keys(jax.random.key(0), jnp.arange(3))
  shape, noise = (64, 64, 1), noise_from_keys(keys, (64, 64, 1))
  draws = jnp.stack([initial_noise(keys, shape), *(noise(index) for index in range(3))])
  draws = np.asarray(draws).reshape(12, -1)
  # Of 4,096 values a correlation has standard deviation 1/64; of all 66 of them 0.08 is beyond.
  np.testing.assert_allclose(draws @ draws.T / draws.shape[1], np.eye(12), atol=0.08)


# ---------------------------------------------------------------------------------------------
# One scan, compiled once.


def scans(jaxpr, length):
  """The number of `scan`s of a length in a jaxpr and all that it calls."""
  count = 0
  for equation in jaxpr.eqns:
    count += equation.primitive.name == 'scan' and equation.params['length'] == length
    for inner in jax.tree.leaves(list(equation.params.values()),
                                 is_leaf=lambda value: hasattr(value, 'eqns')):
      if hasattr(inner, 'eqns'):
        count += scans(inner, length)
  return count


@pytest.mark.parametrize('solver', SOLVERS.values(), ids=SOLVERS)
def test_a_guided_run_is_one_scan(solver):
  """The jaxpr of a whole run, classifier gradient included, has one scan over the steps."""
  params, denoise = guided_model()
  respaced = schedules.respace(schedules.linear(num_steps=1000), '37')
  sampler = Sampler(denoise, solver, descend(respaced), SHAPE)
  keys = image_keys(jax.random.key(0), jnp.arange(2))
  x = initial_noise(keys, SHAPE)
  carry = (x, sampling.remembering_x0(solver).init(x))
  jaxpr = jax.make_jaxpr(sampler.advance)(params, carry, sampler.steps, keys, jnp.array([0, 1]))
  assert scans(jaxpr.jaxpr, length=37) == 1


@pytest.mark.parametrize('chunks', [1, 3])
def test_a_job_of_many_batches_is_compiled_once(chunks):
  """The model is traced for the first part of the first batch, and never again: not for the padded
  last batch, nor with other weights."""
  sampler, traces = toy_sampler(), []

  def denoise(params, labels):
    traces.append(labels)
    return toy_sampler().denoiser(params, labels)

  sampler = Sampler(denoise, sampler.solver, sampler.steps, sampler.shape)

  def job(params, num):
    return list(sample_job(sampler, params, key=key(0), num=num, batch_size=4,
                           labels=np.zeros(num, np.int32), chunks=chunks))

  job(1.0, 4)
  assert len(traces) == 1
  assert [len(batch) for batch in job(0.5, 11)] == [4, 4, 3]
  assert len(traces) == 1


@pytest.mark.parametrize('name', ['ancestral', 'ddim_1'])
@pytest.mark.parametrize('chunks', [2, 4, 100])
def test_chunks_of_a_run_make_the_whole(name, chunks):
  """A progress bar does not change an image."""
  solver = SOLVERS[name]
  sampler, keys = toy_sampler(solver), image_keys(jax.random.key(0), jnp.arange(3))
  done = []
  got = sampler(1.0, keys, chunks=chunks, progress=done.append)
  np.testing.assert_allclose(got, sampler(1.0, keys), atol=1e-6)
  assert sum(done) == STEPS and len(done) == divide(STEPS, chunks) <= chunks


def test_a_run_is_sample_with_each_image_s_noise():
  """`Sampler` adds keys and compilation to `sample`, nothing else."""
  sampler, keys = toy_sampler(solvers.ancestral()), image_keys(jax.random.key(0), jnp.arange(3))
  want, _ = sample(sampler.solver, sampler.denoiser(1.0, None), sampler.steps,
                   initial_noise(keys, (2, 2, 3)), noise_from_keys(keys, (2, 2, 3)))
  np.testing.assert_allclose(sampler(1.0, keys), want, atol=1e-6)


def test_progressive_yields_the_predicted_x0_on_the_way():
  """After each part x and the x_0 of its last step; the last x is the image, and its x_0."""
  sampler, keys = toy_sampler(), image_keys(jax.random.key(0), jnp.arange(3))
  noise = noise_from_keys(keys, (2, 2, 3))
  start = initial_noise(keys, (2, 2, 3))
  _, x0 = sample(sampler.solver, sampler.denoiser(1.0, None), sampler.steps, start, noise,
                 keep=lambda prediction: prediction.x0)
  shown = list(sampler.progressive(1.0, keys, chunks=3))
  assert len(shown) == 3
  for (_, got), want in zip(shown, x0[1::2]):
    np.testing.assert_allclose(got, want, atol=1e-6)
  x, last = shown[-1]
  np.testing.assert_allclose(x, sampler(1.0, keys), atol=1e-6)
  np.testing.assert_allclose(x, last, atol=1e-6)
  # Nothing that was handed out is overwritten by the chunks that follow.
  assert all(np.isfinite(x).all() for x, _ in shown)


def test_a_run_may_start_from_given_images():
  """`x` takes the place of the initial noise, and is still there afterwards."""
  sampler, keys = toy_sampler(), image_keys(jax.random.key(0), jnp.arange(3))
  start = initial_noise(keys, (2, 2, 3))
  other = image_keys(jax.random.key(1), jnp.arange(3))
  np.testing.assert_allclose(sampler(1.0, other, x=start), sampler(1.0, keys), atol=1e-6)
  assert np.isfinite(start).all()
  batches = list(sample_job(sampler, 1.0, key=key(0), num=3, batch_size=2,
                            x=lambda index: start[index]))
  np.testing.assert_allclose(np.concatenate(batches), sampler(1.0, keys), atol=1e-6)


def test_a_part_of_a_job_asks_for_nothing_beyond_its_end():
  """What comes after may not be there yet; the images are those of the whole job, to the bit."""
  start = initial_noise(image_keys(jax.random.key(0), jnp.arange(11)), (2, 2, 3))
  asked = []
  def x(index):
    asked.extend(index)
    return start[index]
  def job(**part):
    return np.concatenate(list(sample_job(toy_sampler(solvers.ancestral()), 1.0, key=key(0), num=11,
                                          batch_size=4, x=x, **part)))
  part = job(begin=1, end=7)
  assert set(asked) == set(range(1, 7))
  np.testing.assert_array_equal(part, job()[1:7])


def test_a_job_reports_every_step_of_every_image_once():
  """Padding is no progress."""
  done = []
  list(sample_job(toy_sampler(), 1.0, key=key(0), num=11, batch_size=4, chunks=3,
                  progress=done.append))
  assert sum(done) == 11 * STEPS


# ---------------------------------------------------------------------------------------------
# Labels.


@pytest.mark.parametrize('labels, words', [
    ([0, 5, 1], 'label 5 is out of range.*5 classes, 0 to 4'), ([0, -1, 1], 'label -1'),
    ([0, 1], r'labels of shape \(2,\) for 3 images'), (1, r'shape \(\) for 3'),
    (None, 'give a label for each image')])
def test_wrong_labels_are_refused_before_anything_runs(model, labels, words):
  """In one line; beyond a classifier's end JAX would quietly not guide at all."""
  params, sampler = model
  job = sample_job(sampler, params, key=key(0), num=3, batch_size=2, labels=labels)
  direct = sampler.progressive(params, image_keys(jax.random.key(0), jnp.arange(3)), labels)
  for run in (job, direct):
    with pytest.raises(UsageError, match=words) as error:
      next(run)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('kwargs', [{'num': 0}, {'batch_size': 0}, {'chunks': 0}])
def test_a_job_of_nothing_is_refused(kwargs):
  with pytest.raises(UsageError, match='at least 1'):
    next(sample_job(toy_sampler(), 1.0, **{'key': key(0), 'num': 3, 'batch_size': 2, **kwargs}))


def test_a_negative_label_is_refused_where_classes_are_not_known():
  """And its message does not speak of classes that nobody gave."""
  with pytest.raises(UsageError, match='label -1') as error:
    check_labels(np.array([-1]), 1, None)
  assert not re.search('None', str(error.value))


@pytest.mark.parametrize('num_steps, most, chunks', [
    (250, 10, 10), (250, 7, 5), (7, 3, 1), (7, 100, 7), (1, 1, 1)])
def test_chunks_are_equal(num_steps, most, chunks):
  assert divide(num_steps, most) == chunks


# ---------------------------------------------------------------------------------------------
# Other devices than this machine has.


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_the_guided_run_lowers_for_devices_that_are_not_here(model, platform):
  """The whole run is one program of StableHLO whose weights are arguments."""
  params, sampler = model
  keys = image_keys(jax.random.key(0), np.arange(2))
  x = initial_noise(keys, SHAPE)
  carry = (x, sampling.remembering_x0(sampler.solver).init(x))
  exported = jax.export.export(jax.jit(sampler.advance), platforms=[platform])(
      *jax.eval_shape(lambda *given: given, params, carry, sampler.steps, keys, np.zeros(2, int)))
  assert exported.platforms == (platform,)
  assert [leaf.shape for leaf in jax.tree.leaves(exported.out_avals)] == [
      leaf.shape for leaf in jax.tree.leaves(carry)]
  # Weights inside the program would be megabytes.
  assert len(exported.mlir_module()) < 10**6
