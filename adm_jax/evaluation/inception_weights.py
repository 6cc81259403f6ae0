"""Inception's weights: from the published graph, or from the state dict of its PyTorch port."""

import pathlib
import re
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from adm_jax.errors import UsageError
from adm_jax.evaluation import graph_def
from adm_jax.evaluation.inception import Inception
from adm_jax.io import digests, downloads
from adm_jax.weights import state_dicts

Params = Any

ADDRESS = ('https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/'
           'classify_image_graph_def.pb')
GRAPH_BYTES = 95_673_916
GRAPH_SHA256 = '009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6'
PORT_SHA256 = '6726825d'  # the beginning, from the name of the PyTorch port's published file


def load(path: pathlib.Path | None, bar: Callable) -> tuple[Params, bool]:
  """(the parameters, whether they are known to be the published ones).

  A graph must be the published file, to the byte. A state dict may have been saved anew, so that
  its bytes prove nothing: unless they are the published port's, it passes as unverified.

  Args:
    path: a .pb, .pt, .pth or .safetensors file; None fetches the published graph, once.
    bar: as for `downloads.fetch`.

  Raises:
    UsageError: no network, no such file, another file, or weights of another network.
  """
  if path is None:
    path = downloads.fetch('Inception graph', ADDRESS, bar, sha256=GRAPH_SHA256,
                           sizes=range(GRAPH_BYTES, GRAPH_BYTES + 1),
                           otherwise='give your copy with --features')
    return from_graph(graph_def.read_constants(path)), True
  if not path.is_file():
    raise UsageError(f'there is no file {path}: give the Inception graph or its port with '
                     '--features')
  if path.suffix == '.pb':
    found = downloads.digest(path)
    if found != GRAPH_SHA256:
      raise UsageError(f'{path} ({path.stat().st_size:,} bytes, sha256 {found[:16]}...) is not the '
                       f'published Inception graph ({GRAPH_BYTES:,} bytes, sha256 '
                       f'{GRAPH_SHA256[:16]}...): fetch {ADDRESS}')
    return from_graph(graph_def.read_constants(path)), True
  published = downloads.digest(path).startswith(PORT_SHA256)
  return from_torch(state_dicts.read(path)), published


def fingerprint(params: Params) -> str:
  """16 hexadecimal digits: equal for equal weights, whatever file they came from."""
  return digests.short(
      part for name, array in sorted(traverse_util.flatten_dict(params, sep='/').items())
      for part in (name, np.ascontiguousarray(array, '<f4').tobytes()))


def from_graph(constants: Mapping[str, np.ndarray]) -> Params:
  """Parameters from the graph's constants: the names are the same, others are left out.

  Raises:
    UsageError: a constant is missing or of another shape.
  """
  def find(name, shape):
    if name not in constants or constants[name].shape != shape:
      found = constants[name].shape if name in constants else 'absent'
      raise UsageError(f'these are not the weights of the 2015 Inception network: {name} is '
                       f'{found}, not {shape}')
    return constants[name].astype(np.float32, copy=False)

  shapes = jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
  flat = traverse_util.flatten_dict(shapes, sep='/')
  return traverse_util.unflatten_dict(
      {name: find(name, leaf.shape) for name, leaf in flat.items()}, sep='/')


def from_torch(state_dict: Mapping[str, np.ndarray]) -> Params:
  """Parameters from the PyTorch port's state dict, as `from_graph`."""
  constants = {}
  for name, array in state_dict.items():
    graph = graph_name(name)
    if graph is not None:
      array = np.asarray(array)
      # O I H W -> H W I O; the matrix of logits -> I O.
      constants[graph] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
  return from_graph(constants)


# A port's name is BLOCK.BRANCH_STEP.TENSOR. By the first digit of the block: {branch: tower}.
_POOLED = {'branch1x1': 'conv', 'branch_pool': 'tower_2/conv'}
_TOWERS = {
    '5': {**_POOLED, 'branch5x5': 'tower', 'branch3x3dbl': 'tower_1'},
    '6a': {'branch3x3': 'conv', 'branch3x3dbl': 'tower'},
    '6': {**_POOLED, 'branch7x7': 'tower', 'branch7x7dbl': 'tower_1'},
    '7a': {'branch3x3': 'tower', 'branch7x7x3': 'tower_1'},
    '7': {**_POOLED, 'branch3x3': 'tower', 'branch3x3dbl': 'tower_1'},
}
_BLOCKS = {f'Mixed_{name}': f'mixed_{i}' if i else 'mixed' for i, name in enumerate(
    ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c'))}
_STEM = {f'Conv2d_{name}': f'conv_{i}' if i else 'conv' for i, name in enumerate(
    ('1a_3x3', '2a_3x3', '2b_3x3', '3b_1x1', '4a_3x3'))}
_TENSORS = {
    'conv.weight': 'conv2d_params', 'bn.weight': 'batchnorm/gamma', 'bn.bias': 'batchnorm/beta',
    'bn.running_mean': 'batchnorm/moving_mean', 'bn.running_var': 'batchnorm/moving_variance'}
_HEAD = {'fc.weight': 'softmax/weights', 'fc.bias': 'softmax/biases'}
_SIDES = {'': '', 'a': 'mixed/conv', 'b': 'mixed/conv_1'}


def graph_name(name: str) -> str | None:
  """The graph's name of a tensor of the port, or None if the graph has no such tensor."""
  if name in _HEAD:
    return _HEAD[name]
  parts = re.fullmatch(r'(\w+)(?:\.(branch(?:_pool|[0-9x]+(?:dbl)?))(?:_(\d)([ab]?))?)?'
                       r'\.((?:conv|bn)\.\w+)', name)
  if parts is None or parts[5] not in _TENSORS:
    return None
  block, branch, step, side, tensor = parts.groups()
  tensor = _TENSORS[tensor]
  if branch is None:
    return f'{_STEM[block]}/{tensor}' if block in _STEM else None
  level = block.removeprefix('Mixed_')
  tower = _TOWERS.get(level, _TOWERS.get(level[:1], {})).get(branch)
  if block not in _BLOCKS or tower is None:
    return None
  path = [_BLOCKS[block], tower]
  if step is not None:
    path.append(_SIDES[side] or ('conv' if step == '1' else f'conv_{int(step) - 1}'))
  return '/'.join([*path, tensor])
