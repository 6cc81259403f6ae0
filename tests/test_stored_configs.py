"""Stored configs of anyone's: read and built without harm, or refused in one line."""

import json
import time

import pytest
import tiny

from adm_jax import stored_configs
from adm_jax.data.loading import Loader
from adm_jax.data.npz_file import NpzFile
from adm_jax.data.open import open_source
from adm_jax.errors import UsageError, of_file
from adm_jax.io import json_files
from adm_jax.process import losses, schedules, timestep_samplers
from adm_jax.process.diffusion import Diffusion

_GOOD = json.loads(stored_configs.to_json(tiny.get_config()))
_CALL = {'fn': {'$name': 'adm_jax.data.open:open_source'}, 'path': '/etc'}


def _read(path):
  return stored_configs.from_json(json_files.read_text(path))


def _with(value, *keys):
  """The good config with another value under a path of keys."""
  tree = json.loads(json.dumps(_GOOD))
  node = tree
  for key in keys[:-1]:
    node = node[key]
  node[keys[-1]] = value
  return json.dumps(tree)


_NETWORK = ('task', 'network')
_MODULE = (*_NETWORK, 'module')


def test_a_good_config_is_built(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(_GOOD))
  run = stored_configs.build(_read(tmp_path / 'config.json'))
  assert run.batch_size == tiny.get_config().batch_size


@pytest.mark.parametrize('text, match', [
    ('', 'cut short or no JSON'), ('{"a": ', 'cut short'), ('[]', 'no object'), ('7', 'no object'),
    ('[' * 100_000 + ']' * 100_000, 'recursion'), ('{"a":' * 900 + '1' + '}' * 900, 'damaged|recu'),
    ('{"a": NaN}', 'NaN is no number'), ('{"a.b": 1}', 'damaged'), ('\ufffe', 'no JSON'),
    (json.dumps({'$version': [1]}), 'version'),
    ('{' + ' ' * (5 << 20) + '}', 'more than 4,194,304'),
    (_with({'$name': 7}, 'data'), 'names 7'), (_with({'$name': 'os:system'}, 'data'), 'os:system'),
    (_with({'$name': 'adm_jax.data.absent:x'}, 'data'), 'No module'),
    (_with({'$name': 'adm_jax.data.labels:_read_json'}, 'data'), '_read_json, which is not one'),
    # What a network or a task names opens no file.
    (_with(_CALL, *_MODULE), 'open_source, which is not one of the functions'),
    (_with({'fn': _GOOD['task']['fn'], 'a': _CALL}, 'task'), 'open_source, which is not one of'),
    (_with({'fn': _GOOD['task']['fn'], 'task': _CALL}, *_NETWORK), 'which is not one of the'),
    (_with({'a': [_CALL]}, *_NETWORK), 'open_source, which is not one of the functions'),
    # Values that the functions are not for.
    (_with([], *_NETWORK), 'built'), (_with(3, *_MODULE), 'built|module'),
    (_with(1, *_MODULE, 'colour'), "has no argument 'colour'"),
    (_with('many', *_MODULE, 'channels'), 'built'),
    (_with(10**9, *_MODULE, 'channels'), 'at most 65536'),
    (_with(-32, *_MODULE, 'channels'), 'at least 1'),
    (_with({}, *_MODULE, 'channels'), 'built'), (_with([{}], *_MODULE, 'channel_mult'), 'built'),
    (_with(10**9, *_MODULE, 'depth'), 'more than 256 blocks'),
    (_with([1] * 1000, *_MODULE, 'channel_mult'), 'more than 256 blocks'),
    (_with(10**9, *_NETWORK, 'diffusion', 'schedule', 'num_steps'), 'at most 1,000,000'),
    (_with('x', *_NETWORK, 'diffusion', 'schedule', 'num_steps'), 'built')])
def test_a_damaged_or_hostile_config_ends_in_a_line_that_names_the_file(tmp_path, text, match):
  path = tmp_path / 'config.json'
  path.write_text(text)
  start = time.monotonic()
  with pytest.raises(UsageError, match=match) as error:
    with of_file(path):
      stored_configs.build(_read(path))
  assert str(path) in str(error.value) and '\n' not in str(error.value)
  assert time.monotonic() - start < 5


def test_what_is_trusted_depends_on_the_place():
  assert stored_configs.is_trusted(json.dumps(_GOOD))
  assert stored_configs.is_trusted(_with(_CALL, 'data'))
  assert not stored_configs.is_trusted(_with(_CALL, *_MODULE))


@pytest.mark.parametrize('before, today', [
    ('adm_jax.data.images:images', open_source), ('adm_jax.data.npz:Npz', NpzFile),
    ('adm_jax.data.pipeline:Loader', Loader), ('adm_jax.diffusion:Diffusion', Diffusion),
    ('adm_jax.losses:mse', losses.mse), ('adm_jax.schedules:cosine', schedules.cosine),
    ('adm_jax.timestep_samplers:uniform', timestep_samplers.uniform)])
def test_what_has_moved_since_version_1_is_found(before, today):
  text = json.dumps({**_GOOD, '$version': 1, 'data': {'fn': {'$name': before}}})
  assert stored_configs.from_json(text).data.fn is today
