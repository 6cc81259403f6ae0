"""Runs what `exporting` wrote: the program and its weights, and none of the code that made them."""

import json
import pathlib
import struct
from typing import Any, Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from adm_jax.errors import UsageError
from adm_jax.weights import safetensors_files

PROGRAM, WEIGHTS, DESCRIPTION = 'sampler.stablehlo', 'weights.safetensors', 'description.json'


def load(folder: str | pathlib.Path) -> Callable[..., np.ndarray]:
  """A function (seed, index i[B], labels i[B]) -> uint8[B H W C] from an exported folder.

  Without labels only for models without classes.

  Raises:
    UsageError: there is none, it is damaged, or it is not for this machine's devices.
  """
  folder = pathlib.Path(folder)
  if not (folder / PROGRAM).is_file():
    raise UsageError(f'{folder} holds no {PROGRAM}: give a folder that adm export made')
  try:
    exported = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
    num_classes = json.loads((folder / DESCRIPTION).read_text())['num_classes']
  except (ValueError, KeyError, struct.error, IndexError) as error:
    raise UsageError(f'{folder} is damaged ({error}): export it again') from error
  platform = _platform()
  if platform not in exported.platforms:
    raise UsageError(f'{folder} was exported for {", ".join(exported.platforms)}, these devices '
                     f'are {platform}: export it again with --platforms {platform}')
  params = {name: jnp.asarray(np.asarray(tensor))
            for name, tensor in safetensors_files.read(folder / WEIGHTS).items()}
  call = jax.jit(exported.call)

  def sample(seed: int, index: Any, labels: Any = None) -> np.ndarray:
    index = np.asarray(index, np.int32)
    if labels is None and num_classes is not None:
      raise UsageError(f'the model has {num_classes} classes: give a label for each image')
    labels = np.zeros_like(index) if labels is None else np.asarray(labels, np.int32)
    if num_classes is not None and not ((0 <= labels) & (labels < num_classes)).all():
      raise UsageError(f'labels {labels}: the model has classes 0 to {num_classes - 1}')
    if labels.shape != index.shape or not 0 <= seed < 2**32:
      raise UsageError(f'seed {seed}, {index.shape} indices, {labels.shape} labels: give a seed '
                       f'from 0 to {2**32 - 1} and as many labels as indices')
    return np.asarray(call(params, np.uint32(seed), index, labels))
  return sample


def _platform() -> str:
  """What jax.export calls these devices."""
  backend = jax.default_backend()
  if backend != 'gpu':
    return backend
  return 'rocm' if 'rocm' in jax.devices()[0].client.platform_version.lower() else 'cuda'
