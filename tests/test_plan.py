"""What a run needs, from compiling its step."""

import dataclasses

import pytest
import tiny

from adm_jax import config as config_lib
from adm_jax import flops, plan
from adm_jax.errors import UsageError

NEEDS = plan.Needs(
    device_kind='TPU v5 lite', num_devices=8, fsdp=1, parameters=10**9, flops=8 * 197e12,
    state=8 * plan.GIB, batch=2**20, activations=4 * plan.GIB, total=12 * plan.GIB,
    memory=16 * plan.GIB, peak=197e12, compile_seconds=1.0)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp('cache')


@pytest.fixture
def needs(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  return plan.measure(config_lib.to_json(tiny.get_config()), plan.Target(devices=8))


def test_the_step_of_a_tiny_network_is_compiled_for_8_devices(needs):
  run = tiny.unet_run()
  assert needs.num_devices == 8 and needs.device_kind == 'cpu' and needs.memory is None
  assert needs.flops == flops.of_step(run.task, run.batch_size)
  # Parameters, Adam's two moments, two averages, and a few counters.
  assert 0 < needs.state - 5 * 4 * needs.parameters < 100
  assert needs.batch == 8 * 8 + 4  # an image and a label a device
  assert needs.activations > 0 and needs.total > needs.state + needs.activations


def test_the_answer_is_kept(needs, cache, monkeypatch):
  monkeypatch.setattr(plan.subprocess, 'run', None)
  assert plan.measure(config_lib.to_json(tiny.get_config()), plan.Target(devices=8)) == needs


def test_what_the_devices_cannot_share_is_one_line(cache, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(cache))
  with pytest.raises(UsageError, match='batch_size=8 cannot be shared by 3 devices') as error:
    plan.measure(config_lib.to_json(tiny.get_config()), plan.Target(devices=3))
  assert '\n' not in str(error.value)


def test_hours_follow_from_the_share_of_the_peak():
  """A step of 197 TFLOP a device takes 2 seconds at half the peak of 197 TFLOP/s."""
  lines = plan.report(NEEDS, total_steps=3600, batch_size=64, remat='none', utilization=0.5)
  assert '2 s a step, 2.0 hours' in lines[-1] and 'it fits' in lines[-2]


@pytest.mark.parametrize('changes, remat, wanted', [
    (dict(state=14 * plan.GIB), 'none', 'config.fsdp=4'),
    (dict(activations=30 * plan.GIB, state=plan.GIB), 'none', 'remat=blocks'),
    (dict(activations=29 * plan.GIB, state=plan.GIB), 'blocks', 'microbatches=2')])
def test_what_does_not_fit_is_told_what_to_change(changes, remat, wanted):
  needs = dataclasses.replace(NEEDS, total=40 * plan.GIB, **changes)
  assert wanted in plan.advice(needs, remat)
  assert 'too little' in '\n'.join(plan.report(needs, 10, 64, remat, 0.4))


@pytest.mark.parametrize('target, match', [
    (dict(), 'not both'), (dict(topology='v5e:2x4', devices=8), 'not both'),
    (dict(topology='64 chips'), 'v5e:8x8'), (dict(devices=0), 'at least 1')])
def test_an_impossible_target_is_refused(target, match):
  with pytest.raises(UsageError, match=match):
    plan.Target(**target)


def test_a_tpu_slice_needs_no_tpu(cache, monkeypatch):
  pytest.importorskip('libtpu')
  monkeypatch.setenv('ADM_CACHE', str(cache))
  config = config_lib.to_json(tiny.get_config())
  needs = plan.measure(config, plan.Target(topology='v5e:2x4'))
  assert needs.device_kind == 'TPU v5 lite' and needs.num_devices == 8 and needs.fits
