"""A run is what its config says, however often it was killed."""

import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import metric_lines
import numpy as np
import pytest
import tiny
import ways

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.config import call
from adm_jax.data.digits import digits
from adm_jax.errors import Preempted, TrainingStopped, UsageError
from adm_jax.training import checkpoints, goodput, loop
from adm_jax.training.grids import Grid
from adm_jax.training.state import adamw
from adm_jax.weights import checkpoint_files, folders


class Killed(Exception):
  pass


def _train(workdir, config=None, stop_at=None):
  """Trains, in this process; `stop_at` breaks off after that step, as a crash would."""
  config = config or tiny.get_config()
  def progress(step, line):
    if step == stop_at:
      raise Killed
  return loop.train(config_lib.build(config), stored_configs.to_json(config), workdir,
                    progress=progress)


def _equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """(work directory, final state) of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  return workdir, _train(workdir)


@pytest.fixture
def copy(finished, tmp_path):
  """A work directory of a finished run that the test may spoil."""
  return pathlib.Path(shutil.copytree(finished[0], tmp_path / 'run'))


def _files(folder):
  return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
          if path.is_file()}


@pytest.mark.parametrize('stop_at', [3, 4, 5, 11])
def test_a_broken_off_run_ends_as_an_undisturbed_one(finished, tmp_path, stop_at):
  workdir, state = finished
  with pytest.raises(Killed):
    _train(tmp_path / 'run', stop_at=stop_at)
  _equal(_train(tmp_path / 'run'), state)
  assert metric_lines.read(tmp_path / 'run') == metric_lines.read(workdir)


def test_kill_9_sigterm_and_ctrl_c_at_any_moment_change_nothing(tmp_path):
  """Five times a process is ended wherever it happens to be; the last one finishes the run."""
  steps, environment = 240, {
      **os.environ, 'PYTHONPATH': os.pathsep.join([*(str(pathlib.Path(ways.__file__).parents[i])
                                                     for i in (0, 1))])}
  def start(name, **more):
    return subprocess.Popen(
        [sys.executable, '-m', 'adm_jax.cli.main', 'train', '--config', ways.__file__,
         f'--config.total_steps={steps}', '--config.save_every=20', '--config.log_every=10',
         '--workdir', str(tmp_path / name)], env={**environment, **more}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)

  chance = random.Random(time.time_ns())
  for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
    before = max(checkpoint_files.saved_steps(tmp_path / 'ended'), default=0)
    process = start('ended', WAYS_SECONDS_AN_IMAGE='0.002')  # about 30 steps a second
    while process.poll() is None and max(checkpoint_files.saved_steps(tmp_path / 'ended'),
                                         default=0) == before:
      time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.3))
    process.send_signal(how)
    output, _ = process.communicate()
    assert process.returncode == {
        signal.SIGKILL: -9, signal.SIGTERM: 75, signal.SIGINT: 130}[how], output
    if how == signal.SIGTERM:
      assert output.count('wall time ') == 1
      step = int(re.search(r'stopped by SIGTERM after step (\d+), which is saved', output)[1])
      assert max(checkpoint_files.saved_steps(tmp_path / 'ended')) == step
  for name in ('ended', 'whole'):
    process = start(name)
    output, _ = process.communicate()
    assert process.returncode == 0, output
  whole, ended = (tmp_path / name for name in ('whole', 'ended'))
  assert (ended / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()
  run = config_lib.build(ways.get_config())
  states = []
  for workdir in (whole, ended):
    text = (workdir / 'config.json').read_text()
    with checkpoints.Checkpoints(workdir, text, keep=9) as saved:
      states.append(saved.restore(steps, run.trainer(jax.devices()).shapes)[0])
  _equal(*states)


@pytest.mark.parametrize('names, foreign', [
    (['.lock', '.config.part.json'], False), (['.lock'], False), (['notes.txt'], True),
    (['.lock', 'notes.txt'], True)])
def test_a_run_that_another_process_begins_is_no_foreign_folder(tmp_path, names, foreign):
  for name in names:
    (tmp_path / name).write_text('')
  try:
    checkpoints.check_workdir(tmp_path, '{}')
  except UsageError as error:
    assert foreign and 'neither empty nor a run' in str(error)
  else:
    assert not foreign


@pytest.mark.parametrize('damage', [b'\xff\xfe{', b'{"a": 1', b'[' * 100_000, b'[]', b'{"fn": 3}'])
def test_a_run_whose_config_is_damaged_is_named(copy, damage):
  (copy / 'config.json').write_bytes(damage)
  with pytest.raises(UsageError) as error:
    _train(copy)
  assert str(copy) in str(error.value) and '\n' not in str(error.value)


def test_a_finished_run_is_not_run_again(finished, copy):
  before = _files(copy)
  _equal(_train(copy), finished[1])
  assert metric_lines.read(copy) == metric_lines.read(finished[0])
  assert set(before) == set(_files(copy))


def test_a_longer_run_goes_on_from_a_finished_one(copy, tmp_path):
  longer = tiny.get_config(total_steps=16)
  _equal(_train(copy, longer), _train(tmp_path / 'at once', longer))


def test_the_last_checkpoints_are_kept_with_the_config_inside(finished):
  workdir, _ = finished
  assert checkpoint_files.saved_steps(workdir) == [8, 12]
  stored = workdir / 'checkpoints' / '12' / 'config' / 'metadata'
  assert json.loads(stored.read_text()) == json.loads(stored_configs.to_json(tiny.get_config()))


def test_metrics_have_every_quartile_and_are_means_over_their_window(finished):
  lines = metric_lines.read(finished[0])
  assert [line['step'] for line in lines] == [2, 4, 6, 8, 10, 12]
  names = set().union(*lines)
  assert {f'{term}{q}' for term in ('loss', 'mse', 'vb') for q in ('', '_q0', '_q1', '_q2', '_q3')
          } | {'grad_norm', 'param_norm', 'skipped'} <= names


def test_a_line_that_a_crash_cut_short_is_written_again(copy, finished):
  with open(copy / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 14, "lo')
  _train(copy)
  assert metric_lines.read(copy) == metric_lines.read(finished[0])


@pytest.mark.parametrize('weights, pick', [
    (None, lambda state: state.ema['0.9']), ('0.5', lambda state: state.ema['0.5']),
    ('params', lambda state: state.params)])
def test_weights_are_loaded_by_name_the_slowest_average_by_default(finished, weights, pick):
  workdir, state = finished
  trained = folders.load(workdir, weights=weights)
  assert trained.class_names == tuple(map(str, range(10)))
  assert trained.step == 12 and trained.weights == (weights or '0.9')
  _equal(trained.params, pick(state))
  x = jnp.zeros((1, 8, 8, 1))
  assert trained.network.apply(trained.params, x, jnp.zeros(1)).shape[-1] == 2


def test_training_stops_after_a_run_of_steps_that_are_not_finite(tmp_path):
  config = tiny.get_config(max_skipped_in_a_row=3)
  run = config_lib.build(config)
  def terms(params, frozen, examples, dropout_keys):
    return {'loss': jnp.full(examples['t'].shape, jnp.nan)}
  run = dataclasses.replace(run, task=run.task._replace(terms=terms))
  match = 'last 4 steps, up to step 4,.*no checkpoint'  # at the second line of metrics
  with pytest.raises(TrainingStopped, match=match) as error:
    loop.train(run, stored_configs.to_json(config), tmp_path / 'run')
  assert '\n' not in str(error.value)


def _refused(match, call):
  with pytest.raises(UsageError, match=match) as error:
    call()
  assert '\n' not in str(error.value)


def test_another_config_is_refused_and_nothing_is_touched(copy):
  before = _files(copy)
  _refused('batch_size: 8 before, 16 now', lambda: _train(copy, tiny.get_config(batch_size=16)))
  assert _files(copy) == before


def test_a_run_that_never_saved_anything_may_start_anew_with_another_config(tmp_path):
  with pytest.raises(Killed):
    _train(tmp_path / 'run', stop_at=1)
  config = tiny.get_config(batch_size=4)
  _train(tmp_path / 'run', config)
  assert (tmp_path / 'run' / 'config.json').read_text() == stored_configs.to_json(config)


def test_where_and_how_fast_a_run_goes_on_may_change(copy, tmp_path, monkeypatch):
  """Microbatches, rematerialization, pictures and evaluations change nothing but rounding."""
  config = tiny.get_config(total_steps=13, microbatches=2, log_every=1, grid=call(Grid, num=4))
  config.task.network.module.remat = 'full'
  assert int(_train(copy, config).step) == 13
  before, after = (json.dumps({'evaluation': evaluation}) for evaluation in (
      {'fn': {'$name': 'a:b'}, 'num': 5}, {'fn': {'$name': 'a:b'}, 'num': 6}))
  assert stored_configs.differences(before, after, loop.MAY_CHANGE) == []
  assert stored_configs.differences(before, after) == ['evaluation.num: 5 before, 6 now']
  assert stored_configs.differences(before, after, ('eval',)) != []  # whole names only


def test_a_run_whose_images_come_slowly_says_so(tmp_path, monkeypatch):
  monkeypatch.setenv('WAYS_SECONDS_AN_IMAGE', '0.06')
  config = tiny.get_config(log_every=6, save_every=6)
  config.data = call(ways.slow_digits)
  _train(tmp_path / 'run', config)
  lines = [json.loads(line) for line in open(tmp_path / 'run' / 'speed.jsonl')]
  assert lines[-1]['data_wait'] > 0.5


def _spent(workdir):
  """[(step, Goodput)] of the lines of `speed.jsonl`."""
  lines = [json.loads(line) for line in open(workdir / 'speed.jsonl')]
  for line in lines:
    shares = [line[f'share_{kind}'] for kind in goodput.KINDS]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and min(shares) >= 0
  return [(line['step'], goodput.of_fields(line)) for line in lines]


def test_all_time_of_a_run_that_was_killed_and_stopped_is_accounted_for(tmp_path):
  began = time.perf_counter()
  with pytest.raises(Killed):
    _train(tmp_path / 'run', stop_at=11)  # step 8 is saved, and there is a line of step 10
  assert not (tmp_path / 'run' / 'checkpoints' / '10').exists()
  (*_, (_, saved), (last, killed)) = _spent(tmp_path / 'run')
  assert last == 10 and killed.compile > 0 and killed.steps > 0
  lines = []
  config = tiny.get_config(sample_every=6)
  loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run',
             progress=lambda step, line: lines.append((step, line)))
  elapsed = time.perf_counter() - began
  steps, spent = zip(*_spent(tmp_path / 'run'))
  assert steps == (2, 4, 6, 8, 10, 12)
  assert [each.seconds for each in spent] == sorted(each.seconds for each in spent)
  assert spent[-1].restarts > killed.seconds - saved.seconds
  assert spent[-1].checkpoints > spent[-2].checkpoints  # the last one is in it
  assert spent[-1].evaluation > 0  # the picture of step 12
  assert killed.seconds < spent[-1].seconds < elapsed
  assert goodput.of_fields(lines[-1][1]) == spent[-1] and lines[-1][0] == 12


def test_a_run_that_is_stopped_between_two_lines_says_what_it_took(tmp_path):
  def stop(step, line):
    if step == 5:
      signal.raise_signal(signal.SIGTERM)
  config = tiny.get_config()
  with pytest.raises(Preempted):
    loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run',
               progress=stop)
  (*_, (step, stopped)) = _spent(tmp_path / 'run')
  assert step == 6
  config = tiny.get_config(log_every=4)
  with pytest.raises(Preempted):
    loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run',
               progress=lambda step, line: step == 9 and signal.raise_signal(signal.SIGTERM))
  (*_, (before, _), (step, again)) = _spent(tmp_path / 'run')
  assert (before, step) == (8, 10) and again.seconds > stopped.seconds
  _train(tmp_path / 'run', config)
  assert [step for step, _ in _spent(tmp_path / 'run')] == [2, 4, 6, 8, 10, 12]


def test_fewer_steps_than_are_done_are_refused(copy):
  shorter = tiny.get_config(total_steps=5)
  _refused('at step 12 already: total_steps=5', lambda: _train(copy, shorter))


def test_a_run_on_ones_own_data_goes_on_and_its_weights_load(tmp_path, monkeypatch):
  """A function of the user's own is stored by name, compared by name, and never looked up."""
  def mine(split='train'):
    return digits(split)
  mine.__module__ = 'a_module_of_mine'
  config = tiny.get_config(data=config_lib.call(mine))
  with pytest.raises(Killed):
    _train(tmp_path / 'run', config, stop_at=5)
  assert _train(tmp_path / 'run', config).step == 12
  assert folders.load(tmp_path / 'run', config=config).step == 12


def test_a_folder_of_other_things_is_refused_and_nothing_is_touched(tmp_path):
  (tmp_path / 'thesis.tex').write_text('important')
  _refused('neither empty nor a run', lambda: _train(tmp_path))
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_a_checkpoint_that_is_cut_short_is_refused(copy):
  step = copy / 'checkpoints' / '12'
  for path in (step / 'state' / 'd').iterdir():
    path.write_bytes(path.read_bytes()[:10])
  before = _files(step)
  _refused(f'{step} cannot be read', lambda: _train(copy, tiny.get_config(total_steps=14)))
  _refused(f'{step} cannot be read', lambda: folders.load(copy))
  assert _files(step) == before


def test_a_checkpoint_without_its_description_is_refused(copy):
  (copy / 'checkpoints' / '12' / 'state' / '_METADATA').unlink()
  _refused('cannot be read', lambda: folders.load(copy))


def test_a_checkpoint_of_another_architecture_names_the_tensors(copy):
  """The config was edited to another width: kernels differ in shape."""
  text = (copy / 'config.json').read_text()
  (copy / 'config.json').write_text(text.replace('"channels": 32', '"channels": 64'))
  _refused(r'conv_out/kernel: \(3, 3, 32, 2\) in the checkpoint, \(3, 3, 64, 2\) in the network',
           lambda: folders.load(copy))


@pytest.mark.parametrize('kwargs, match', [
    (dict(step=5), r'no checkpoint of step 5: it has steps \[8, 12\]'),
    (dict(weights='0.99'), "no weights '0.99': give params or 0.9 or 0.5")])
def test_what_a_work_directory_does_not_hold_is_refused(finished, kwargs, match):
  _refused(match, lambda: folders.load(finished[0], **kwargs))


def test_a_missing_checkpoint_is_refused(tmp_path):
  _refused('has no checkpoint', lambda: folders.load(tmp_path / 'nowhere'))


@pytest.mark.parametrize('kwargs, match', [
    (dict(save_every=3), 'save_every=3 is not a multiple of log_every=2'),
    (dict(batch_size=0), 'batch_size=0'), (dict(microbatches=3), 'choose a divisor'),
    (dict(ema_rates=(1.0,)), 'less than 1'),
    (dict(ema_rates=(0,)), r'ema_rates holds 0: .* or ema_rates=\(\) for no average'),
    (dict(ema_rates=(0.0,)), 'ema_rates holds 0.0'),
    (dict(seed=-1), 'seed=-1'), (dict(seed=2**32), 'give 0 to 4294967295'),
    (dict(total_steps=13, optimizer=call(adamw, learning_rate=1e-3, linear_decay_steps=12)),
     'the learning rate is 0 after 12 updates: give optimizer.linear_decay_steps=13 too')])
def test_an_impossible_run_is_refused_when_it_is_described(kwargs, match):
  _refused(match, lambda: config_lib.build(tiny.get_config(**kwargs)))


@pytest.mark.parametrize('word, match', [
    ('--config.task.network.module.image_size=16', r'images of \(8, 8, 1\)'),
    ('--config.task.network.module.in_channels=3', 'out_channels=2'),
    ('--config.task.network.module.out_channels=1', 'out_channels=1'),
    ('--config.task.network.module.num_classes=7', 'has 10 classes, the network 7'),
    ('--config.task.network.module.channels=48', '32 groups'),
    ('--config.task.network.module.channel_mult=1,1,1,1,1', 'cannot be halved 4 times'),
    ('--config.task.network.module.attention_resolutions=7', r'\[7\] never occur'),
    ('--config.task.network.module.remat=some', "remat 'some'"),
    ('--config.task.network.module.depth=0', 'depth=0'),
    ('--config.task.network.module.head_channels=0', 'at least 1'),
    ('--config.task.network.module.dropout=1.5', 'dropout=1.5'),
    ('--config.task.network.module.dtype=float31', 'dtype=float31'),
    ('--config.task.network.module.channel_mult=()', 'a multiplier for each level'),
    ('--config.task.network.diffusion.schedule.num_steps=0', 'at least 1 step'),
    ('--config.task.network.diffusion.schedule.num_steps=50',
     'num_steps=40, but the process has 50')])
def test_a_network_that_cannot_be_is_refused_when_it_is_described(word, match):
  _refused(match, lambda: config_lib.build(config_lib.override(tiny.get_config(), [word])))
