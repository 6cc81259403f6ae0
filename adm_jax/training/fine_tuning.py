"""Starting a run from the weights of another."""

import pathlib
from typing import Any

import flax
import jax
import numpy as np

from adm_jax.config import ConfigDict
from adm_jax.errors import UsageError
from adm_jax.training.loop import Run
from adm_jax.weights import folders, pretrained


def start(name: str | pathlib.Path, run: Run, config: ConfigDict | None = None) -> tuple[Any, str]:
  """Finds the parameters that a run starts from.

  A table with a row per class, and a layer with an output per class, of another number of classes
  start at random.

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
  per_class = [path for path in wanted if _is_per_class(path)]
  other = [path for path in sorted({*given, *wanted}) if not _is_per_class(path)
           and _shape(given, path) != _shape(wanted, path)]
  if other:
    raise UsageError(f'{name} is of another architecture, {len(other)} tensors do not fit, the '
                     f'first is {other[0]}: {_shape(given, other[0])} there, '
                     f'{_shape(wanted, other[0])} here: give the network its sizes')
  new = [path for path in per_class if _shape(given, path) != _shape(wanted, path)]
  if new:
    fresh = flat(jax.device_get(jax.jit(network.init)(jax.random.key(run.seed))), sep='/')
    given |= {path: fresh[path] for path in new}
  text = f'starting from {name} ({trained.weights} at step {trained.step})'
  if new:
    text += f'; new, for another number of classes: {", ".join(new)}'
  return flax.traverse_util.unflatten_dict(
      {path: np.asarray(given[path]) for path in wanted}, sep='/'), text


def _is_per_class(path: str) -> bool:
  """Whether a parameter has an entry per class: a U-Net's table, a classifier's last layer."""
  return 'embedding/label/' in path or path in ('out/kernel', 'out/bias', 'pool/out/kernel',
                                                'pool/out/bias')


def _shape(flat: dict[str, Any], path: str) -> tuple[int, ...] | str:
  return tuple(flat[path].shape) if path in flat else 'absent'
