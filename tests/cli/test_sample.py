"""`adm sample`: one command for every model; interrupted anywhere, it ends with the same bytes."""

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import buckets
import numpy as np
import pytest
import simulated_devices
import tiny_models
import traces
from PIL import Image

from adm_jax.cli.main import main
from adm_jax.data.folder import Folder
from adm_jax.errors import RESTART
from adm_jax.io import npz


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with models and images, from which commands run."""
  root = tmp_path_factory.mktemp('models')
  tiny_models.unet(root / 'unet', tiny_models.NUM_CLASSES)
  tiny_models.unet(root / 'uncond')
  tiny_models.unet(root / 'dropped', tiny_models.NUM_CLASSES, with_null_label=True)
  tiny_models.unet(root / 'weaker', tiny_models.NUM_CLASSES, seed=4)
  tiny_models.classifier(root / 'classifier')
  tiny_models.classifier(root / 'large_classifier', image_size=16)
  tiny_models.upsampler(root / 'upsampler')
  (root / 'photos').mkdir()
  for i in range(3):
    pixels = np.random.default_rng(i).integers(0, 256, (11, 9, 3), np.uint8)
    Image.fromarray(pixels).save(root / 'photos' / f'{i}.png')
  np.savez_compressed(root / 'anyones.npz', pixels_of(4), np.array([3, 0, 3, 1]))
  np.savez(root / 'others.npz', 255 - pixels_of(4), np.array([3, 0, 3, 1]))
  np.savez(root / 'labels.npz', pixels_of(2), np.array([0, 99]))
  np.savez(root / 'none.npz', pixels_of(0))
  np.savez_compressed(root / 'wide.npz', pixels_of(4, side=12))
  tiny_models.upsampler(root / 'uncond_upsampler', num_classes=None)
  (root / 'damaged').mkdir()
  (root / 'damaged' / '0.png').write_text('no picture')
  (root / 'text.pt').write_text('no weights')
  np.savez(root / 'floats.npz', pixels_of(4) / 255)
  return root


def pixels_of(num, side=8):
  return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), np.uint8)


@pytest.fixture
def sample(root, tmp_path, monkeypatch, capsys):
  """sample(words) -> (images, labels or None) of the job in tmp_path / 'out'."""
  monkeypatch.chdir(root)
  def run(*words, out='out'):
    steps = [] if {'--steps', '--spacing'} & set(words) else ['--respacing', '3']
    code = main(['sample', *steps, '--batch-size', '4', '--out', str(tmp_path / out), *words])
    assert code == 0, capsys.readouterr().err
    with np.load(tmp_path / out / 'samples.npz') as arrays:
      return arrays['arr_0'], arrays['arr_1'] if 'arr_1' in arrays else None
  return run


@pytest.fixture
def described(tmp_path):
  """described(out): what a job says that it was made by."""
  return lambda out: json.loads((tmp_path / out / 'job.json').read_text())


def test_parts_of_sampling_are_traced_over_all_batches_and_models(sample, tmp_path, capsys):
  words = ('--model', 'unet', '--num', '5', '--upsample', 'upsampler')
  sample(*words, '--profile', '2:6')  # 2 batches of 3 parts small, as many large
  assert f'trace of sampling part 3 to 8: {tmp_path}/out/profile ' in capsys.readouterr().out
  assert traces.steps(tmp_path / 'out', 'sampling part') == [3, 4, 5, 6, 7, 8]
  sample(*words, '--profile', '0:1')
  assert 'no trace: 0 sampling parts ran' in capsys.readouterr().out
  sample(*words, '--profile', '11:9', out='late')
  assert 'trace of sampling part 12 to 12' in capsys.readouterr().out


def test_classes_in_turn_with_pictures_and_labels(sample, tmp_path):
  images, labels = sample('--model', 'unet', '--classifier', 'classifier', '--classes', '3,0-1',
                          '--num', '7', '--grid', '--format', 'png')
  assert images.shape == (7, 8, 8, 3) and images.dtype == np.uint8
  np.testing.assert_array_equal(labels, [3, 0, 1, 3, 0, 1, 3])
  assert labels.dtype == np.int64
  names = sorted(path.name for path in (tmp_path / 'out' / 'png').iterdir())
  assert names[0] == '000_000001.png' and len(names) == 7
  np.testing.assert_array_equal(Image.open(tmp_path / 'out' / 'png' / '003_000006.png'), images[6])
  assert Image.open(tmp_path / 'out' / 'grid.png').width > 3 * 64


def test_labels_are_drawn_if_no_class_is_named(sample):
  images, labels = sample('--model', 'unet', '--num', '40')
  assert set(labels) == set(range(tiny_models.NUM_CLASSES)) and len(images) == 40
  _, again = sample('--model', 'unet', '--num', '20', out='again')
  np.testing.assert_array_equal(again, labels[:20])


def test_an_unconditional_model_has_no_labels(sample):
  images, labels = sample('--model', 'uncond')
  assert len(images) == 16 and labels is None


def test_a_cascade_keeps_order_and_labels(sample, tmp_path):
  large, labels = sample('--model', 'unet', '--num', '5', '--upsample', 'upsampler')
  with np.load(tmp_path / 'out' / 'base' / 'samples.npz') as base:
    np.testing.assert_array_equal(labels, base['arr_1'])
    small = base['arr_0']
  assert large.shape == (5, 16, 16, 3) and small.shape == (5, 8, 8, 3)
  again, _ = sample('--base', str(tmp_path / 'out' / 'base' / 'samples.npz'), '--upsample',
                    'upsampler', out='again')
  np.testing.assert_array_equal(again, large)


def test_anyones_images_are_enlarged(sample):
  large, labels = sample('--base', 'anyones.npz', '--upsample', 'upsampler', '--num', '3')
  assert large.shape == (3, 16, 16, 3)
  np.testing.assert_array_equal(labels, [3, 0, 3])
  others, _ = sample('--base', 'others.npz', '--upsample', 'upsampler', '--num', '3', out='others')
  assert (np.abs(others.astype(int) - large) > 1).any()


def test_labels_are_kept_by_an_upsampler_that_knows_none(sample):
  _, labels = sample('--base', 'anyones.npz', '--upsample', 'uncond_upsampler')
  np.testing.assert_array_equal(labels, [3, 0, 3, 1])


def test_other_starts_than_noise(sample, tmp_path):
  ddim = ('--model', 'uncond', '--solver', 'ddim')
  between, _ = sample(*ddim, '--interpolate', '4,9', '--num', '5', out='between')
  alone, _ = sample(*ddim, '--seed', '4', '--num', '1', out='alone')
  assert (np.abs(between[0].astype(int) - alone[0]) <= 1).all()
  # The same pixels as an .npz.
  folder, _ = sample(*ddim, '--images', 'photos', '--reconstruct', out='folder')
  np.savez(tmp_path / 'photos.npz', np.stack([Folder('photos', 8, labels=None)[i]['image']
                                              for i in range(3)]))
  file, _ = sample(*ddim, '--images', str(tmp_path / 'photos.npz'), '--reconstruct', out='file')
  np.testing.assert_array_equal(file, folder)
  photos = ('--images', 'photos')
  assert len(sample(*ddim, *photos, '--reconstruct', out='again')[0]) == 3
  assert len(sample(*ddim, *photos, '--interpolate', '0,2', '--num', '4', out='photos')[0]) == 4
  _, labels = sample('--model', 'unet', '--solver', 'ddim', '--interpolate', '4,9', '--classes',
                     '2', '--num', '3', out='classes')
  np.testing.assert_array_equal(labels, [2, 2, 2])
  one, _ = sample('--model', 'uncond', *photos, '--from-step', '700', out='one')
  two, _ = sample('--model', 'uncond', *photos, '--from-step', '700', '--seed', '1', out='two')
  assert len(one) == 3 and (one != two).any()


def test_few_steps_of_the_whole_process_guided_in_every_way(sample, described, capsys):
  """Evaluations are counted: two for each of Heun's steps but the last."""
  heun = ('--model', 'unet', '--num', '3', '--solver', 'heun', '--steps', '3', '--spacing')
  plain, labels = sample(*heun, 'karras', out='plain')
  assert '5 evaluations each' in capsys.readouterr().err
  churned, _ = sample(*heun, 'karras', '--churn', '1,0.05,50,1.003', out='churned')
  trailing, _ = sample(*heun, 'trailing', out='trailing')
  weaker, same = sample(*heun, 'karras', '--weaker', 'weaker', '--weaker-scale', '1.5',
                        '--guide-between', '0.1,90', out='weaker')
  for other in (churned, trailing, weaker):
    assert (other != plain).any()
  np.testing.assert_array_equal(labels, same)
  assert described('churned')['churn'] == '1,0.05,50,1.003'
  assert described('weaker')['guidance']['weaker'].items() >= {
      'scale': 1.5, 'between': [0.1, 90.0]}.items()


def test_classifier_free_and_classifier_guidance_together(sample, described):
  fast = ('--model', 'dropped', '--num', '5', '--solver', 'dpm++2m', '--steps', '3')
  conditional, labels = sample(*fast, out='conditional')
  none, _ = sample(*fast, '--cfg-scale', '1', out='none')
  both, _ = sample(*fast, '--cfg-scale', '3', '--classifier', 'classifier', '--scale', '2,1',
                   '--normalize-gradient', '--dynamic-threshold', '0.9', out='both')
  assert set(labels) <= set(range(tiny_models.NUM_CLASSES))
  assert (np.abs(none.astype(int) - conditional) <= 1).all() and (both != conditional).any()
  guidance = described('both')['guidance']
  assert guidance['classifier_free']['scale'] == 3 and guidance['threshold'] == {'share': 0.9}
  assert guidance['classifier']['normalize'] and guidance['classifier']['every'] == 1
  scales = guidance['classifier']['scale']  # by timestep, and the first step has the last
  assert (scales[0], scales[-1]) == (1, 2) and scales == sorted(scales)


def test_how_often_and_in_what_dtype_the_networks_are_asked(sample, described):
  fast = ('--model', 'unet', '--num', '4', '--classifier', 'classifier', '--scale', '9')
  always, _ = sample(*fast, out='always')
  seldom, _ = sample(*fast, '--classifier-every', '3', out='seldom')
  short, _ = sample(*fast, '--dtype', 'bfloat16', out='short')
  assert described('seldom')['guidance']['classifier']['every'] == 3
  assert described('short')['dtype'] == 'bfloat16'
  assert (seldom != always).any() and (short != always).any()
  assert np.abs(short.astype(int) - always).mean() < 4


def test_a_solver_and_a_spacing_of_ones_own(root, sample, tmp_path, capsys):
  """The same images as from the package's; a job knows whether the file has changed since."""
  (tmp_path / 'mine.py').write_text(
      'from adm_jax.sampling.solvers import unipc\n'
      'from adm_jax.sampling.spacings import by_time as space\n'
      'def solver():\n  return unipc(1)._replace(name="mine")\n')
  job = ('--model', 'uncond', '--num', '2', '--steps', '3')
  words = (*job, '--spacing', f'{tmp_path}/mine.py:space', '--solver', f'{tmp_path}/mine.py:solver')
  mine, _ = sample(*words)
  (tmp_path / 'mine.py').write_text('from adm_jax.sampling.solvers import heun as solver\n'
                                    'from adm_jax.sampling.spacings import by_time as space\n')
  assert main(['sample', '--batch-size', '4', '--out', str(tmp_path / 'out'), *words]) == 2
  assert 'another job (solver: mine.py:solver ' in capsys.readouterr().err
  other, _ = sample(*words, out='other')
  heun, _ = sample(*job, '--solver', 'heun', out='heun')
  np.testing.assert_array_equal(other, heun)
  assert (mine != heun).any()


def test_any_solver_without_noise_goes_between_seeds(sample):
  heun = ('--model', 'uncond', '--solver', 'heun')
  between, _ = sample(*heun, '--interpolate', '4,9', '--num', '3')
  alone, _ = sample(*heun, '--seed', '4', '--num', '1', out='alone')
  assert (np.abs(between[0].astype(int) - alone[0]) <= 1).all()


@pytest.mark.parametrize('words, message', [
    ('--model unet --steps 5 --solver ddim --respacing 5', 'two ways'),
    ('--model unet --steps 5', '--respacing 5'),
    ('--model unet --steps 0 --solver ddim', 'at least 1'),
    ('--model unet --profile x', '--profile x: give START:COUNT'),
    ('--model unet --profile 5:0', '--profile 5:0: COUNT'),
    ('--model unet --steps 1001 --solver unipc2', '1 to 1000'),
    ('--model unet --churn 40', '--solver euler or heun'),
    ('--model unet --churn 40,1 --solver heun', '1 or 3 or 4 numbers'),
    ('--model unet --images photos --reconstruct --solver ddim --steps 5', '--respacing'),
    ('--model unet --cfg-scale 2', 'without label dropout'),
    ('--model unet --normalize-gradient', '--normalize-gradient is of a classifier'),
    ('--model unet --classifier classifier --classifier-every 2 --solver heun', 'act alone'),
    ('--model unet --classifier classifier --classifier-every 0', 'at least 1'),
    ('--model unet --weaker-scale 2', 'name one with --weaker'),
    ('--model unet --weaker uncond', 'other classes'),
    ('--model unet --weaker classifier', 'give it as classifier'),
    ('--model unet --guide-between 1,2', '--guide-between is of guidance'),
    ('--model unet --weaker weaker --guide-between 1', '2 numbers'),
    ('--model unet --weaker weaker --guide-between 9,1', 'no noise level'),
    ('--model unet --dynamic-threshold 99.5', 'share of values'),
    ('--base anyones.npz --upsample upsampler --cfg-scale 2', 'with --model'),
    ('--model unet --base anyones.npz', 'give one'),
    ('--base anyones.npz', '--upsample NAME'), ('--model imagnet64', 'did you mean imagenet64'),
    ('--model unet --scale 2', '--scale is of a classifier'),
    ('--model unet --classifier large_classifier', '16 x 16 x 3'),
    ('--model unet --classes 5', 'class 5 is out of range'),
    ('--model unet --classes otter', 'no names'), ('--model uncond --classes 1', 'no classes'),
    ('--model unet --upsample unet', 'enlarges nothing'), ('--model upsampler', 'as --upsample'),
    ('--model unet --eta 0.5', '--solver ddim'), ('--model unet --num 0', 'at least 1'),
    ('--model unet --respacing ddim300', 'impossible'),
    ('--base wide.npz --upsample upsampler', 'these are 12 x 12 x 3'),
    ('--base floats.npz --upsample upsampler', 'give uint8'),
    ('--base absent.npz --upsample upsampler', 'no file absent.npz'),
    ('--model unet --images photos', 'say how'),
    ('--model unet --reconstruct --solver ddim', 'needs images'),
    ('--model unet --images photos --reconstruct', 'give --solver ddim'),
    ('--model uncond --interpolate 1,2 --solver ddim --eta 0.5', 'without noise'),
    ('--model uncond --interpolate 1,2 --solver heun --churn 1', 'without noise'),
    ('--model unet --solver huen', 'did you mean heun'),
    ('--model unet --solver ddim --spacing even', 'no spacing'),
    ('--model unet --images photos --from-step 5000', '0 to 999'),
    ('--model unet --images photos --from-step 500 --num 4', 'holds 3 images'),
    ('--model unet --images absent --from-step 500', 'absent'),
    ('--model unet --interpolate 1 --solver ddim', 'give 2 whole numbers'),
    ('--model uncond --images photos --interpolate 0,3 --solver ddim', 'images 0 to 2'),
    ('--model unet --classes -1', 'out of range'),
    ('--model unet --interpolate 1,2 --solver ddim', 'keeps to one class'),
    ('--model unet --interpolate 1,2 --solver ddim --classes 1,2', 'names 2'),
    ('--model unet --classifier classifier --scale nan', 'finite'),
    ('--model unet --classifier classifier --scale 1,2,3', 'give 1 or 2 numbers'),
    ('--model dropped --cfg-scale two', 'give 1 or 2 numbers'),
    ('--model unet --solver ddim --eta 5', '0 (no noise) to 1'),
    ('--model unet --seed -1', '--seed -1: give 0'),
    ('--model unet --seed 99999999999999999999', 'give 0'),
    ('--model unet --clip-guided', 'name one with --classifier'),
    ('--model unet --upsample-respacing 3', 'name one with --upsample'),
    ('--base anyones.npz --upsample upsampler --num 7', 'there are 4 small images'),
    ('--base anyones.npz --upsample upsampler --classes 1', 'has labels'),
    ('--base anyones.npz --upsample upsampler --images photos', 'stands in its place'),
    ('--base labels.npz --upsample upsampler', 'label 99 is out of range'),
    ('--base none.npz --upsample upsampler', 'give uint8'),
    ('--model nowhere/unet', 'no folder or file'), ('--model text.pt', 'not a whole PyTorch file'),
    ('--model .', 'has no checkpoint: give '), ('--model unet --out=', '--out is empty'),
    ('--model unet --solver heun --churn -3', 'give numbers from 0 on'),
    ('--model unet --solver heun --churn nan', 'give numbers from 0 on'),
    ('--model unet --solver heun --churn 1,5,2', 'MIN not above MAX'),
    ('--model unet --solver heun --steps 0', '0 steps: give at least 1'),
    ('--model unet --num 1000000000000', 'from 1 to'),
    ('--model unet --num 2000000000', 'GB on the way'),
    ('--model uncond --num 100000000 --batch-size 99999999', 'its images alone take'),
    ('--model unet --part 3/3', 'parts count from 0, give 0/3 to 2/3'),
    ('--model unet --part 1', '--part 1: give I/N'),
    ('--model unet --num-processes 2', '--coordinator and --process missing'),
    ('--model unet --part 0/2 --coordinator a:1 --num-processes 2 --process 0', 'give one'),
    ('--model unet --part 0/2 --hosts-per-copy 2', 'give one'),
    ('--model unet --hosts-per-copy 2', 'there are 1 in all: give one of 1'),
    ('--model unet --hosts-per-copy 0', 'there are 1 in all: give one of 1'),
    ('--upsample upsampler', 'give them with --base FILE'),
    ('--base small.npz --upsample upsampler --dynamic-threshold 0.9', '--dynamic-threshold is of'),
    ('--base small.npz --upsample upsampler --config a.py', '--config is of'),
    ('--model unet --frob', '--frob')])
def test_a_mistake_is_one_line_and_writes_nothing(root, tmp_path, monkeypatch, capsys, words,
                                                  message):
  monkeypatch.chdir(root)
  before = sorted(root.iterdir())
  assert main(['sample', '--out', str(tmp_path / 'out'), *words.split()]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out
  assert sorted(root.iterdir()) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize('words, told', [
    (('--scale', '1', '--respacing', '3'), False),
    (('--scale', '1000', '--solver', 'heun', '--steps', '3', '--no-clip-guided'), True)])
def test_a_scale_that_spoils_the_images_is_told(root, sample, capsys, words, told):
  images, _ = sample('--model', 'unet', '--classifier', 'classifier', '--num', '4', *words)
  share = ((images == 0) | (images == 255)).mean()
  assert (share > 0.5) == told
  assert (f'{share:.0%} of the values are 0 or 255' in capsys.readouterr().out) == told


def test_a_damaged_image_is_named_and_can_be_mended(root, sample, tmp_path, monkeypatch, capsys):
  words = ['--model', 'uncond', '--images', 'damaged', '--from-step', '700']
  assert main(['sample', '--out', str(tmp_path / 'out'), *words]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == (
      'adm: damaged/0.png: it is no image of a known format: remove it, or make it again')
  assert not list(tmp_path.rglob('*.bin'))


def test_a_folder_of_another_job_is_left_alone(sample, tmp_path, capsys):
  sample('--model', 'uncond', '--num', '2')
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
  words = ['sample', '--respacing', '3', '--model', 'uncond', '--out', str(tmp_path / 'out')]
  assert main([*words, '--num', '2', '--seed', '1']) == 2
  assert 'another job (seed: 0 before, 1 now)' in capsys.readouterr().err
  assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}


# ---------------------------------------------------------------------------------------------
# Other processes.


# Shards and weights that are split so small that a small job has many.
_SCRIPT = '''
import sys
from adm_jax.devices import sharding
from adm_jax.sampling import shards
from adm_jax.cli.main import main
shards._IMAGES_PER_SHARD = 16
sharding.LEAST_TO_SPLIT = 64
sys.exit(main(sys.argv[1:]))
'''


def _command(out, *words):
  return [sys.executable, '-c', _SCRIPT, 'sample', '--model', 'unet', '--respacing', '3', '--num',
          '120', '--out', str(out), *words]


def _run(root, out, *words, devices=1):
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu',
                 'XLA_FLAGS': simulated_devices.flags(devices)}
  subprocess.run(_command(out, *words), cwd=root, env=environment, check=True, capture_output=True,
                 timeout=300)
  with np.load(out / 'samples.npz') as arrays:
    return arrays['arr_0'].astype(int), arrays['arr_1']


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
  """An undisturbed run: its folder, images and labels."""
  out = tmp_path_factory.mktemp('whole') / 'out'
  return out, *_run(root, out, '--batch-size', '8')


@pytest.mark.parametrize('words', [('--batch-size', '50'), ('--batch-size', '8', '--fsdp', '4')])
def test_the_same_images_on_eight_devices(root, whole, tmp_path, words):
  """Within a level of 255 for 99.9 % of values: rounding, at the edge of truncation."""
  _, images, labels = whole
  others, their_labels = _run(root, tmp_path / 'out', *words, devices=8)
  assert (np.abs(images - others) <= 1).mean() >= 0.999
  np.testing.assert_array_equal(labels, their_labels)


def test_killed_at_random_it_ends_with_the_same_bytes(root, whole, tmp_path):
  out, draw = tmp_path / 'out', random.Random(0)
  counts = []
  for _ in range(3):
    before = len(list(out.glob('shards/*.bin')))
    running = subprocess.Popen(_command(out, '--batch-size', '8'), cwd=root,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Once it has gone on: starting takes long, and to kill it there proves nothing.
    while len(list(out.glob('shards/*.bin'))) == before and running.poll() is None:
      time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.02))
    running.send_signal(signal.SIGKILL)
    running.wait()
    counts.append(len(list(out.glob('shards/*.bin'))))
  assert 0 < counts[0] < 8  # of 120 / 16 shards: there was something to go on from
  kept = {path: path.stat().st_mtime_ns for path in out.glob('shards/*.bin')}
  running = subprocess.Popen(_command(out, '--batch-size', '8'), cwd=root,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  while kept and not (out / 'samples.npz').exists() and running.poll() is None:
    for path in kept:
      with contextlib.suppress(FileNotFoundError):  # once the file is whole
        assert path.stat().st_mtime_ns == kept[path]  # none was made again
    time.sleep(0.01)
  assert running.wait() == 0
  assert (out / 'samples.npz').read_bytes() == (whole[0] / 'samples.npz').read_bytes()


def test_of_two_processes_one_is_killed_and_the_other_makes_the_bytes_of_one(root, whole, tmp_path):
  """They know nothing of each other but the folder: nobody listens at the address."""
  out = tmp_path / 'out'
  flags = ('--batch-size', '8', '--coordinator', '127.0.0.1:9', '--num-processes', '2')
  environment = {**os.environ, 'ADM_HEARTBEAT_SECONDS': '2'}
  first, second = (subprocess.Popen(
      _command(out, *flags, '--process', process), cwd=root, env=environment, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for process in '01')
  while len(list(out.glob('shards/*.bin'))) == 0 and second.poll() is None:
    time.sleep(0.001)
  first.kill()
  said, _ = second.communicate(timeout=120)
  first.communicate()
  assert second.returncode == 0 and f'samples: {out / "samples.npz"}' in said
  assert (out / 'samples.npz').read_bytes() == (whole[0] / 'samples.npz').read_bytes()
  assert not (out / 'shards').exists()


def _sharing_weights(out, *words, port):
  """Two joined processes of one device each, which hold one copy of the weights together."""
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu',
                 'ADM_HEARTBEAT_SECONDS': '8'}
  return [subprocess.Popen(
      _command(out, '--batch-size', '8', '--hosts-per-copy', '2', '--fsdp', '2', '--coordinator',
               f'127.0.0.1:{port}', '--num-processes', '2', '--process', process, *words),
      env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
      for process in '01']


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def test_processes_that_share_weights_end_together_and_go_on_to_the_bytes_of_one(
    root, tmp_path, port, monkeypatch):
  monkeypatch.chdir(root)
  out, whole = tmp_path / 'out', tmp_path / 'whole'
  first, second = _sharing_weights(out, port=port)
  while not list(out.glob('shards/*.bin')) and first.poll() is None:
    time.sleep(0.001)
  second.kill()
  _, said = first.communicate(timeout=240)
  second.communicate()
  assert first.returncode == RESTART and 'another process of this run is gone' in said, said
  both = _sharing_weights(out, port=port)
  said = [running.communicate(timeout=240) for running in both]
  assert [running.returncode for running in both] == [0, 0], said
  assert ['samples: ' in printed for printed, _ in said] == [True, False]
  _run(root, whole, '--batch-size', '8', '--fsdp', '2', devices=2)
  assert (out / 'samples.npz').read_bytes() == (whole / 'samples.npz').read_bytes()


def test_parts_of_a_cascade_one_after_the_other(root, sample, tmp_path, capsys):
  """In batches of other sizes, so that one of the large ones is of images of two parts."""
  words = ('--model', 'unet', '--num', '22', '--upsample', 'upsampler')
  wanted, labels = sample(*words, out='whole')
  command = ['sample', '--respacing', '3', '--batch-size', '4', *words]
  for part in (1, 0, 2):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('parts/**/*.bin')}
    assert main([*command, '--out', str(tmp_path / 'parts'), '--part', f'{part}/3']) == 0
    said = capsys.readouterr().out
    assert (f'part {part}/3 is made' in said) == (part != 2)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.exists())
  with np.load(tmp_path / 'parts' / 'samples.npz') as arrays:
    np.testing.assert_array_equal(arrays['arr_0'], wanted)
    np.testing.assert_array_equal(arrays['arr_1'], labels)
  assert sorted(path.name for path in (tmp_path / 'parts').iterdir()) == [
      'base', 'job.json', 'samples.npz']


def test_a_bucket_gets_a_cascade_in_parts_and_says_how_far_it_is(root, sample, tmp_path,
                                                                 monkeypatch, capsys):
  words = ('--model', 'unet', '--num', '10', '--upsample', 'upsampler')
  wanted, _ = sample(*words, '--grid')
  picture = (tmp_path / 'out' / 'grid.png').read_bytes()
  with buckets.in_force(monkeypatch, 'out') as bucket:
    command = ['sample', '--respacing', '3', '--batch-size', '4', *words, '--out', 'gs://name/out']
    assert main([*command, '--part', '1/2']) == 0
    assert main(['status', 'gs://name/out']) == 0
    assert '6 of 10 images' in capsys.readouterr().out  # all but the first batch
    assert main([*command, '--grid', '--format', 'png']) == 0  # a whole job makes what is missing
    with np.load(io.BytesIO((bucket / 'samples.npz').read_bytes())) as arrays:
      np.testing.assert_array_equal(arrays['arr_0'], wanted)
    assert (bucket / 'grid.png').read_bytes() == picture
    assert len(list((bucket / 'png').iterdir())) == 10
    assert main(['status', 'gs://name/out', '--check']) == 0


def test_a_cascade_of_before_is_known_by_the_file_it_enlarges(root, sample, tmp_path):
  words = ('--model', 'unet', '--num', '5', '--upsample', 'upsampler')
  wanted, _ = sample(*words)
  description = json.loads((tmp_path / 'out' / 'job.json').read_text())
  description['base'] = npz.checksum(tmp_path / 'out' / 'base' / 'samples.npz')
  (tmp_path / 'out' / 'job.json').write_text(json.dumps(description))
  (tmp_path / 'out' / 'samples.npz').unlink()
  again, _ = sample(*words)
  np.testing.assert_array_equal(again, wanted)
