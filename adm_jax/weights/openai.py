"""Parameters of openai/guided-diffusion: names and layouts, both ways.

The published state dicts number their blocks in the order of construction (`input_blocks.4.1`); our
names say what a block is (`encoder/down_1_0_attn`). One table, made by walking the architecture,
connects the two.
"""

import functools
import math
from typing import Any, Mapping

import flax
import jax
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.models import Classifier, SuperRes, UNet
from adm_jax.models.encoder import attention_levels, height_width
from adm_jax.weights.flags import create
from adm_jax.weights.lazy_arrays import LazyArray

__all__ = ['create', 'params_from_state_dict', 'state_dict_from_params']

Path = tuple[str, ...]

_RES_BLOCK = {'norm_0': 'in_layers.0', 'conv_0': 'in_layers.2', 'embed': 'emb_layers.1',
              'norm_1': 'out_layers.0', 'conv_1': 'out_layers.3', 'skip': 'skip_connection'}
_ATTENTION = {'norm': 'norm', 'qkv': 'qkv', 'out': 'proj_out'}


def block_names(module: UNet | SuperRes | Classifier) -> dict[Path, str]:
  """Returns {our path of a layer: its published name}, of all layers that the module may have.

  Raises:
    UsageError: it is no network of the reference.
  """
  if not isinstance(module, (UNet, SuperRes, Classifier)):
    raise UsageError(f'{type(module).__name__} is no network of openai/guided-diffusion, whose '
                     'names and layouts these files have: only UNet, SuperRes and Classifier are')
  if isinstance(module, SuperRes):
    return {('unet', *path): name for path, name in block_names(module.unet).items()}
  names = {('embedding', 'dense_0'): 'time_embed.0', ('embedding', 'dense_1'): 'time_embed.2'}

  def add(path: Path, layers: Mapping[str, str], prefix: str) -> None:
    names.update({(*path, ours): f'{prefix}.{theirs}' for ours, theirs in layers.items()})

  attended = attention_levels(module.image_size, module.attention_resolutions,
                              len(module.channel_mult))
  encoder = ('encoder',)
  levels = range(len(module.channel_mult))
  names[(*encoder, 'conv_in')] = 'input_blocks.0.0'
  block = 1
  for level in levels:
    for i in range(module.depth):
      add((*encoder, f'down_{level}_{i}'), _RES_BLOCK, f'input_blocks.{block}.0')
      if level in attended:
        add((*encoder, f'down_{level}_{i}_attn'), _ATTENTION, f'input_blocks.{block}.1')
      block += 1
    if level != levels[-1]:
      resample = _RES_BLOCK if module.resblock_updown else {'conv': 'op'}
      add((*encoder, f'down_{level}_resample'), resample, f'input_blocks.{block}.0')
      block += 1
  add((*encoder, 'mid_0'), _RES_BLOCK, 'middle_block.0')
  add((*encoder, 'mid_attn'), _ATTENTION, 'middle_block.1')
  add((*encoder, 'mid_1'), _RES_BLOCK, 'middle_block.2')

  if isinstance(module, Classifier):
    names.update({
        'attention': {('norm_out',): 'out.0', ('pool',): 'out.2', ('pool', 'qkv'): 'out.2.qkv_proj',
                      ('pool', 'out'): 'out.2.c_proj'},
        'adaptive': {('norm_out',): 'out.0', ('out',): 'out.3'},
        'spatial': {('hidden',): 'out.0', ('out',): 'out.2'},
        'spatial_v2': {('hidden',): 'out.0', ('norm_out',): 'out.1', ('out',): 'out.3'},
    }[module.pool])
    return names

  names[('embedding', 'label')] = 'label_emb'
  block = 0
  for level in reversed(levels):
    for i in range(module.depth + 1):
      add((f'up_{level}_{i}',), _RES_BLOCK, f'output_blocks.{block}.0')
      if level in attended:
        add((f'up_{level}_{i}_attn',), _ATTENTION, f'output_blocks.{block}.1')
      block += 1
    if level:
      # The reference keeps the step up in the block that precedes it.
      resample = _RES_BLOCK if module.resblock_updown else {'conv': 'conv'}
      place = 2 if level in attended else 1
      add((f'up_{level}_resample',), resample, f'output_blocks.{block - 1}.{place}')
  names[('norm_out',)] = 'out.0'
  names[('conv_out',)] = 'out.2'
  return names


def parameter_names(params: Any, module: UNet | SuperRes | Classifier) -> dict[Path, str]:
  """{our path of a parameter: its published name}; `params` may be shapes (`jax.eval_shape`)."""
  layers = block_names(module)
  leaves = {'kernel': '.weight', 'scale': '.weight', 'embedding': '.weight', 'bias': '.bias',
            'position': '.positional_embedding'}
  return {path: layers[path[:-1]] + leaves[path[-1]]
          for path in flax.traverse_util.flatten_dict(params)}


def published_shape(name: str, path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape that the parameter `path`, of our `shape`, has in a state dict."""
  if path[-1] == 'kernel':
    turned = (shape[-1], shape[-2], *shape[:-2])
    return (*turned, 1) if _is_token_conv(name) else turned
  return shape[::-1] if path[-1] == 'position' else shape


def _is_token_conv(name: str) -> bool:
  """Whether a linear map of tokens is stored as a convolution of length 1."""
  return name.split('.')[-2] in ('qkv', 'proj_out', 'qkv_proj', 'c_proj')


@functools.cache  # tracing a full-size network takes seconds
def abstract_params(module: UNet | SuperRes | Classifier) -> Any:
  """The parameters' tree of `jax.ShapeDtypeStruct`; nothing is computed."""
  unet = module.unet if isinstance(module, SuperRes) else module
  channels = unet.in_channels // (2 if isinstance(module, SuperRes) else 1)
  x = jnp.zeros((1, *height_width(unet.image_size), channels))
  args, kwargs = [x, jnp.zeros(1)], {}
  if not isinstance(unet, Classifier) and unet.num_classes is not None:
    args.append(jnp.zeros(1, jnp.int32))
  if isinstance(module, SuperRes):
    kwargs['low_res'] = x
  return jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))['params']


def params_from_state_dict(state_dict: Mapping[str, np.ndarray | LazyArray],
                           module: UNet | SuperRes | Classifier) -> Any:
  """Converts a published state dict to the parameters of `module`.

  Args:
    state_dict: {name: array}, in PyTorch's layouts.
    module: the network that it is for.

  Returns:
    The parameter tree, NumPy arrays of the state dict's dtypes.

  Raises:
    UsageError: missing, extra or misshapen tensors, by name, with both shapes.
  """
  return jax.tree.map(np.asarray, lazy_params(state_dict, module))


def lazy_params(state_dict: Mapping[str, np.ndarray | LazyArray],
                    module: UNet | SuperRes | Classifier) -> Any:
  """`params_from_state_dict`, whose leaves are converted one by one as they are asked for."""
  shapes = flax.traverse_util.flatten_dict(abstract_params(module))
  check_shapes({name: array.shape for name, array in state_dict.items()}, module)
  names = parameter_names(flax.traverse_util.unflatten_dict(shapes), module)

  def leaf(path, name):
    tensor, shape = state_dict[name], shapes[path].shape
    return LazyArray(shape, tensor.dtype, lambda: _to_ours(np.asarray(tensor), path, shape))
  return flax.traverse_util.unflatten_dict({path: leaf(path, name) for path, name in names.items()})


def published_shapes(module: UNet | SuperRes | Classifier) -> dict[str, tuple[int, ...]]:
  """{published name: its shape in a state dict} of all parameters of a network."""
  params = abstract_params(module)
  shapes = flax.traverse_util.flatten_dict(params)
  return {name: published_shape(name, path, shapes[path].shape)
          for path, name in parameter_names(params, module).items()}


def check_shapes(found: Mapping[str, tuple[int, ...]],
                 module: UNet | SuperRes | Classifier) -> None:
  """Raises UsageError, like a diff, unless `found` {published name: shape} are the network's."""
  wanted = published_shapes(module)
  found = {name: tuple(shape) for name, shape in found.items()}
  if wanted != found:
    raise UsageError(_difference(wanted, found))


def state_dict_from_params(params: Any, module: UNet | SuperRes | Classifier) -> dict:
  """The inverse of `params_from_state_dict`: {published name: array}."""
  deferred = lazy_state_dict(params, module)
  return {name: np.asarray(tensor) for name, tensor in deferred.items()}


def lazy_state_dict(params: Any,
                        module: UNet | SuperRes | Classifier) -> dict[str, LazyArray]:
  """`state_dict_from_params`, converted tensor by tensor as they are asked for."""
  flat = flax.traverse_util.flatten_dict(params)

  def tensor(path, name):
    return LazyArray(published_shape(name, path, flat[path].shape), flat[path].dtype,
                    lambda: _to_theirs(np.asarray(flat[path]), name, path))
  return {name: tensor(path, name) for path, name in parameter_names(params, module).items()}


def _to_ours(array: np.ndarray, path: Path, shape: tuple[int, ...]) -> np.ndarray:
  if path[-1] == 'kernel':
    # [out in kh kw] -> [kh kw in out]; a linear map, or a convolution of length 1, -> [in out].
    array = np.moveaxis(array, (0, 1), (-1, -2))
  elif path[-1] == 'position':
    array = array.T
  return np.ascontiguousarray(array.reshape(shape))


def _to_theirs(array: np.ndarray, name: str, path: Path) -> np.ndarray:
  shape = published_shape(name, path, array.shape)
  if path[-1] == 'kernel':
    array = np.moveaxis(array, (-1, -2), (0, 1))
  elif path[-1] == 'position':
    array = array.T
  return np.ascontiguousarray(array.reshape(shape))


def _difference(wanted: Mapping[str, tuple], found: Mapping[str, tuple], most: int = 6) -> str:
  lines = [f'{name}: the network has {wanted[name]}, the file has {found[name]}'
           for name in wanted if name in found and wanted[name] != found[name]]
  lines += [f'{name} {shape}: missing from the file'
            for name, shape in wanted.items() if name not in found]
  lines += [f'{name} {shape}: only in the file'
            for name, shape in found.items() if name not in wanted]
  count = {key: sum(math.prod(shape) for shape in shapes.values())
           for key, shapes in (('wanted', wanted), ('found', found))}
  rest = [f'and {len(lines) - most} more'] if len(lines) > most else []
  return (f'the weights ({count["found"]:,} values) do not fit the network ({count["wanted"]:,}): '
          + '; '.join(lines[:most] + rest))
