"""The runs in `configs/` are the papers', and a default that changes them shows here.

`python tests/test_configs.py` writes the golden texts anew, to be read before they are committed.
"""

import dataclasses
import functools
import math
import pathlib
import re

import jax
import pytest

from adm_jax import config as config_lib
from adm_jax import stored_configs
from adm_jax.errors import UsageError
from adm_jax.training.evaluations import Evaluation
from adm_jax.weights import catalog, flags

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
  # A teacher may be a run that is still to be made: `adm distill` builds such tasks in its tests.
  network = (config_lib.build(config.task.network) if 'teacher' in config.task
             else config_lib.build(config.task).network)
  num_steps = network.diffusion.schedule.num_steps
  assert config_lib.build(config.timestep_sampler).num_steps == num_steps
  config_lib.build(config.optimizer)
  if 'image_size' in config.data:
    assert network.image_shape == (config.data.image_size, config.data.image_size, 3)
  assert config.batch_size % config.microbatches == 0
  assert config.save_every % config.log_every == 0
  restored = stored_configs.from_json(stored_configs.to_json(config))
  assert stored_configs.to_json(restored) == stored_configs.to_json(config)


# The config of each published model that has one.
PUBLISHED = {
    **{f'imagenet{size}': f'imagenet{size}' for size in (64, 128, 256, 512)},
    **{f'imagenet{size}_classifier': f'imagenet{size}-classifier' for size in (64, 128, 256, 512)},
    'imagenet256_uncond': 'imagenet256-uncond', 'upsampler_64_256': '64_256',
    'upsampler_128_512': '128_512', 'lsun_bedroom': 'lsun-bedroom', 'lsun_cat': 'lsun-cat',
    'lsun_horse': 'lsun-horse', 'iddpm_cifar10': 'iddpm-cifar10',
    'iddpm_cifar10_vlb': 'iddpm-cifar10-vlb', 'iddpm_imagenet64': 'iddpm-imagenet64',
    'iddpm_imagenet64_cond': 'iddpm-imagenet64-cond',
    'iddpm_imagenet64_vlb': 'iddpm-imagenet64-vlb'}
# ADM's network for CIFAR-10, as published with DDPM-IP, and what is like it.
_CIFAR10 = ('--image_size 32 --num_channels 128 --num_head_channels 32 --num_res_blocks 3 '
            '--attention_resolutions 16,8 --resblock_updown True --use_new_attention_order True '
            '--learn_sigma True --dropout 0.3 --noise_schedule cosine '
            '--rescale_learned_sigmas True ')
_FLAGS = {
    **{name: (catalog.find(published).kind, catalog.find(published).flags)
       for name, published in PUBLISHED.items()},
    'cifar10': ('unet', _CIFAR10),
    'cifar10_cond': ('unet', _CIFAR10 + '--class_cond True --num_classes 10'),
    'cifar10_classifier': (
        'classifier', '--image_size 32 --classifier_depth 2 --num_classes 10 '
        '--classifier_attention_resolutions 16,8 --noise_schedule cosine')}


def test_only_small_examples_and_the_template_have_no_flags_of_the_reference():
  assert set(NAMES) - set(_FLAGS) == {
      'digits_unet', 'digits_classifier', 'digits_student', 'fashion', 'fashion_classifier',
      'fashion_judge', 'fashion_student', 'cifar10_judge', 'cifar10_small',
      'cifar10_small_classifier', 'cifar10_small_student', 'imagenet64_student',
      'imagenet256_student', 'folder'}


@pytest.mark.parametrize('name', _FLAGS)
def test_the_network_on_a_page_is_that_of_the_references_flags(name):
  """Module and process, but in bfloat16 and storing less; and what it is trained for."""
  kind, words = _FLAGS[name]
  meant = config_lib.build(flags.describe(kind, words)).having(dtype='bfloat16', remat='blocks')
  task = _load(name).task
  found = config_lib.build(task.network)
  assert found.module == meant.module
  assert found.diffusion == meant.diffusion
  assert found == meant
  if kind != 'classifier':
    assert task.objective is flags.objective(kind, words)


@pytest.mark.parametrize('name', ['imagenet64', 'imagenet512_classifier', 'upsampler_128_512',
                                  'lsun_cat', 'iddpm_imagenet64_cond'])
def test_a_config_trains_the_published_network(name):
  """Its size is the published file's."""
  size = catalog.find(PUBLISHED[name]).parameters
  assert _parameters(config_lib.build(_load(name).task)) == size


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


STUDENTS = {'digits_student': ('digits_unet', 'runs/demo/unet', 'runs/demo/classifier'),
            'fashion_student': ('fashion', 'fashion', None),
            'cifar10_small_student': ('cifar10_small', 'runs/cifar10_small', None),
            'imagenet64_student': ('imagenet64', 'imagenet64', 'imagenet64-classifier'),
            'imagenet256_student': ('imagenet256', 'imagenet256', 'imagenet256-classifier')}


@pytest.mark.parametrize('name', STUDENTS)
def test_a_student_is_its_teachers_network_in_every_stage(name):
  config, teacher, classifier = STUDENTS[name]
  taught = config_lib.build(_load(config).task.network)
  guided, few, halved = (
      config_lib.load(CONFIGS / f'{name}.py', [f'--config.stage={stage}', '--config.steps=2']).task
      for stage in ('guided', 'few', 'halved'))
  assert (guided.teacher, guided.classifier) == (teacher, classifier)
  assert (few.teacher, halved.teacher) == ('runs/guided', 'runs/student_4')
  for task, steps in ((guided, None), (few, (2,)), (halved, (2,))):
    network = config_lib.build(task.network)
    assert (network.steps, network.image_shape) == (steps, taught.image_shape)
    assert network.diffusion.schedule == taught.diffusion.schedule
    assert network.module.channels == taught.module.channels
  with pytest.raises(UsageError, match='stage=most: give one of guided, few, halved'):
    config_lib.load(CONFIGS / f'{name}.py', ['--config.stage=most'])


@pytest.mark.parametrize('size', [64, 256])
def test_a_student_of_a_published_model_can_be_built_without_its_weights(size):
  task = config_lib.build(_load(f'imagenet{size}_student').task)
  assert {'model', 'classifier'} == set(task.frozen)
  assert _parameters(task) > catalog.find(f'imagenet{size}').parameters - 10_000


def test_the_folder_template_asks_for_its_folder():
  with pytest.raises(UsageError, match='config.data.path') as error:
    config_lib.build(_load('folder'))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('words, classes, null_label, shape', [
    (('module.num_classes=10',), 10, None, (64, 64, 3)),
    (('module.num_classes=10', 'with_null_label=True'), 11, 10, (64, 64, 3)),
    (('module.in_channels=1', 'module.out_channels=2'), None, None, (64, 64, 1)),
    (('module.image_size=32', 'module.channel_mult=(1, 2, 2)',
      'module.attention_resolutions=(16, 8)', 'module.dtype=float32', 'module.remat=none'),
     None, None, (32, 32, 3))])
def test_what_the_folder_template_says_of_overrides_is_true(words, classes, null_label, shape):
  dropout = [] if null_label is None else ['--config.task.label_dropout=0.1']
  config = config_lib.override(_load('folder'), dropout + [
      f'--config.task.network.{word}' for word in words])
  network = config_lib.build(config.task).network
  assert (network.module.num_classes, network.null_label, network.image_shape) == (
      classes, null_label, shape)


def test_defaults_that_no_config_writes_are_overridden_all_the_same(monkeypatch):
  """Those of what a run holds too: loader, grid and evaluation."""
  # Whether the reference is there is asked when the run starts.
  monkeypatch.setattr(Evaluation, 'check', lambda self, network: None)
  config = config_lib.override(_load('digits_unet'), [
      '--config.loader.num_threads=2', '--config.grid.num=4', '--config.evaluate_every=100',
      '--config.evaluation.reference=x.npz'])
  run = config_lib.build(config)
  assert (run.loader.num_threads, run.grid.num) == (2, 4)
  assert (run.evaluate_every, run.evaluation.reference) == (100, 'x.npz')


@pytest.mark.parametrize('name', NAMES)
def test_every_field_of_a_run_and_what_it_holds_is_in_a_config(name):
  config = _load(name)
  for node in (config, config.loader, config.grid, config.evaluation):
    assert set(node) - {config_lib.FN} == {field.name for field in dataclasses.fields(node.fn)}


_FLAG, _KEY = r'--config\.([a-z_0-9.]*[a-z_0-9])', r"'(task\.[a-z_0-9.]+)'"


def _recommended():
  """(key, file) of each --config.key=value in the sources, and of keys that f-strings fill in."""
  for path in sorted((CONFIGS.parent / 'adm_jax').rglob('*.py')):
    text = path.read_text()
    for key in re.findall(_FLAG, text) + re.findall(_KEY, text):
      yield key, path.relative_to(CONFIGS.parent)


# One of these has what a message may recommend.
_LIKELY = ('folder', 'digits_unet', 'upsampler_64_256', 'digits_student')


def _has(config, key):
  for name in key.split('.'):
    if not isinstance(config, config_lib.ConfigDict) or name not in config:
      return False
    config = config[name]
  return True


def test_a_flag_that_a_message_recommends_exists():
  recommended = [(key, path) for key, path in _recommended()
                 if key not in ('key', 'x.y')]  # 'overrides are written --config.key=value'
  assert {'loader.max_unreadable', 'data.path', 'task.network.module.unet.remat'} <= {
      key for key, _ in recommended}
  for key, path in recommended:
    chosen = any(key in config_lib.choices_of(config_lib.function(name)) for name in _LIKELY)
    assert chosen or any(_has(_load(name), key) for name in _LIKELY), f'{path} names {key}'


if __name__ == '__main__':
  GOLDEN.mkdir(exist_ok=True)
  for config_name in NAMES:
    (GOLDEN / f'{config_name}.json').write_text(stored_configs.to_json(_load(config_name)) + '\n')
