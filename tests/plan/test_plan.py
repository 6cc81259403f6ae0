"""What a run needs, from compiling its step."""

import dataclasses
import functools
import os

import jax
import numpy as np
import pytest
import tiny
import tiny_models

from adm_jax import config as config_lib
from adm_jax.devices.chips import GIB
from adm_jax.errors import UsageError
from adm_jax.plan import needs as plan
from adm_jax.plan import programs, report
from adm_jax.training import distillation, student_recipes
from adm_jax.training.flops import of_step
from adm_jax.weights import pretrained

NEEDS = plan.Needs(
    device_kind='TPU v5 lite', num_devices=8, fsdp=1, batch_size=64, evaluations=None,
    parameters=10**9, flops=8 * 197e12,
    state=8 * GIB, batch=2**20, activations=4 * GIB, total=12 * GIB,
    memory=16 * GIB, peak=197e12, compile_seconds=1.0)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture
def needs(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  return plan.measure(plan.training(tiny.get_config()), plan.Target(devices=8))


def test_the_step_of_a_tiny_network_is_compiled_for_8_devices(needs):
  run = tiny.unet_run()
  assert needs.num_devices == 8 and needs.device_kind == 'cpu' and needs.memory is None
  assert needs.flops == of_step(run.task, run.batch_size)
  # Parameters, Adam's two moments, two averages, and a few counters.
  assert 0 < needs.state - 5 * 4 * needs.parameters < 100
  assert needs.batch == 8 * 8 + 4  # an image and a label a device
  assert needs.activations > 0 and needs.total > needs.state + needs.activations


def test_the_answer_is_kept(needs, cache, monkeypatch):
  monkeypatch.setattr(plan.subprocess, 'run', None)
  assert plan.measure(plan.training(tiny.get_config()), plan.Target(devices=8)) == needs


def test_the_data_do_not_matter(needs, cache, monkeypatch):
  """A function of the user's own could not be found in another process."""
  monkeypatch.setattr(plan.subprocess, 'run', None)
  config = tiny.get_config()
  config.data = config_lib.call(lambda: None)
  assert plan.measure(plan.training(config), plan.Target(devices=8)) == needs


def test_devices_stand_for_others(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  target = plan.Target(devices=1, device_kind='NVIDIA L4')
  l4 = plan.measure(plan.training(tiny.get_config()), target)
  assert l4.fits and l4.memory == 24 * GIB
  assert 'steps at 40%' in report.hours(l4, 0.4, 100)


def _second_stage(stage):
  teacher = tiny.get_config().task.network
  return student_recipes.of_stage(
      stage, student_recipes.network(teacher, (0.0, 4.0), num_classes=10), tiny.get_config().data,
      'unet', 2, total_steps={stage: 4}, learning_rate={stage: 1e-3}, batch_size=8)


@pytest.mark.parametrize('stage, teacher', [('few', 'runs/guided'), ('halved', 'runs/student_4')])
def test_a_second_stage_is_planned_before_the_first_is_trained(stage, teacher, tmp_path,
                                                               monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = _second_stage(stage)
  assert plan.untrained_teacher(config) == teacher
  program = programs._training_program(plan.training(config), jax.devices()[:1])
  state, frozen = program.state
  shapes = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
  assert shapes(frozen) == shapes(state.params)
  (tmp_path / teacher).mkdir(parents=True)
  assert plan.untrained_teacher(config) is None
  config.task.teacher = 'fashion-student'
  assert plan.untrained_teacher(config) is None
  assert plan.untrained_teacher(tiny.get_config()) is None


@pytest.mark.parametrize('name', ['teacher', 'classifier', 'weaker'])
def test_a_distillation_is_planned_anew_for_other_networks_to_learn_from(name, tmp_path):
  """Whatever lies where they are named, which is all that the config says of them."""
  config, place = tiny.get_config(), tmp_path / 'model'
  names = {'teacher': 'unet', name: str(place)}
  config.task = config_lib.call(distillation.guided, network=config.task.network, **names)
  def fingerprint():
    return plan._fingerprint(plan.training(config), plan.Target(devices=1))
  found = [fingerprint()]
  place.mkdir()
  for seconds in (1, 1, 2):
    os.utime(place, (seconds, seconds))
    found.append(fingerprint())
  assert found[1] == found[2] and len(set(found)) == 3


def test_what_the_devices_cannot_share_is_one_line(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  with pytest.raises(UsageError, match='batch_size=8 cannot be shared by 3 devices') as error:
    plan.measure(plan.training(tiny.get_config()), plan.Target(devices=3))
  assert '\n' not in str(error.value)


def test_hours_follow_from_the_share_of_the_peak():
  """A step of 197 TFLOP a device takes 2 seconds at half the peak of 197 TFLOP/s."""
  assert '2 s per step, 2.0 hours' in report.hours(NEEDS, 0.5, total_steps=3600)
  assert 'it fits' in report.lines(NEEDS)[-1]


def test_images_a_second_follow_likewise():
  needs = dataclasses.replace(NEEDS, evaluations=250, run='Sampling')
  assert '2 s per batch, 32 images/s' in report.hours(needs, 0.5)
  assert '250 evaluations' in '\n'.join(report.lines(needs))


class _Refused:
  """A lowered program that a compiler for TPUs finds too large."""

  def compile(self):
    raise jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
        'temporaries (44.85G) exceeds available HBM (15.75G).')


def test_a_program_that_a_compiler_refuses_does_not_fit(monkeypatch):
  program = programs._Program(_Refused(), {}, {}, {}, flops=1e12, batch_size=8, fsdp=1,
                              shape=(64, 64, 3))
  monkeypatch.setitem(programs._PROGRAMS, 'Training', lambda run, devices: program)
  needs = programs._compile(plan.Training(''), plan.Target(devices=1))
  assert needs.total == needs.activations == round(44.85 * GIB)
  # The compiler knows better.
  assert dataclasses.replace(needs, memory=64 * GIB).fits is False
  refused = 'RESOURCE_EXHAUSTED: temporaries (1.5M) exceed'
  assert programs._bytes_refused(refused, 2**20) == 5 * 2**19
  assert programs._bytes_refused('RESOURCE_EXHAUSTED: Used 2.50K of 1.00K hbm', 2**20) == 2560
  assert programs._bytes_refused('INTERNAL: 3.5G of something else', 0) is None


@pytest.mark.parametrize('changes, remat, wanted', [
    (dict(state=14 * GIB), 'none', 'config.fsdp=4'),
    (dict(activations=30 * GIB, state=GIB), 'none', 'remat=blocks'),
    (dict(activations=29 * GIB, state=GIB), 'blocks', 'microbatches=2'),
    (dict(state=14 * GIB), None, '--fsdp=4'),
    (dict(activations=30 * GIB, state=GIB), None, '--batch-size 32')])
def test_what_does_not_fit_is_told_what_to_change(changes, remat, wanted):
  needs = dataclasses.replace(NEEDS, total=40 * GIB, **changes)
  assert wanted in report.advice(needs, remat)
  assert 'too little' in report.lines(needs)[-1]


def test_an_upsampler_is_told_where_its_own_remat_is():
  needs = dataclasses.replace(NEEDS, total=40 * GIB, activations=30 * GIB,
                              state=GIB)
  key = 'task.network.module.unet.remat'
  assert f'--config.{key}=blocks' in report.advice(needs, 'none', remat_key=key)


@pytest.mark.parametrize('remat, batch_size, microbatches, wanted', [
    ('blocks', 64, 4, 'microbatches=8'), ('blocks', 64, 8, 'one image at a time'),
    ('blocks', 24, 1, 'microbatches=3'), (None, 8, 1, 'one image at a time')])
def test_a_batch_is_cut_no_further_than_an_image(remat, batch_size, microbatches, wanted):
  needs = dataclasses.replace(NEEDS, state=GIB, activations=30 * GIB,
                              total=40 * GIB, batch_size=batch_size)
  assert wanted in report.advice(needs, remat, microbatches)


@pytest.mark.parametrize('target, match', [
    (dict(), 'not both'), (dict(topology='v5e:2x4', devices=8), 'not both'),
    (dict(topology='64 chips'), 'v5e:8x8'), (dict(devices=0), 'at least 1'),
    (dict(topology='b200:8'), 'one of h100, a100'), (dict(topology='h100:0'), 'h100:1'),
    (dict(topology='h100:2x4'), 'h100:8'), (dict(topology='h100'), 'h100:8'),
    (dict(devices=1, device_kind='GeForce'), 'NVIDIA L4'),
    (dict(topology='v5e:2x4', device_kind='NVIDIA L4'), 'with --devices')])
def test_an_impossible_target_is_refused(target, match):
  with pytest.raises(UsageError, match=match):
    plan.Target(**target)


def test_an_evaluation_is_as_fast_as_estimated():
  """Inception computes in float32: a share of the bfloat16 peak would say nothing."""
  needs = dataclasses.replace(NEEDS, run='Evaluation', batch_size=64, seconds=0.5, launches=9,
                              moved=1e9)
  assert report.hours(needs, 0.4).startswith('as estimated: 0.5 s per batch, 128 images/s')
  assert "a batch's features by Inception" in '\n'.join(report.lines(needs))
  assert 'a --topology' in report.hours(dataclasses.replace(needs, seconds=None), 0.4)


def test_evaluation_is_compiled_for_2_devices(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  needs = plan.measure(plan.Evaluation(32, batch_size=4), plan.Target(devices=2))
  assert (needs.num_devices, needs.batch_size, needs.run) == (2, 4, 'Evaluation')
  assert needs.state == 4 * needs.parameters and needs.batch == 2 * 32 * 32 * 3
  # Inception-v3's 5.7 multiplications in 10^9, an image.
  assert 4 * 2 * 5.5e9 < needs.flops < 4 * 2 * 6e9


def test_images_without_a_side_are_refused():
  with pytest.raises(UsageError, match='--evaluate 0'):
    plan.Evaluation(0)


def test_a_gpus_memory_keeps_a_tenth_free():
  """What cuDNN's algorithms need is not known without a card."""
  gpu = dataclasses.replace(NEEDS, device_kind='NVIDIA H100 80GB HBM3', memory=80 * GIB,
                            spare=8 * GIB, total=72 * GIB)
  assert gpu.fits and not dataclasses.replace(gpu, total=72 * GIB + 1).fits
  said = '\n'.join(report.lines(gpu))
  assert 'a device at least' in said and '8 stay free' in said and 'it fits' in said


def test_the_estimate_stands_beside_its_floors():
  needs = dataclasses.replace(NEEDS, flops=8 * 0.5 * 197e12, moved=0.25 * 819e9, launches=1234,
                              seconds=0.75)
  line = report.lines(needs)[-1]
  assert 'estimated and not timed: 0.75 s' in line and '1,234 kernels' in line
  assert '0.5 s by arithmetic, 0.25 s by' in line
  assert 'estimated' not in '\n'.join(report.lines(NEEDS))


def test_a_missing_compiler_for_gpus_is_one_line_with_the_way_out(monkeypatch):
  monkeypatch.setattr(programs.gpus, 'has_compiler', lambda: False)
  with pytest.raises(UsageError, match=r'h100:8 needs the compiler.*\[gpu-plan\]') as error:
    programs._devices(plan.Target(topology='h100:8'))
  assert '\n' not in str(error.value)


@pytest.fixture(scope='module')
def sampling(tmp_path_factory):
  folder = tmp_path_factory.mktemp('models')
  return plan.Sampling(str(tiny_models.unet(folder / 'unet')),
                       str(tiny_models.classifier(folder / 'classifier')), respacing='3',
                       dtype='float32', batch_size=16)


def test_a_guided_sampler_is_compiled_for_8_devices(sampling, cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  needs = plan.measure(sampling, plan.Target(devices=8))
  assert (needs.num_devices, needs.batch_size, needs.evaluations) == (8, 16, 3)
  assert needs.state == 4 * needs.parameters  # weights alone, in float32
  half = plan.measure(dataclasses.replace(sampling, batch_size=8), plan.Target(devices=8))
  np.testing.assert_allclose(needs.flops, 2 * half.flops, rtol=1e-6)
  alone = plan.measure(dataclasses.replace(sampling, classifier=None),
                           plan.Target(devices=8))
  assert alone.flops < needs.flops and alone.parameters < needs.parameters


def test_a_published_sampler_is_outlined_without_its_weights():
  outline = pretrained.outline('imagenet64')
  assert sum(leaf.size for leaf in jax.tree.leaves(outline.params)) == 295_904_454


@pytest.mark.skipif(not programs.gpus.has_compiler(),
                    reason='compiles for GPUs with jax-cuda13-plugin')
def test_eight_gpus_need_no_gpu(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  needs = plan.measure(plan.training(tiny.get_config()), plan.Target(topology='h100:8'))
  assert needs.device_kind == 'NVIDIA H100 80GB HBM3' and needs.num_devices == 8 and needs.fits
  assert needs.launches > 100 and needs.seconds > needs.moved / 3.35e12 > 0


def test_a_tpu_slice_needs_no_tpu(cache, sampling, monkeypatch):
  pytest.importorskip('libtpu', reason='compiles for TPUs with libtpu')
  monkeypatch.setenv('ADM_CACHE', str(cache))
  needs = plan.measure(plan.training(tiny.get_config()),
                           plan.Target(topology='v5e:2x4'))
  assert needs.device_kind == 'TPU v5 lite' and needs.num_devices == 8 and needs.fits
  assert needs.launches > 100 and needs.seconds > needs.moved / 819e9 > 0
  needs = plan.measure(dataclasses.replace(sampling, dtype='bfloat16'),
                       plan.Target(topology='v5e:2x4'))
  assert needs.evaluations == 3 and needs.fits


def test_few_large_images_on_a_tpu_are_named():
  """4 of 256 x 256 a chip, by the batch or by microbatches; not 8, not small ones, not on a GPU."""
  def said(microbatches=1, **changes):
    given = dict(height=256, width=256, batch_size=32) | changes
    return 'at once' in '\n'.join(report.lines(dataclasses.replace(NEEDS, **given), microbatches))
  assert said() and said(2, batch_size=64)
  assert not said(batch_size=64) and not said(height=128)
  assert not said(device_kind='NVIDIA H100 80GB HBM3')
