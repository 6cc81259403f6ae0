"""What the first version wrote goes on: runs, converted weights, and sampling jobs.

`version_1.zip` holds a run of 4 steps with its averages as an .npz beside it, a classifier, an
upsampler, and a guided job that was killed after its first shard, with the file that it would have
ended in.
"""

import pathlib
import zipfile

import flax
import jax
import numpy as np
import pytest
import tiny

from adm_jax import config as config_lib
from adm_jax import networks, stored_configs
from adm_jax.cli.main import main
from adm_jax.config import call
from adm_jax.errors import UsageError
from adm_jax.models import UNet
from adm_jax.training import loop, tasks
from adm_jax.weights import folders

ARCHIVE = pathlib.Path(__file__).parent / 'version_1.zip'


@pytest.fixture
def old(tmp_path, monkeypatch):
  """The folder of all that was written, as the current one."""
  with zipfile.ZipFile(ARCHIVE) as archive:
    archive.extractall(tmp_path)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def same_config(total_steps):
  """The run's config in today's words."""
  module = call(UNet, image_size=8, out_channels=2, in_channels=1, num_classes=10, num_heads=1,
                channels=8, channel_mult=(1,), depth=1, attention_resolutions=(), num_groups=4)
  network = call(networks.unet, module=module, diffusion=tiny._diffusion(), with_null_label=True)
  return tiny._run(call(tasks.diffusion, network=network, label_dropout=0.1),
                   total_steps=total_steps, ema_rates=(0.9,), batch_size=4, keep=1)


def test_a_run_is_read_and_goes_on(old):
  trained = folders.load(old / 'run')
  with np.load(old / 'weights.npz') as wanted:
    found = flax.traverse_util.flatten_dict(trained.params, sep='/')
    assert set(found) == set(wanted)
    for name, value in found.items():
      np.testing.assert_array_equal(value, wanted[name])
  assert (trained.network.num_classes, trained.network.null_label) == (10, 10)
  config = same_config(8)
  lines = (old / 'run' / 'metrics.jsonl').read_text()
  state = loop.train(config_lib.build(config), stored_configs.to_json(config), old / 'run')
  assert int(state.step) == 8
  assert (old / 'run' / 'metrics.jsonl').read_text().startswith(lines)


def test_its_config_is_todays(old):
  text = (old / 'run' / 'config.json').read_text()
  assert not stored_configs.differences(
      text, stored_configs.to_json(same_config(4)), ignore=loop.MAY_CHANGE)
  config = stored_configs.from_json(text)
  assert config_lib.build(config.task).network == config_lib.build(same_config(4).task).network
  config.task.label_dropout = 0.2
  with pytest.raises(UsageError, match='label_dropout: 0.1 before, 0.2 now'):
    loop.train(config_lib.build(config), stored_configs.to_json(config), old / 'run')


@pytest.mark.parametrize('name, classifies', [('classifier', True), ('upsampler', False)])
def test_converted_weights_are_read(old, name, classifies):
  trained = folders.load(old / name)
  assert trained.network.classifies == classifies
  x = np.zeros((2, *trained.network.image_shape), np.float32)
  low_res = None if classifies else np.zeros((2, 8, 8, 1), np.float32)
  answer = jax.jit(trained.network.apply)(trained.params, x, np.zeros(2), low_res=low_res)
  assert np.isfinite(answer).all()


def test_a_job_goes_on_to_the_images_that_it_would_have_had(old):
  shard = next((old / 'job' / 'shards').iterdir()).read_bytes()
  words = ('sample --model run --classifier classifier --scale 2 --cfg-scale 3 --guide-between '
           '0.1,9 --classes 0-9 --respacing 4 --batch-size 4 --num 10 --out job')
  assert main(f'{words} --seed 1'.split()) == 2  # another job
  assert main(words.split()) == 0
  with np.load('job/samples.npz') as found, np.load('whole/samples.npz') as wanted:
    assert found['arr_0'].tobytes().startswith(shard)
    np.testing.assert_array_equal(found['arr_1'], wanted['arr_1'])
    # As bytes on the machine that made it; elsewhere rounding may differ.
    assert (np.abs(found['arr_0'].astype(int) - wanted['arr_0']) <= 1).all()


def test_a_newer_version_than_this_is_refused():
  text = stored_configs.to_json(tiny.get_config()).replace(
      f'"$version": {stored_configs.VERSION}', '"$version": 99')
  with pytest.raises(UsageError, match='version 99'):
    stored_configs.from_json(text)
