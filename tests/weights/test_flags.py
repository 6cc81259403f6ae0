"""The reference's flags mean what they mean there."""

import pytest

from adm_jax.config import build
from adm_jax.errors import UsageError
from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.process import diffusion, losses, schedules
from adm_jax.weights import flags
from adm_jax.weights.openai import create

README_64 = (
    '--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 '
    '--image_size 64 --learn_sigma True --noise_schedule cosine --num_channels 192 '
    '--num_head_channels 64 --num_res_blocks 3 --resblock_updown True '
    '--use_new_attention_order True --use_fp16 True --use_scale_shift_norm True '
    '--batch_size 4 --num_samples 100 --timestep_respacing 250')


def test_a_flag_line_of_the_readme_is_read_whole():
  module, process = create('unet', README_64)
  assert module == UNet(
      64, 6, channels=192, channel_mult=(1, 2, 3, 4), depth=3, attention_resolutions=(32, 16, 8),
      head_channels=64, num_classes=1000, dropout=0.1, qkv_first=True)
  schedule = schedules.respace(schedules.cosine(num_steps=1000), '250')
  assert process == diffusion.Diffusion(schedule, diffusion.Eps(), diffusion.LearnedRange())


def test_a_mapping_means_the_same_as_the_text():
  words = README_64.split()
  assert create('unet', dict(zip([word[2:] for word in words[::2]], words[1::2]))) == create(
      'unet', README_64)


def test_nothing_given_is_the_references_defaults():
  module, process = create('unet')
  assert module == UNet(64, 3, channels=128, channel_mult=(1, 2, 3, 4), depth=2, num_heads=4,
                        attention_resolutions=(16, 8), resblock_updown=False)
  assert process.variance == diffusion.FixedLarge() and process.schedule.num_steps == 1000
  module, _ = create('classifier')
  assert module == Classifier(64, 1000, channels=128, channel_mult=(1, 2, 3, 4), depth=2,
                              attention_resolutions=(32, 16, 8), head_channels=64)
  module, _ = create('superres')
  assert isinstance(module, SuperRes) and module.unet.image_size == 256
  assert module.unet.in_channels == 6


@pytest.mark.parametrize('words, check', [
    ('--image_size 32', lambda m, d: m.channel_mult == (1, 2, 2, 2)),
    ('--image_size 96 --channel_mult 0.5,1,2', lambda m, d: m.channel_mult == (0.5, 1, 2)),
    ('--image_size 512', lambda m, d: m.channel_mult == (0.5, 1, 1, 2, 2, 4, 4)),
    ('--class_cond yes --num_classes 7', lambda m, d: m.num_classes == 7),
    ('--num_heads_upsample 2', lambda m, d: m.num_heads_upsample == 2),
    ('--attention_resolutions 16,3', lambda m, d: m.attention_resolutions == (16,)),
    ('--attention_resolutions 30,32,10', lambda m, d: m.attention_resolutions == (32,)),
    ('--image_size 128 --attention_resolutions 60,31',
     lambda m, d: m.attention_resolutions == (64, 32)),
    ('--sigma_small True', lambda m, d: d.variance == diffusion.FixedSmall()),
    ('--predict_xstart 1', lambda m, d: d.mean == diffusion.X0()),
    ('--diffusion_steps 4000 --rescale_timesteps True',
     lambda m, d: float(d.schedule.network_time(2000)) == 500)])
def test_each_flag_is_heard(words, check):
  assert check(*create('unet', words))


@pytest.mark.parametrize('words, objective', [
    ('', losses.mse), ('--rescale_learned_sigmas True', losses.rescaled_mse),
    ('--use_kl True --rescale_learned_sigmas True', losses.rescaled_kl)])
def test_the_objective_follows_the_flags(words, objective):
  assert flags.objective('unet', words) is objective


@pytest.mark.parametrize('words, rescales', [('', True), ('--rescale_timesteps False', False)])
def test_improved_diffusions_defaults_are_a_dialect(words, rescales):
  words += ' --diffusion_steps 4000'
  network = build(flags.describe('unet', words, dialect='iddpm'))
  assert float(network.diffusion.schedule.network_time(2000)) == (500 if rescales else 2000)
  assert flags.objective('unet', words, dialect='iddpm') is losses.rescaled_mse
  assert flags.parse('unet', words) != flags.parse('unet', words, dialect='iddpm')
  with pytest.raises(UsageError, match="dialect 'ddpm'.*adm or iddpm"):
    flags.parse('unet', words, dialect='ddpm')


@pytest.mark.parametrize('kind', flags.DEFAULTS)
def test_what_is_described_is_a_task(kind):
  task = build(flags.describe(kind))
  assert task.image_shape[-1] == 3


@pytest.mark.parametrize('kind, words, message', [
    ('vae', '', "kind 'vae'"), ('unet', '--image_sise 64', '--image_sise is no flag'),
    ('unet', '--image_size', 'flags are written'), ('unet', '--image_size big', 'not a int'),
    ('unet', '--class_cond maybe', 'not a bool'), ('unet', '--image_size 100', 'give channel_mult'),
    ('unet', '--attention_resolutions 16,0', 'whole numbers above 0'),
    ('unet', '--attention_resolutions 16x', 'whole numbers above 0'),
    ('unet', '--noise_schedule sigmoid', 'linear or cosine'),
    ('unet', '--timestep_respacing ddim300', 'ddim300'),
    ('unet', '--image_size 100 --channel_mult 1,2,3,4', 'cannot be halved')])
def test_wrong_flags_are_one_line(kind, words, message):
  with pytest.raises(UsageError, match=message) as error:
    create(kind, words)
  assert '\n' not in str(error.value)
