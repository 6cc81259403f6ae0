"""The networks behind the golden files, in our words, and weights for any network by rule."""

from typing import Any

from golden_files import rule_weights

from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.weights import openai

# Ours -> the reference's constructor argument.
_NAMES = {
    'num_classes': 'num_classes', 'num_heads': 'num_heads', 'head_channels': 'num_head_channels',
    'num_heads_upsample': 'num_heads_upsample', 'dropout': 'dropout', 'pool': 'pool',
    'conv_resample': 'conv_resample', 'scale_shift': 'use_scale_shift_norm',
    'resblock_updown': 'resblock_updown', 'qkv_first': 'use_new_attention_order'}
# The reference's defaults where ours differ: ADM's are ours.
_DEFAULTS = {'num_heads': 1, 'num_head_channels': None, 'use_scale_shift_norm': False,
             'resblock_updown': False, 'channel_mult': (1, 2, 4, 8)}


def network(meta: dict) -> UNet | SuperRes | Classifier:
  """The module for the reference's class and constructor arguments in `meta`."""
  given = _DEFAULTS | meta['kwargs']
  size = given.pop('image_size')
  if given.pop('dims', 2) != 2 or given.pop('use_fp16', False):
    raise NotImplementedError(f'only images in float32: {meta["kwargs"]}')
  factors = [2 ** level for level in range(len(given['channel_mult']))]
  kwargs = dict(
      channels=given.pop('model_channels'), channel_mult=tuple(given.pop('channel_mult')),
      depth=given.pop('num_res_blocks'), remat='full' if given.pop('use_checkpoint', 0) else 'none',
      # The reference names downsampling factors, and ignores those that never occur.
      attention_resolutions=tuple(
          size // factor for factor in given.pop('attention_resolutions') if factor in factors))
  inputs, outputs = given.pop('in_channels'), given.pop('out_channels')
  for ours, theirs in _NAMES.items():
    if theirs in given:
      value = given.pop(theirs)
      kwargs[ours] = None if value == -1 else value  # the reference's way to say "not given"
  if given:
    raise NotImplementedError(f'constructor arguments without a counterpart: {given}')
  if meta['network'] == 'EncoderUNetModel':
    kwargs.pop('num_heads_upsample', None)  # it has no decoder
    return Classifier(size, outputs, in_channels=inputs, **kwargs)
  if meta['network'] == 'SuperResModel':
    # The reference counts the image's channels, and sees the low resolution's beside them.
    return SuperRes(UNet(size, outputs, in_channels=2 * inputs, **kwargs))
  return UNet(size, outputs, in_channels=inputs, **kwargs)


def rule_params(module: UNet | SuperRes | Classifier, *, seed: int = 0) -> Any:
  """Parameters of which none is zero, so that every layer matters; activations are of order 1."""
  weights = rule_weights(openai.published_shapes(module), seed)
  return openai.params_from_state_dict(weights, module)
