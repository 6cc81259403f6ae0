"""Configs: what is written is what is built, stored and compared."""

import json
import pathlib

import pytest
import tiny

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.config import call
from adm_jax.data.loading import Loader
from adm_jax.data.open import open_source
from adm_jax.errors import UsageError
from adm_jax.models import UNet
from adm_jax.process import schedules
from adm_jax.training.loop import Run


def test_build_makes_the_calls_innermost_first():
  config = call(schedules.respace, schedule=call(schedules.linear, num_steps=100), spec='10')
  wanted = schedules.respace(schedules.linear(num_steps=100), '10')
  assert config_lib.build(config) == wanted


def test_defaults_are_visible_and_overridable():
  config = call(UNet, image_size=8, out_channels=2)
  assert config.depth == UNet(image_size=8, out_channels=2, attention_resolutions=(8,)).depth
  assert config_lib.override(config, ['--config.depth=5']).depth == 5
  assert config.depth != 5  # the original is untouched


@pytest.mark.parametrize('word, path, value', [
    ('--config.batch_size=3', 'batch_size', 3),
    ('--config.ema_rates=(.5,.25)', 'ema_rates', (0.5, 0.25)),
    ('--config.ema_rates=.5', 'ema_rates', (0.5,)),
    ('--config.ema_warmup=true', 'ema_warmup', True),
    ('--config.optimizer.learning_rate=1', 'optimizer.learning_rate', 1.0),
    ('--config.optimizer.clip_norm=0.5', 'optimizer.clip_norm', 0.5),
    ('--config.optimizer.clip_norm=None', 'optimizer.clip_norm', None),
    ('--config.task.network.module.num_classes=None', 'task.network.module.num_classes', None),
    ('--config.data.split=held_out', 'data.split', 'held_out'),
    ('--config.grid.respacing=10,10', 'grid.respacing', '10,10'),
    ('--config.task.network.module.dtype=bfloat16', 'task.network.module.dtype', 'bfloat16'),
    ('--config.task.network.module.channel_mult=1,2', 'task.network.module.channel_mult', (1, 2)),
])
def test_overrides_are_python_literals_of_the_old_type(word, path, value):
  config = config_lib.override(tiny.get_config(), [word])
  for name in path.split('.'):
    config = config[name]
  assert config == value and type(config) is type(value)


def test_none_may_stand_where_the_annotation_says_so():
  config = call(open_source, path='a', labels='prefix')
  config = config_lib.override(config, ['--config.labels=None'])
  assert config.labels is None
  assert config_lib.override(config, ['--config.labels=folders']).labels == 'folders'
  with pytest.raises(UsageError, match='right type'):
    config_lib.override(config, ['--config.path=None'])


@pytest.mark.parametrize('word, message', [
    ('--config.batch_sise=3', "did you mean 'batch_size'"),
    ('--config.task.network.module.dept=3', "did you mean 'task.network.module.depth'"),
    ('--config.batch_size=many', 'not of the right type, int'),
    ('--config.batch_size=1.5', 'not of the right type, int'),
    ('--config.task.network.module.num_classes=abc', 'not of the right type'),
    ('--config.optimizer.clip_norm=abc', 'not of the right type'),
    ("--config.ema_rates=('a',)", 'not of the right type, tuple'),
    ('--config.task.network.module=3', 'did you mean'),
    ('--batch_size=3', '--config.key=value'),
    ('--config.batch_size', '--config.key=value'),
])
def test_a_wrong_override_says_what_would_be_right(word, message):
  with pytest.raises(UsageError, match=message) as error:
    config_lib.override(tiny.get_config(), [word])
  assert '\n' not in str(error.value)


def test_a_mistyped_argument_in_a_config_file_gets_the_near_miss():
  with pytest.raises(UsageError, match="did you mean 'num_steps'"):
    call(schedules.linear, num_step=100)


@pytest.mark.parametrize('make', [tiny.get_config, tiny.classifier_config])
def test_stored_configs_come_back_equal(make):
  text = stored_configs.to_json(make())
  restored = stored_configs.from_json(text)
  assert stored_configs.to_json(restored) == text
  assert config_lib.build(restored.task).network == config_lib.build(make().task).network


def test_paths_are_stored_as_text_and_overridden_by_it():
  config = call(open_source, path=pathlib.Path('imgs'))
  assert stored_configs.to_json(config) == stored_configs.to_json(call(open_source, path='imgs'))
  assert config_lib.override(config, ['--config.path=photos']).path == pathlib.Path('photos')


def test_a_value_that_cannot_be_stored_is_one_line():
  config = tiny.get_config(loader=Loader(flip=True))
  with pytest.raises(UsageError, match='of the type Loader, which cannot be stored') as error:
    stored_configs.to_json(config)
  assert '\n' not in str(error.value)


def _mistyped():
  config = tiny.get_config()
  config.optimizer.learning_rat = 1e-4  # call() was not asked
  return config


@pytest.mark.parametrize('config, message', [
    (call(Run, total_steps=3), 'loop:Run cannot be built without data, task, timestep_sampler, '),
    (tiny.get_config(data=config_lib.ConfigDict({'path': 'imgs'})),
     r'says no function: write call\(FUNCTION, path=...\)'),
    (_mistyped(), "adamw has no argument 'learning_rat': did you mean 'learning_rate'")])
def test_a_call_that_lacks_something_or_has_too_much_says_what(config, message):
  with pytest.raises(UsageError, match=message) as error:
    config_lib.build(config)
  assert '\n' not in str(error.value)


def test_no_override_reaches_a_part_that_is_no_call():
  config = tiny.get_config(data=config_lib.ConfigDict({'path': 'imgs'}))
  with pytest.raises(UsageError, match='says no function'):
    config_lib.override(config, ['--config.data.path=photos'])


def test_differences_name_the_keys_with_both_values():
  old = stored_configs.to_json(tiny.get_config())
  new = stored_configs.to_json(tiny.get_config(batch_size=16, total_steps=99))
  assert stored_configs.differences(old, old) == []
  assert stored_configs.differences(old, new, ignore=('total_steps',)) == [
      'batch_size: 8 before, 16 now']


def test_a_stored_config_from_before_an_argument_has_the_value_that_was_in_effect():
  text = stored_configs.to_json(tiny.get_config())
  tree = json.loads(text)
  del tree['optimizer']['decay_after_step']
  assert stored_configs.differences(json.dumps(tree), text) == []
  assert stored_configs.from_json(json.dumps(tree)).optimizer.decay_after_step is False


@pytest.mark.parametrize('name', [
    'os:system', 'adm_jax.training.loop:os.system', 'adm_jax.training.loop:os',
    'adm_jax.training.loop:train', 'adm_jax.files:written_whole', 'adm_jax.io.downloads:download',
    'adm_jax.data_of_mine:digits', 'jax:jit', 'adm_jax.training.tasks:optax'])
def test_a_stored_config_cannot_name_foreign_code(name, tmp_path):
  """Whoever loads a stranger's folder calls what it names."""
  text = json.dumps({'fn': {'$name': name}, 'command': 'echo broken in'})
  with pytest.raises(UsageError, match=name):
    stored_configs.from_json(text)


def test_configs_with_functions_of_ones_own_can_be_compared():
  """So that a run with one's own data goes on like any other."""
  text = stored_configs.to_json(tiny.get_config())
  mine = text.replace('adm_jax.data.digits:digits', 'my_project.data:cats')
  assert stored_configs.differences(mine, mine) == []
  assert stored_configs.differences(text, mine) == [
      'data.fn: adm_jax.data.digits:digits before, my_project.data:cats now']


def test_a_stored_config_that_is_cut_short_is_one_line():
  with pytest.raises(UsageError, match='cut short') as error:
    stored_configs.from_json(stored_configs.to_json(tiny.get_config())[:50])
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('content, message', [
    (None, 'there is no config'), ('x = 1\n', 'get_config'), ('def get_config(:\n', 'SyntaxError'),
    ('import no_such_module\n', 'no_such_module'), ('def get_config():\n  return 3\n', 'returns')])
def test_a_wrong_config_file_is_one_line(tmp_path, content, message):
  path = tmp_path / 'run.py'
  if content is not None:
    path.write_text(content)
  with pytest.raises(UsageError, match=message):
    config_lib.load(path)
