"""`adm distill`: from a guided model to a student that samples in a few steps, or to one line."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_models

from adm_jax.cli import distill
from adm_jax.cli.main import main
from adm_jax.errors import UsageError
from adm_jax.sampling import exported, pipeline
from adm_jax.sampling.guidance import Distilled
from adm_jax.weights import folders

SHORT = ['--guided-steps', '4', '--student-steps', '4', '--batch-size', '8',
         '--guided.log_every=2', '--guided.save_every=2', '--student.log_every=2',
         '--student.save_every=2']


WORDS = ['distill', '--teacher', 'plain', '--classifier', 'classifier', '--scales', '0,4',
         '--steps', '2', '--images', '10', '--out', 'out', *SHORT]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A teacher without classes, a classifier that guides it, and no images."""
  folder = tmp_path_factory.mktemp('distilled')
  tiny_models.unet(folder / 'unet', tiny_models.NUM_CLASSES)
  tiny_models.unet(folder / 'plain')
  tiny_models.classifier(folder / 'classifier')
  tiny_models.judge(folder / 'judge')
  images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
  np.savez(folder / 'real.npz', images, np.arange(20) % tiny_models.NUM_CLASSES)
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    assert main(WORDS) == 0
  return folder


@pytest.fixture
def here(made, monkeypatch):
  monkeypatch.chdir(made)
  return made


def test_a_student_knows_its_scales_and_its_steps(here):
  guided, student = (folders.load(here / 'out' / name) for name in ('guided', 'student'))
  assert guided.network.scales == student.network.scales == (0, 4)
  assert guided.network.steps is None and student.network.steps == (2,)
  assert student.step == 4


def test_sampling_a_student_takes_its_steps_and_a_scale(here, capsys):
  words = ['sample', '--model', 'out/student', '--classes', '0-3', '--num', '4']
  for scale in ('0', '3'):
    assert main([*words, '--scale', scale, '--out', f'scale_{scale}']) == 0
  job = json.loads((here / 'scale_3' / 'job.json').read_text())
  assert job['solver'] == 'ddim' and job['steps'] == 2
  assert job['guidance']['distilled']['scale'] == 3
  with np.load('scale_3/samples.npz') as arrays:
    adm = pipeline.load('out/student', guidance=(Distilled(3.0),))
    np.testing.assert_array_equal(adm(labels=range(4), seed=0), arrays['arr_0'])


def test_another_scale_of_a_student_makes_other_images_and_compiles_nothing(here):
  params = folders.load(here / 'out' / 'student')
  # After four steps of training the scale does next to nothing: its layer starts at zero.
  params.params['embedding']['scale']['kernel'] = np.ones_like(
      params.params['embedding']['scale']['kernel'])
  adm = pipeline.load(params, guidance=(Distilled(1.0),))
  first = adm(labels=range(4), seed=0)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda name, *_, **__: compiled.append(name) if 'backend_compile' in name else None)
  second = adm(labels=range(4), seed=0, scale=2.0)
  assert not compiled
  assert (first != second).any()


@pytest.mark.parametrize('words, message', [
    (['--scale', '5'], 'out/student was distilled for scales from 0 to 4'),
    (['--steps', '3'], 'out/student was distilled for 2 steps and no others: ask for 2, not 3'),
    (['--solver', 'dpm++2m'], 'leave out the solver dpm++2m'),
    (['--solver', 'ancestral'], 'and ancestral sampling takes them one by one'),
    (['--steps', '0'], '0'),
    (['--respacing', '2'], 'distilled for 2 steps'),
    (['--spacing', 'karras', '--steps', '2'], 'at places of their own'),
    (['--eta', '0.5'], 'without noise'),
    (['--classifier', 'classifier'], 'its guidance is inside'),
    (['--cfg-scale', '2'], 'leave out --cfg-scale'),
    (['--weaker', 'classifier'], 'leave out --weaker')])
def test_what_a_student_was_not_taught_is_refused(here, capsys, words, message):
  assert main(['sample', '--model', 'out/student', '--out', 'none', *words]) == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert len(said) == 1 and message in said[0]
  assert not (here / 'none').exists()


SWEEP = ['sweep', '--model', 'out/student', '--judge', 'judge', '--reference', 'real.npz', '--num',
         '6', '--out', 'swept']


def test_a_sweep_tells_a_student_its_scales(here):
  assert main([*SWEEP, '--scales', '0,3']) == 0
  found = json.loads((here / 'swept' / 'sweep.json').read_text())
  assert found['steps'] == 'ddim, 2 evaluations each'
  assert [(point['guidance'], point['scale']) for point in found['points']] == [
      ('distilled', 0), ('distilled', 3)]
  shutil.rmtree(here / 'swept')


@pytest.mark.parametrize('words, message', [
    (['--scales', '1,9'], 'a scale of 9: out/student was distilled for scales from 0 to 4'),
    (['--scales', '1', '--classifier', 'classifier'], 'leave out --classifier'),
    (['--cfg-scales', '1'], 'leave out --cfg-scales, and say how strong with --scales'),
    (['--scales', '1', '--steps', '3'], 'for 2 steps and no others: ask for 2, not 3'),
    (['--scales', '1', '--solver', 'ancestral'], 'leave out the solver ancestral')])
def test_a_sweep_of_what_a_student_was_not_taught_is_refused(here, capsys, words, message):
  assert main([*SWEEP, *words]) == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert len(said) == 1 and message in said[0]
  assert not (here / 'swept').exists()


def test_an_exported_student_is_told_scales_of_its_range(here):
  pytest.importorskip('flatbuffers', reason='jax.export writes its files with flatbuffers')
  assert main(['export', '--model', 'out/student', '--scale', '3', '--platforms', 'cpu', '--out',
               'exported']) == 0
  sample = exported.load('exported')
  adm = pipeline.load('out/student', guidance=(Distilled(3.0),))
  for scale in (None, 1.0):
    wanted = adm(labels=range(3), seed=0, scale=scale)
    found = sample(0, range(3), range(3), scale=scale)
    assert (np.abs(found.astype(int) - wanted) <= 1).all()
  with pytest.raises(UsageError, match='distilled for scales from 0 to 4'):
    sample(0, [0], [0], scale=5.0)


def test_a_plan_of_a_student_takes_its_steps(here, capsys, tmp_path, monkeypatch):
  monkeypatch.setenv('ADM_CACHE', str(tmp_path))
  assert main(['plan', '--model', 'out/student', '--devices', '1', '--dtype', 'float32']) == 0
  assert '2 evaluations' in capsys.readouterr().out
  assert main(['plan', '--model', 'out/student', '--devices', '1', '--classifier',
               'classifier']) == 2
  assert 'its guidance is inside' in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    (['--teacher', 'plain'], 'plain has no classes: give a classifier'),
    (['--teacher', 'unet'], 'cannot guide itself'),
    (['--teacher', 'classifier'], 'is a classifier'),
    (['--teacher', 'out/student', '--classifier', 'classifier'], 'is a student itself'),
    (['--teacher', 'out/guided', '--classifier', 'classifier'], 'is a student itself'),
    (['--teacher', 'unet', '--classifier', 'classifier', '--weaker', 'plain'], 'give one'),
    (['--teacher', 'unet', '--classifier', 'classifier', '--scales', '4,0'], '--scales 4,0'),
    (['--teacher', 'unet', '--classifier', 'classifier', '--steps', '0'], '--steps 0'),
    (['--teacher', 'unet', '--classifier', 'classifier', '--config.x=1'], '--guided.key=value'),
    (['--teacher', 'absent', '--classifier', 'classifier'], 'absent')])
def test_a_mistake_is_one_line_and_nothing_is_made(here, capsys, words, message):
  words = [*words, *(['--scales', '0,4'] if '--scales' not in words else []), '--out', 'none']
  assert main(['distill', *words]) == 2
  said = capsys.readouterr().err.strip().splitlines()
  assert message in said[-1] and len(said) == 1
  assert not (here / 'none').exists()


def test_without_data_the_teacher_made_its_own(here):
  with np.load(here / 'out' / 'images' / 'samples.npz') as arrays:
    assert len(arrays['arr_0']) == 10 and set(arrays['arr_1']) == set(range(5))
  assert folders.load(here / 'out' / 'student').network.num_classes == 5


@pytest.mark.parametrize('data, wanted', [
    ('digits_unet', {'split': 'train'}), ('photos.zip', {'path': 'photos.zip', 'image_size': 8})])
def test_data_may_be_those_of_a_config_or_files(here, data, wanted):
  found = distill.images(data, 'folders', (8, 8, 3))
  assert {name: found[name] for name in wanted} == wanted


def test_a_distillation_that_was_stopped_ends_as_one_that_was_not(here, capsys):
  shutil.copytree(here / 'out', here / 'again')
  for stage in ('guided', 'student'):
    shutil.rmtree(here / 'again' / stage / 'checkpoints' / '4')
  # The stages name each other by their folders.
  shutil.move(here / 'out', here / 'kept')
  shutil.move(here / 'again', here / 'out')
  try:
    assert main(WORDS) == 0
    assert 'going on from step 2' in capsys.readouterr().err
    for stage in ('guided', 'student'):
      one, other = (folders.load(here / name / stage).params for name in ('kept', 'out'))
      jax.tree.map(np.testing.assert_array_equal, one, other)
  finally:
    shutil.rmtree(here / 'out')
    shutil.move(here / 'kept', here / 'out')
