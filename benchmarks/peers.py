"""The same network in PyTorch: Diffusers' UNet2DModel with our weights."""

from typing import Any

import flax
import numpy as np

from adm_jax.models import UNet

_RES_BLOCK = {'norm_0': 'norm1', 'conv_0': 'conv1', 'embed': 'time_emb_proj', 'norm_1': 'norm2',
              'conv_1': 'conv2', 'skip': 'conv_shortcut'}


def diffusers_unet(module: UNet, params: Any):
  """A torch module that computes what `module` does with `params`; called (x NCHW, t, y).sample.

  Only networks whose attention order is `qkv_first` and whose heads have one width: Diffusers knows
  no other.
  """
  import torch
  from diffusers import UNet2DModel

  if not (module.qkv_first and module.head_channels and module.resblock_updown
          and module.scale_shift):
    raise NotImplementedError('give a UNet with qkv_first, head_channels, resblock_updown')
  widths = [int(mult * module.channels) for mult in module.channel_mult]
  attended = [module.image_size >> level in module.attention_resolutions
              for level in range(len(widths))]
  peer = UNet2DModel(
      sample_size=module.image_size, in_channels=module.in_channels,
      out_channels=module.out_channels, layers_per_block=module.depth, block_out_channels=widths,
      down_block_types=['AttnDownBlock2D' if a else 'ResnetDownsampleBlock2D' for a in attended],
      up_block_types=['AttnUpBlock2D' if a else 'ResnetUpsampleBlock2D' for a in attended[::-1]],
      downsample_type='resnet', upsample_type='resnet', resnet_time_scale_shift='scale_shift',
      attention_head_dim=module.head_channels, attn_norm_num_groups=32, norm_num_groups=32,
      norm_eps=1e-5, flip_sin_to_cos=True, freq_shift=0, dropout=module.dropout,
      num_class_embeds=module.num_classes)
  state = {name: torch.from_numpy(np.array(array))
           for name, array in _state_dict(params, len(widths)).items()}
  peer.load_state_dict(state)
  return peer


def _state_dict(params: Any, num_levels: int) -> dict[str, np.ndarray]:
  """Our parameters under Diffusers' names, in PyTorch's layouts."""
  state = {}
  for path, array in flax.traverse_util.flatten_dict(params).items():
    array = np.asarray(array)
    *layer, leaf = path
    if layer[-1] == 'qkv':
      # [C, 3C] as three [C, C]: queries, keys, values.
      for name, part in zip(('to_q', 'to_k', 'to_v'), np.split(array, 3, axis=-1)):
        state[f'{_block(layer[:-1], num_levels)}.{name}.{_leaf(leaf)}'] = part.T
      continue
    if leaf == 'kernel':
      array = np.moveaxis(array, (-1, -2), (0, 1))
    state[f'{_layer(layer, num_levels)}.{_leaf(leaf)}'] = array
  return state


def _leaf(name: str) -> str:
  return 'bias' if name == 'bias' else 'weight'


def _layer(path: list[str], num_levels: int) -> str:
  names = {'conv_in': 'conv_in', 'norm_out': 'conv_norm_out', 'conv_out': 'conv_out',
           'dense_0': 'time_embedding.linear_1', 'dense_1': 'time_embedding.linear_2',
           'label': 'class_embedding'}
  if path[-1] in names:
    return names[path[-1]]
  attention = {'norm': 'group_norm', 'out': 'to_out.0'}
  layers = attention if path[-2].endswith('attn') else _RES_BLOCK
  return f'{_block(path[:-1], num_levels)}.{layers[path[-1]]}'


def _block(path: list[str], num_levels: int) -> str:
  """'down_1_0_attn' -> 'down_blocks.1.attentions.0'."""
  way, *rest = path[-1].split('_')
  if way == 'mid':
    return 'mid_block.' + ('attentions.0' if rest == ['attn'] else f'resnets.{rest[0]}')
  level, place = int(rest[0]), rest[1]
  block = f'down_blocks.{level}' if way == 'down' else f'up_blocks.{num_levels - 1 - level}'
  if place == 'resample':
    return f'{block}.{way}samplers.0'
  return f'{block}.{"attentions" if rest[-1] == "attn" else "resnets"}.{place}'
