"""Flags are read off shapes wherever shapes say them."""

import math

import golden_files
import pytest

from adm_jax.errors import UsageError
from adm_jax.weights import openai
from adm_jax.weights.infer import infer

# What no shape can say, so that it must be given.
OPEN = ('num_heads', 'head_channels', 'qkv_first', 'dropout', 'image_size', 'remat')


def _told(module):
  network = getattr(module, 'unet', module)
  fields = {name: getattr(network, name) for name in network.__dataclass_fields__
            if name not in (*OPEN, 'parent', 'name', 'attention_resolutions')}
  levels = [network.image_size // side for side in network.attention_resolutions]
  return fields | {'attended': sorted(levels)}


@golden_files.published_checkpoints()
def test_published_networks_are_recognized(checkpoint):
  shapes = {name: tuple(shape) for name, shape in checkpoint['tensors'].items()}
  found = infer(shapes)
  wanted, _ = openai.create(checkpoint['kind'], checkpoint['flags'])
  got, _ = openai.create(found.kind, found.flags)
  assert found.kind == checkpoint['kind'] and _told(got) == _told(wanted)
  assert any('heads' in clause for clause in found.assumed)


@pytest.mark.parametrize('kind, words', [
    ('unet', '--image_size 32 --num_channels 32 --num_res_blocks 1 --channel_mult 1,1 '
             '--attention_resolutions 16'),
    ('unet', '--image_size 32 --num_channels 64 --num_res_blocks 3 --channel_mult 0.5,1,1 '
             '--resblock_updown True --class_cond True --num_classes 5 '
             '--use_scale_shift_norm False'),
    ('classifier', '--image_size 32 --channel_mult 1,1 --classifier_width 64 --classifier_depth 3 '
                   '--classifier_pool spatial_v2 --num_classes 7'),
    ('classifier', '--image_size 32 --channel_mult 1,2 --classifier_width 64 '
                   '--classifier_pool adaptive --classifier_resblock_updown False'),
    ('superres', '--large_size 64 --num_channels 32 --num_res_blocks 1 --learn_sigma True')])
def test_networks_of_ones_own_are_recognized(kind, words):
  wanted, _ = openai.create(kind, words)
  found = infer(openai.published_shapes(wanted))
  got, _ = openai.create(found.kind, found.flags)
  assert found.kind == kind and _told(got) == _told(wanted)


def test_the_cifar10_network_of_ddpm_ip_has_its_57_094_662_parameters():
  module, _ = openai.create('unet', (
      '--image_size 32 --num_channels 128 --num_head_channels 32 --num_res_blocks 3 '
      '--attention_resolutions 16,8 --resblock_updown True --use_new_attention_order True '
      '--learn_sigma True --dropout 0.3 --noise_schedule cosine'))
  shapes = openai.published_shapes(module)
  assert sum(map(math.prod, shapes.values())) == 57_094_662
  found = infer(shapes)
  assert _told(openai.create(found.kind, found.flags)[0]) == _told(module)


def test_other_networks_are_refused():
  with pytest.raises(UsageError, match='not a network of openai/guided-diffusion'):
    infer({'conv1.weight': (64, 3, 7, 7)})
  module, _ = openai.create('unet', '--image_size 32')
  shapes = openai.published_shapes(module)
  del shapes['middle_block.1.qkv.weight']
  with pytest.raises(UsageError, match='middle_block.1.qkv.weight.*missing'):
    infer(shapes)


@pytest.mark.parametrize('changed', [
    {'input_blocks.0.0.weight': ()}, {'time_embed.0.weight': (4,)}, {'input_blocks.x.0': (1,)},
    {'input_blocks.1.0.emb_layers.1.weight': ()}, {'out.2.weight': ()},
    {'time_embed.0.weight': (0, 0)}, {'input_blocks.999999999.0.weight': (1,)}])
def test_names_and_shapes_of_no_network_end_in_one_line(changed):
  module, _ = openai.create(
      'unet', '--image_size 32 --num_channels 32 --num_res_blocks 1 --channel_mult 1,1')
  shapes = openai.published_shapes(module)
  infer(shapes)
  with pytest.raises(UsageError) as error:
    infer(shapes | changed)
  assert '\n' not in str(error.value)
