"""`adm convert`: a published file becomes a folder that loads, and the same file again."""

import jax
import numpy as np
import pytest
import tiny_models
from adm_jax.configs import digits_classifier, digits_unet
from golden_files import rule_weights
from golden_networks import rule_params

from adm_jax import config as config_lib
from adm_jax.cli.main import main
from adm_jax.sampling import pipeline
from adm_jax.weights import folders, openai, pretrained, state_dicts

# As in 64x64_diffusion.pt, what no shape says is not what would be assumed.
FLAGS = '--use_new_attention_order True --noise_schedule cosine --num_head_channels 16'
WORDS = ('--image_size 32 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 '
         f'--attention_resolutions 16 --resblock_updown True --learn_sigma True {FLAGS}')


@pytest.fixture(scope='module')
def module():
  return openai.create('unet', WORDS)[0]


@pytest.fixture(scope='module')
def weights(module):
  return rule_weights(openai.published_shapes(module), seed=4)


@pytest.mark.parametrize('ending', ['.pt', '.safetensors'])
def test_a_file_becomes_a_folder_and_the_same_file_again(tmp_path, capsys, weights, module, ending):
  source, target = tmp_path / f'a{ending}', tmp_path / f'b{ending}'
  state_dicts.write(source, weights)
  assert main(['convert', str(source), '--out', str(tmp_path / 'a'), '--flags',
               f'{FLAGS} --image_size 32']) == 0
  assert 'assumed' in capsys.readouterr().out
  trained = folders.load(tmp_path / 'a')
  assert trained.network.module == module and trained.weights == 'params'
  assert trained.network.diffusion == openai.create('unet', WORDS)[1]
  jax.tree.map(np.testing.assert_array_equal, trained.params,
               openai.params_from_state_dict(weights, module))
  assert main(['convert', str(tmp_path / 'a'), '--to', str(target)]) == 0
  back = state_dicts.read(target)
  assert back.keys() == weights.keys()
  for name, array in weights.items():
    np.testing.assert_array_equal(back[name], array)


def test_what_was_trained_here_on_gray_images_goes_there_and_back(tmp_path):
  words = (f'{WORDS} --image_channels 1').replace('--image_size 32', '--image_size 16')
  words = words.replace('--attention_resolutions 16', '--attention_resolutions 8')
  weights = rule_weights(openai.published_shapes(openai.create('unet', words)[0]), seed=4)
  state_dicts.write(tmp_path / 'a.pt', weights)
  assert main(['convert', str(tmp_path / 'a.pt'), '--out', str(tmp_path / 'a'), '--flags',
               f'{FLAGS} --image_size 16']) == 0
  assert folders.load(tmp_path / 'a').network.image_shape == (16, 16, 1)


@pytest.mark.parametrize('words, heads', [
    ('', dict(head_channels=64)), ('--num_heads 4', dict(num_heads=4)),
    ('--num_heads 1', dict(num_heads=1)),
    ('--num_heads 1 --num_heads_upsample -1', dict(num_heads=1)),
    ('--num_heads_upsample 2', dict(num_heads=4, num_heads_upsample=2)),
    ('--num_head_channels 32', dict(head_channels=32)),
    ('--num_heads 2 --num_head_channels 32', dict(num_heads=2, head_channels=32))])
def test_heads_that_are_given_win_over_assumed_ones(tmp_path, capsys, words, heads):
  """guided-diffusion's README gives its 128 x 128 model and its upsampler by --num_heads 4."""
  base = ('--image_size 32 --num_channels 64 --num_res_blocks 1 --channel_mult 1,2 '
          '--attention_resolutions 16 --learn_sigma True')
  module = openai.create('unet', base)[0]
  state_dicts.write(tmp_path / 'a.pt', rule_weights(openai.published_shapes(module), seed=4))
  flags = ['--flags', f'{words} --image_size 32']
  assert main(['convert', str(tmp_path / 'a.pt'), '--out', str(tmp_path / 'a'), *flags]) == 0
  got = folders.load(tmp_path / 'a').network.module
  assert got == module.clone(**{'head_channels': None, 'num_heads_upsample': None, **heads})
  assert any('attention heads' in line for line in capsys.readouterr().out.splitlines()
             ) == (words in ('', '--num_heads_upsample 2'))  # what is assumed is said


@pytest.mark.parametrize('dialect, time', [(None, 2000), ('adm', 2000), ('iddpm', 500)])
def test_a_file_of_improved_diffusion_is_read_by_its_clock(tmp_path, capsys, dialect, time):
  words = '--image_size 32 --diffusion_steps 4000'
  base = '--image_size 32 --num_channels 64 --num_res_blocks 1 --channel_mult 1 --learn_sigma True'
  state_dicts.write(tmp_path / 'a.pt', rule_weights(
      openai.published_shapes(openai.create('unet', base)[0]), seed=4))
  asked = [] if dialect is None else ['--dialect', dialect]
  assert main(['convert', str(tmp_path / 'a.pt'), '--out', str(tmp_path / 'a'), '--flags', words,
               *asked]) == 0
  network = folders.load(tmp_path / 'a').network
  assert float(network.diffusion.schedule.network_time(2000)) == time
  said = capsys.readouterr().out
  assert ('give --dialect iddpm' in said) == (dialect != 'iddpm')
  assert ('rescale_timesteps True' in said) == (dialect == 'iddpm')
  assert (network.module.head_channels is None) == (dialect == 'iddpm')


def test_a_published_models_dialect_is_known(tmp_path, capsys):
  assert main(['convert', 'iddpm-imagenet64', '--out', str(tmp_path / 'a'), '--dialect',
               'iddpm']) == 2
  assert 'leave out --dialect' in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    ('--num_res_blocks 2', '--num_res_blocks 2 contradicts'),
    ('--class_cond True', '--class_cond True contradicts'),
    ('--channel_mult 1,1', '--channel_mult 1,1 contradicts'),
    ('--attention_resolutions 32', '--attention_resolutions 32 contradicts'),
    ('--num_heads 5', '5 attention heads')])
def test_a_flag_that_contradicts_the_weights_is_named(tmp_path, capsys, module, weights, words,
                                                      message):
  state_dicts.write(tmp_path / 'a.pt', weights)
  assert main(['convert', str(tmp_path / 'a.pt'), '--out', str(tmp_path / 'a'), '--flags',
               f'{words} --image_size 32']) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1 and not (tmp_path / 'a').exists()


@pytest.mark.parametrize('words', ['--channel_mult 1,2.0', '--attention_resolutions 16,3'])
def test_a_flag_that_says_what_the_shapes_say_passes(tmp_path, weights, words):
  state_dicts.write(tmp_path / 'a.pt', weights)
  assert main(['convert', str(tmp_path / 'a.pt'), '--out', str(tmp_path / 'a'), '--flags',
               f'{words} --image_size 32']) == 0


@pytest.mark.parametrize('words, message', [
    (['x.pt'], 'either --out DIR'), (['x.pt', '--out', 'a', '--to', 'b.pt'], 'either --out DIR'),
    (['absent.pt', '--out', 'a'], 'no folder or file absent.pt'),
    (['good.pt', '--to', 'b.bin'], 'has no checkpoint'),
    (['absent', '--to', 'b.pt'], 'has no checkpoint'),
    (['x.pt', '--out', '.'], 'exists'),
    (['good.pt', '--out', 'gs://name/a'], 'writes to this machine only'),
    (['fashion', '--to', 'gs://name/a.pt'], 'writes to this machine only'),
    (['good.pt', '--out', 'a', '--weights', 'params'], 'name it itself'),
    (['fashion', '--to', 'a.pt', '--flags', '--dropout 0'], '--flags is of a file that is read'),
    (['fashion', '--to', 'a.pt', '--dialect', 'adm'], '--dialect is of a file that is read'),
    (['fashion', '--to', 'a.pt', '--weights', '0.99'], 'one set of weights'),
    (['good.pt', '--out', 'a', '--flags', "--noise_schedule 'cosine"], 'No closing quotation'),
    (['good.pt', '--out', 'a', '--flags', '--channel_mult 1,nan'], 'channel_mult 1,nan: give'),
    (['damaged.pt', '--out', 'a'], 'not a whole PyTorch file'),
    (['good.pt', '--out', 'a', '--flags', '--num_chanels 3'], '--num_chanels'),
    (['good.pt', '--out', 'a', '--flags', '--num_res_blocks 2'], '--num_res_blocks 2 contradicts'),
    (['cut.pt', '--out', 'a'], 'not a whole PyTorch file'),
    (['cut.safetensors', '--out', 'a'], 'not a whole safetensors file')])
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, weights, words,
                                                  message):
  monkeypatch.chdir(tmp_path)
  state_dicts.write(tmp_path / 'good.pt', weights)
  for ending in ('.pt', '.safetensors'):
    state_dicts.write(tmp_path / f'cut{ending}', weights)
    whole = (tmp_path / f'cut{ending}').read_bytes()
    (tmp_path / f'cut{ending}').write_bytes(whole[:len(whole) // 2])
  state_dicts.write(tmp_path / 'damaged.pt', weights, {'note': 'x' * 100})
  whole = (tmp_path / 'damaged.pt').read_bytes()
  (tmp_path / 'damaged.pt').write_bytes(whole.replace(b'x' * 100, b'y' * 100))
  before = sorted(tmp_path.iterdir())
  assert main(['convert', *words]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count('\n') == 1 and not captured.out
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('words, said, unsaid', [
    ('--num_head_channels 16', 'num_head_channels 16', '4 attention heads'),
    ('--num_heads_upsample 2', '4 attention heads', '64 channels'),
    ('--num_head_channels -1', '4 attention heads', '64 channels')])
def test_what_is_assumed_of_heads_is_what_was_built(tmp_path, capsys, words, said, unsaid):
  module, _ = openai.create('unet', '--image_size 64 --num_channels 64 --num_res_blocks 1 '
                                    '--num_head_channels 64')
  weights = rule_weights(openai.published_shapes(module), seed=4)
  state_dicts.write(tmp_path / 'a.safetensors', weights)
  assert main(['convert', str(tmp_path / 'a.safetensors'), '--out', str(tmp_path / 'a'),
               f'--flags={words}']) == 0
  printed = capsys.readouterr().out
  assert said in printed and unsaid not in printed


@pytest.mark.parametrize('words', ['--num_head_channels 32', '--use_new_attention_order True'])
def test_the_other_dialect_has_less(tmp_path, capsys, words):
  module, _ = openai.create('unet', '--image_size 64 --num_channels 32 --num_res_blocks 1')
  weights = rule_weights(openai.published_shapes(module), seed=4)
  state_dicts.write(tmp_path / 'a.safetensors', weights)
  assert main(['convert', str(tmp_path / 'a.safetensors'), '--out', str(tmp_path / 'a'),
               '--dialect', 'iddpm', f'--flags={words}']) == 2
  assert 'improved-diffusion has no' in capsys.readouterr().err


def _own(name, path):
  """A folder of weights of this project, whose config no shape tells; or the name of such a one."""
  if name == 'fashion':
    return name
  if name == 'without attention':
    return tiny_models.unet(path, num_classes=5, with_null_label=True)
  network = {'digits': digits_unet, 'digits classifier': digits_classifier}[name].get_config(
      ).task.network
  folders.save(path, network, rule_params(config_lib.build(network).module),
               tuple(f'digit {i}' for i in range(10)))
  return path


@pytest.mark.parametrize('ending', ['.pt', '.safetensors'])
@pytest.mark.parametrize('name', ['digits', 'digits classifier', 'fashion', 'without attention'])
def test_our_own_weights_come_back_as_they_were(tmp_path, capsys, name, ending):
  source, file = _own(name, tmp_path / 'own'), tmp_path / f'file{ending}'
  assert main(['convert', str(source), '--to', str(file)]) == 0
  assert main(['convert', str(file), '--out', str(tmp_path / 'back')]) == 0
  assert 'its config came with it' in capsys.readouterr().out
  before = pretrained.load(source)
  for after in (pretrained.load(tmp_path / 'back'), pretrained.load(file)):
    assert after.network == before.network and after.class_names == before.class_names
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    if name == 'without attention':
      images = [pipeline.load(trained, steps=2)([1, 4]) for trained in (before, after)]
      np.testing.assert_array_equal(*images)


def test_pytorch_reads_what_travels_with_a_config(tmp_path):
  torch = pytest.importorskip('torch', reason='what PyTorch reads needs PyTorch')
  source = tiny_models.unet(tmp_path / 'own')
  assert main(['convert', str(source), '--to', str(tmp_path / 'a.pt')]) == 0
  found = torch.load(tmp_path / 'a.pt', weights_only=True)
  wanted = state_dicts.read(tmp_path / 'a.pt')
  assert found.keys() == wanted.keys()
  for name, tensor in wanted.items():
    np.testing.assert_array_equal(found[name].numpy(), tensor)


def test_flags_for_a_file_that_knows_better_are_refused(tmp_path, capsys):
  assert main(['convert', str(tiny_models.unet(tmp_path / 'own')), '--to',
               str(tmp_path / 'a.pt')]) == 0
  assert main(['convert', str(tmp_path / 'a.pt'), '--out', str(tmp_path / 'b'), '--flags',
               '--image_size 16']) == 2
  assert 'brings its own config: leave out --flags' in capsys.readouterr().err
