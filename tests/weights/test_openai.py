"""Published parameters: every name and shape of the 15 checkpoints, and the way there and back."""

import functools
import math

import flax
import golden_files
import jax
import numpy as np
import pytest
from golden_networks import rule_params

from adm_jax.errors import UsageError
from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.weights import openai

SMALL = dict(channels=32, channel_mult=(1, 2), depth=1, attention_resolutions=(4,))
NETWORKS = {
    'unet': UNet(8, 6, num_classes=5, **SMALL),
    'unet_resample': UNet(8, 3, resblock_updown=False, **SMALL),
    'superres': SuperRes(UNet(8, 6, in_channels=6, qkv_first=True, **SMALL)),
    **{pool: Classifier(8, 5, pool=pool, head_channels=32, **SMALL)
       for pool in ('attention', 'adaptive', 'spatial', 'spatial_v2')}}


# ---------------------------------------------------------------------------------------------
# The published checkpoints.


# Several checkpoints are of one architecture.
_shapes = functools.cache(openai.published_shapes)


@golden_files.published_checkpoints()
def test_every_published_tensor_has_its_place(checkpoint):
  """Names, shapes and the number of parameters, without making a single one of them."""
  shapes = _shapes(openai.create(checkpoint['kind'], checkpoint['flags'])[0])
  assert shapes == {name: tuple(shape) for name, shape in checkpoint['tensors'].items()}
  assert sum(map(math.prod, shapes.values())) == checkpoint['parameters']


# ---------------------------------------------------------------------------------------------
# There and back.


def weights(module):
  return golden_files.rule_weights(openai.published_shapes(module), seed=0)


@pytest.mark.parametrize('module', NETWORKS.values(), ids=NETWORKS)
def test_there_and_back_is_the_same_file(module):
  """To the last bit: every tensor is used once, in its own layout."""
  state_dict = weights(module)
  back = openai.state_dict_from_params(openai.params_from_state_dict(state_dict, module), module)
  assert back.keys() == state_dict.keys()
  for name, tensor in state_dict.items():
    assert back[name].dtype == tensor.dtype
    np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.mark.parametrize('module', NETWORKS.values(), ids=NETWORKS)
def test_back_and_there_is_the_same_tree(module):
  """The parameters are those that `init` makes: same names, shapes and values."""
  params = rule_params(module)
  shapes = openai.abstract_params(module)
  assert jax.tree.structure(params) == jax.tree.structure(shapes)
  jax.tree.map(lambda got, want: np.testing.assert_array_equal(got.shape, want.shape),
               params, shapes)
  again = openai.params_from_state_dict(openai.state_dict_from_params(params, module), module)
  jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize('module', NETWORKS.values(), ids=NETWORKS)
def test_no_two_parameters_share_a_name(module):
  params = openai.abstract_params(module)
  names = openai.parameter_names(params, module)
  assert len(set(names.values())) == len(flax.traverse_util.flatten_dict(params))


def test_half_precision_tensors_keep_their_dtype():
  """A file of float16 is read as float16; what to compute in is the network's business."""
  module = NETWORKS['unet']
  state_dict = {name: tensor.astype(np.float16) for name, tensor in weights(module).items()}
  params = openai.params_from_state_dict(state_dict, module)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('float16')}


# ---------------------------------------------------------------------------------------------
# Files that do not fit.


def refusal(state_dict, module=NETWORKS['unet']):
  with pytest.raises(UsageError) as error:
    openai.params_from_state_dict(state_dict, module)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_a_missing_tensor_is_named_with_its_shape():
  state_dict = weights(NETWORKS['unet'])
  del state_dict['middle_block.1.qkv.weight']
  assert 'middle_block.1.qkv.weight (192, 64, 1): missing from the file' in refusal(state_dict)


def test_an_extra_tensor_is_named_with_its_shape():
  state_dict = weights(NETWORKS['unet']) | {'extra.weight': np.zeros((2, 3))}
  assert 'extra.weight (2, 3): only in the file' in refusal(state_dict)


def test_a_misshapen_tensor_is_named_with_both_shapes():
  state_dict = weights(NETWORKS['unet'])
  state_dict['label_emb.weight'] = np.zeros((7, 128))
  assert ('label_emb.weight: the network has (5, 128), the file has (7, 128)'
          in refusal(state_dict))


def test_another_architecture_is_told_by_its_size_and_first_tensors():
  """Not by hundreds of lines: how many values there are on both sides, and how many lines more."""
  state_dict = weights(NETWORKS['unet_resample'])
  message = refusal(state_dict)
  for module in (NETWORKS['unet'], NETWORKS['unet_resample']):
    count = sum(map(math.prod, openai.published_shapes(module).values()))
    assert f'{count:,}' in message
  assert message.count(';') <= 6 and 'more' in message
