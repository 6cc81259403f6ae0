"""The runs in `configs/` are the papers', and a default that changes them shows here.

`python tests/test_configs.py` writes the golden texts anew, to be read before they are committed.
"""

import functools
import math
import pathlib

import jax
import pytest

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.errors import UsageError
from adm_jax.weights import catalog

CONFIGS = pathlib.Path(__file__).parent.parent / 'configs'
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py') if path.stem != '__init__')


@functools.cache
def _load(name):
  return config_lib.load(CONFIGS / f'{name}.py')


def _parameters(task) -> int:
  return sum(math.prod(leaf.shape) for leaf in
             jax.tree.leaves(jax.eval_shape(task.network.init, jax.random.key(0))))


@pytest.mark.parametrize('name', NAMES)
def test_a_config_resolves_to_its_golden_text(name):
  assert stored_configs.to_json(_load(name)) + '\n' == (GOLDEN / f'{name}.json').read_text(), (
      'if this change is meant: python tests/test_configs.py')


def test_no_golden_text_is_without_its_config():
  assert sorted(path.stem for path in GOLDEN.glob('*.json')) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_network_process_and_data_of_a_config_fit(name):
  """All of a run that can be built without its images."""
  config = _load(name)
  task = config_lib.build(config.task)
  num_steps = task.network.diffusion.schedule.num_steps
  assert config_lib.build(config.timestep_sampler).num_steps == num_steps
  config_lib.build(config.optimizer)
  if 'image_size' in config.data:
    assert task.network.image_shape == (config.data.image_size, config.data.image_size, 3)
  assert config.batch_size % config.microbatches == 0
  assert config.save_every % config.log_every == 0
  restored = stored_configs.from_json(stored_configs.to_json(config))
  assert stored_configs.to_json(restored) == stored_configs.to_json(config)


@pytest.mark.parametrize('name, published', [
    ('imagenet64', 'imagenet64'), ('imagenet512_classifier', 'imagenet512-classifier'),
    ('upsampler_128_512', '128_512'), ('lsun_cat', 'lsun-cat'),
    ('iddpm_imagenet64_cond', 'iddpm-imagenet64-cond')])
def test_a_config_trains_the_published_network(name, published):
  """Its size is the published file's."""
  assert _parameters(config_lib.build(_load(name).task)) == catalog.find(published).parameters


def test_cifar10_has_the_parameters_of_the_published_recipe():
  assert _parameters(config_lib.build(_load('cifar10').task)) == 57_094_662


@pytest.mark.parametrize('classifier, unet', [
    ('cifar10_classifier', 'cifar10'), ('cifar10_classifier', 'cifar10_cond'),
    ('digits_classifier', 'digits_unet'),
    *((f'imagenet{size}_classifier', f'imagenet{size}') for size in (64, 128, 256, 512)),
    ('imagenet256_classifier', 'imagenet256_uncond')])
def test_a_classifier_knows_the_noise_of_the_unet_it_guides(classifier, unet):
  one, other = (config_lib.build(_load(name).task.network.diffusion.schedule)
                for name in (classifier, unet))
  assert one == other


@pytest.mark.parametrize('name, batch_size, total_steps, learning_rate', [
    # Tables 11 to 13 of the ADM paper; IDDPM's from its paper and README.
    ('imagenet64', 2048, 540_000, 3e-4), ('imagenet128', 256, 4_360_000, 1e-4),
    ('imagenet256', 256, 1_980_000, 1e-4), ('imagenet512', 256, 1_940_000, 1e-4),
    ('lsun_bedroom', 256, 500_000, 1e-4), ('lsun_horse', 256, 250_000, 1e-4),
    ('lsun_cat', 256, 200_000, 1e-4), ('upsampler_64_256', 256, 500_000, 1e-4),
    ('upsampler_128_512', 256, 1_050_000, 1e-4), ('imagenet64_classifier', 1024, 300_000, 6e-4),
    ('imagenet128_classifier', 256, 300_000, 3e-4), ('imagenet256_classifier', 256, 500_000, 3e-4),
    ('imagenet512_classifier', 256, 500_000, 3e-4), ('iddpm_cifar10', 128, 500_000, 1e-4),
    ('iddpm_imagenet64', 128, 1_500_000, 1e-4), ('iddpm_imagenet64_cond', 2048, 250_000, 3e-4)])
def test_batch_steps_and_rate_are_the_papers(name, batch_size, total_steps, learning_rate):
  config = _load(name)
  assert (config.batch_size, config.total_steps) == (batch_size, total_steps)
  assert config.optimizer.learning_rate == learning_rate
  if name.endswith('classifier'):
    assert config.optimizer.linear_decay_steps == total_steps and config.ema_rates == ()
  else:
    assert config.optimizer.weight_decay == 0 and config.ema_rates == (0.9999,)


def test_the_folder_template_asks_for_its_folder():
  with pytest.raises(UsageError, match='config.data.path') as error:
    config_lib.build(_load('folder'))
  assert '\n' not in str(error.value)


if __name__ == '__main__':
  GOLDEN.mkdir(exist_ok=True)
  for config_name in NAMES:
    (GOLDEN / f'{config_name}.json').write_text(stored_configs.to_json(_load(config_name)) + '\n')
