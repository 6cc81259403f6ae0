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
  start at random. So do, in a student of a network that is none, what takes the scale and the head,
  which is to predict v.

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
  anew = [path for path in wanted if becomes_student and _is_of_student(path)]
  per_class = [path for path in {*given, *wanted} if _is_per_class(path)]
  other = [path for path in sorted({*given, *wanted} - {*anew, *per_class})
           if _shape(given, path) != _shape(wanted, path)]
  if other:
    raise UsageError(f'{name} is of another architecture, {len(other)} tensors do not fit, the '
                     f'first is {other[0]}: {_shape(given, other[0])} there, '
                     f'{_shape(wanted, other[0])} here: give the network its sizes')
  new = anew + [path for path in wanted if path in per_class
                and _shape(given, path) != _shape(wanted, path)]
  if new:
    fresh = flat(jax.device_get(jax.jit(network.init)(jax.random.key(run.seed))), sep='/')
    # Classes that its teacher does not know change nothing at first.
    given |= {path: np.zeros_like(fresh[path]) if becomes_student and _is_per_class(path)
              else fresh[path] for path in new}
  text = f'starting from {name} ({trained.weights} at step {trained.step})'
  if new:
    why = 'to predict v, and by the scale' if anew else 'for another number of classes'
    text += f'; new, {why}: {", ".join(new)}'
  return flax.traverse_util.unflatten_dict(
      {path: np.asarray(given[path]) for path in wanted}, sep='/'), text


def _is_per_class(path: str) -> bool:
  """Whether a parameter has an entry per class: a U-Net's table, a classifier's last layer."""
  return 'embedding/label/' in path or path in ('out/kernel', 'out/bias', 'pool/out/kernel',
                                                'pool/out/bias')


def _is_of_student(path: str) -> bool:
  """Whether a parameter is of the layers in which a student differs from its teacher."""
  return path.startswith(('conv_out/', 'embedding/scale/'))


def _shape(flat: dict[str, Any], path: str) -> tuple[int, ...] | str:
  return tuple(flat[path].shape) if path in flat else 'absent'
