"""Starting a run from the weights of another."""

import pathlib
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np

from adm_jax.config import ConfigDict
from adm_jax.errors import UsageError
from adm_jax.models import Classifier, SuperRes, UNet, blocks, encoder
from adm_jax.networks import Network
from adm_jax.process.diffusion import Eps, TemperedEps
from adm_jax.training.loop import Run
from adm_jax.weights import folders, pretrained


def start(name: str | pathlib.Path, run: Run, config: ConfigDict | None = None) -> tuple[Any, str]:
  """Finds the parameters that a run starts from.

  A table with a row per class, and a layer with an output per class, of another number of classes
  start at random. So does, in a student of a network that is none, what takes the scale, and its
  head if it predicts something else than its teacher.

  Args:
    name: a published model, a work directory or a file, see `pretrained.load`.
    run: what is to be trained.
    config: the config of that work directory, if it names functions of a user's own.

  Returns:
    (the parameters, a line that says what they are).

  Raises:
    UsageError: they are of another architecture.
  """
  trained = (pretrained.load(name) if config is None else folders.load(name, config=config))
  network, flat = run.task.network, flax.traverse_util.flatten_dict
  given, wanted = flat(trained.params, sep='/'), flat(network.abstract_params(), sep='/')
  becomes_student = network.scales is not None and trained.network.scales is None
  keeps_head = becomes_student and _keeps_head(name, network, trained.network)
  if keeps_head:
    # The channels of a learned variance come last.
    given |= {path: given[path][..., :network.image_shape[-1]] for path in given
              if _is_of_head(path)}
  anew = [path for path in wanted if becomes_student and (
      path.startswith('embedding/scale/') or not keeps_head and _is_of_head(path))]
  per_class = [path for path in {*given, *wanted} if _is_per_class(path)]
  other = [path for path in sorted({*given, *wanted} - {*anew, *per_class})
           if _shape(given, path) != _shape(wanted, path)]
  if other:
    raise UsageError(f'{name} is of another architecture, {len(other)} tensors do not fit, the '
                     f'first is {other[0]}: {_shape(given, other[0])} there, '
                     f'{_shape(wanted, other[0])} here: give the network its sizes')
  _check_meaning(name, network, trained.network)
  new = anew + [path for path in wanted if path in per_class
                and _shape(given, path) != _shape(wanted, path)]
  if new:
    fresh = flat(jax.device_get(jax.jit(network.init)(jax.random.key(run.seed))), sep='/')
    # Classes that its teacher does not know change nothing at first.
    given |= {path: np.zeros_like(fresh[path]) if becomes_student and _is_per_class(path)
              else fresh[path] for path in new}
  text = f'starting from {name} ({trained.weights} at step {trained.step})'
  if new:
    why = ('for another number of classes' if not anew else
           'by the scale' if keeps_head else 'to predict v, and by the scale')
    text += f'; new, {why}: {", ".join(new)}'
  return flax.traverse_util.unflatten_dict(
      {path: np.asarray(given[path]) for path in wanted}, sep='/'), text


def _check_meaning(name: str | pathlib.Path, network: Network, given: Network) -> None:
  """Raises UsageError where tensors fit, but mean something else to the other network."""
  ours, its = _meaning(network.module), _meaning(given.module)
  for field in ours:
    if field in its and ours[field] != its[field]:
      raise UsageError(f'{name} is of another architecture, though all tensors fit: {field} '
                       f'{its[field]} there, {ours[field]} here: give the network its')


def _meaning(module: nn.Module) -> dict[str, Any]:
  """What shapes do not say of a U-Net or a classifier; nothing of other networks."""
  module = module.unet if isinstance(module, SuperRes) else module
  if not isinstance(module, UNet | Classifier):
    return {}
  widths, attended = encoder.network_levels(module)
  counts = module.num_heads, getattr(module, 'num_heads_upsample', None) or module.num_heads
  heads = [blocks.num_heads(widths[level], count, module.head_channels)
           for count in counts for level in (*attended, -1)]
  return {'num_groups': module.num_groups, 'qkv_first': module.qkv_first, 'attention heads': heads}


def _is_per_class(path: str) -> bool:
  """Whether a parameter has an entry per class: a U-Net's table, a classifier's last layer."""
  return 'embedding/label/' in path or path in ('out/kernel', 'out/bias', 'pool/out/kernel',
                                                'pool/out/bias')


def _is_of_head(path: str) -> bool:
  """Whether a parameter is of a U-Net's last layer."""
  return path.startswith('conv_out/')


def _keeps_head(name: str | pathlib.Path, student: Network, teacher: Network) -> bool:
  """Whether what a student's last layer gives means at first what its teacher's does."""
  mean, its = student.diffusion.mean, teacher.diffusion.mean
  if mean == its or isinstance(mean, TemperedEps) and its == Eps():
    return True
  if isinstance(mean, TemperedEps):
    raise UsageError(f'{name} does not predict eps, with which a student of it would begin: give '
                     "the student's diffusion mean=V")
  return False


def _shape(flat: dict[str, Any], path: str) -> tuple[int, ...] | str:
  return tuple(flat[path].shape) if path in flat else 'absent'
