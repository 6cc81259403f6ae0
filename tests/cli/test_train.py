"""`adm train`: what it starts from, and what it refuses."""

import fcntl
import resource

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import traces
import ways

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.cli.main import main
from adm_jax.devices import hosts
from adm_jax.errors import TrainingStopped, UsageError
from adm_jax.training import checkpoints, fine_tuning, loop
from adm_jax.training.state import TrainState
from adm_jax.weights import checkpoint_files, folders


def _flat(params):
  return flax.traverse_util.flatten_dict(params, sep='/')


def _classes(count, **kwargs):
  config = tiny.get_config(**kwargs)
  config.task.network.module.num_classes = count
  return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A work directory of a network with 12 classes."""
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  config = _classes(12, total_steps=2, save_every=2, sample_every=2, ema_rates=(0.9,))
  loop.train(config_lib.build(config), stored_configs.to_json(config), workdir)
  return workdir


def test_fine_tuning_keeps_all_but_the_class_table(trained):
  run = config_lib.build(_classes(10))
  params, text = fine_tuning.start(str(trained), run)
  given, got = _flat(folders.load(trained).params), _flat(params)
  table = 'embedding/label/embedding'
  assert table in text and '0.9 at step 2' in text
  assert got[table].shape == (10, 128) and 0.9 < got[table].std() < 1.1
  for name in given.keys() - {table}:
    np.testing.assert_array_equal(got[name], given[name], err_msg=name)
  state = loop.started_from(run.init(), params)
  for tree in (state.params, *state.ema.values()):
    jax.tree.map(np.testing.assert_array_equal, tree, params)


@pytest.mark.parametrize('dtype', [np.float16, jnp.bfloat16])
def test_a_run_that_starts_from_16_bits_trains_in_32(dtype):
  params = {'w': jnp.zeros((2, 3)), 'b': jnp.zeros(())}
  state = TrainState(0, params, {'0.9': params}, None, None, 0, 0)
  started = loop.started_from(state, jax.tree.map(lambda leaf: np.ones(leaf.shape, dtype), params))
  for leaf in jax.tree.leaves((started.params, started.ema)):
    assert leaf.dtype == np.float32 and (leaf == 1).all()


def test_fine_tuning_with_the_same_classes_keeps_the_table(trained):
  params, text = fine_tuning.start(str(trained), config_lib.build(_classes(12)))
  jax.tree.map(np.testing.assert_array_equal, params, folders.load(trained).params)
  assert 'new' not in text


def test_fine_tuning_another_architecture_names_the_difference(trained):
  config = _classes(10)
  config.task.network.module.channels = 64
  with pytest.raises(UsageError, match=r'another architecture, \d+ tensors') as error:
    fine_tuning.start(str(trained), config_lib.build(config))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('field, value, message', [
    ('num_groups', 8, 'num_groups 32 there, 8 here'), ('qkv_first', True, 'qkv_first False there'),
    ('num_heads', 2, r'attention heads \[4, 4\] there, \[2, 2\] here')])
def test_fine_tuning_where_shapes_fit_and_mean_something_else_is_refused(trained, field, value,
                                                                         message):
  config = _classes(12)
  config.task.network.module[field] = value
  with pytest.raises(UsageError, match=message) as error:
    fine_tuning.start(str(trained), config_lib.build(config))
  assert '\n' not in str(error.value)


def test_a_picture_of_samples_is_drawn(trained):
  from PIL import Image
  with Image.open(trained / 'samples' / '0000002.png') as picture:
    assert min(picture.size) > 4 * 64  # 16 images of 8 x 8, enlarged


def test_steps_of_a_run_that_goes_on_are_traced_under_their_numbers(tmp_path, capsys):
  words = ['train', '--config', tiny.__file__, '--workdir', str(tmp_path / 'run'),
           '--config.save_every=2']
  assert main([*words, '--config.total_steps=4', '--profile', '4:1']) == 0
  output = capsys.readouterr().out
  assert 'no trace: 4 training steps ran' in output and output.startswith('wall time 0:00:')
  assert main([*words, '--config.total_steps=4', '--profile', '0:1']) == 0
  assert 'no trace: 0 training steps ran' in capsys.readouterr().out
  assert main([*words, '--config.total_steps=8', '--profile', '1:2']) == 0
  assert f'trace of training step 6 to 7: {tmp_path}/run/profile ' in capsys.readouterr().out
  assert traces.steps(tmp_path / 'run', 'training step') == [6, 7]


@pytest.mark.parametrize('words, message', [
    (['--process', '0'], '--coordinator and --num-processes missing'),
    (['--coordinator', 'a:1', '--num-processes', '2', '--process', '2'], 'from 0 to 1'),
    (['--coordinator', 'a', '--num-processes', '2', '--process', '1'], 'no port'),
    (['--config.parallel=pjit'], 'give jit or pmap'),
    (['--config.parallel=pmap', '--config.fsdp=1', '--config.num_devices=9'], 'num_devices=9'),
    (['--config.fsdp=3'], 'fsdp=3 does not divide the 1 devices'),
    (['--config.sample_every=-1'], 'sample_every=-1'),
    (['--init-from', 'absent.pt'], 'absent.pt'),
    (['--profile', 'x'], '--profile x: give START:COUNT'),
    (['--profile', '0'], '--profile 0: give START:COUNT'),
    (['--profile=-1:2'], '--profile -1:2: give START:COUNT'),
    (['--profile', '5:0'], '--profile 5:0: COUNT is how many are traced'),
    (['--workdir', 'gs://there-is-no-such-bucket/x'], 'cannot be used')])
def test_a_mistake_is_one_line_and_leaves_nothing(words, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(['train', '--config', tiny.__file__, '--workdir', 'x', *words]) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1 and not list(tmp_path.iterdir())


def test_pictures_of_a_classifier_are_refused():
  with pytest.raises(UsageError, match='draws no images'):
    config_lib.build(tiny.classifier_config(sample_every=2))


def test_two_runs_in_one_work_directory_are_refused(trained):
  text = (trained / 'config.json').read_text()
  with open(trained / '.lock') as other:
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match='another process trains in'):
      checkpoints.Checkpoints(trained, text)
  with checkpoints.Checkpoints(trained, text) as again:
    assert again.latest_step() == 2


def test_where_one_process_refuses_there_is_no_other():
  def refuse():
    raise UsageError('no')
  with pytest.raises(UsageError, match='no'):
    hosts.by_first(refuse)


@pytest.mark.parametrize('most', [4_000, 100])  # too little for a checkpoint; for a line as well
def test_a_full_disk_leaves_the_last_good_checkpoint(most, tmp_path):
  """Files may not grow beyond so many bytes once the first checkpoint is there."""
  config = ways.get_config(total_steps=12, save_every=2, log_every=2)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  def progress(step, line):
    if step == 3:
      while checkpoint_files.saved_steps(tmp_path / 'run') != [2]:
        pass
      resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
  try:
    with pytest.raises(TrainingStopped, match='checkpoint of step 2 is whole') as error:
      loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run',
                 progress=progress)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert '\n' not in str(error.value)
  assert f"File too large: {tmp_path / 'run'}/" in str(error.value)
  assert folders.load(tmp_path / 'run', config=config).step == 2
  state = loop.train(config_lib.build(config), stored_configs.to_json(config), tmp_path / 'run')
  assert state.step == 12
