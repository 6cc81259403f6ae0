"""Runs what `exporting` wrote: the program and its weights, and none of the code that made them."""

import pathlib
from typing import Any, Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from adm_jax import tensor_files
from adm_jax.errors import UsageError

PROGRAM, WEIGHTS, DESCRIPTION = 'sampler.stablehlo', 'weights.safetensors', 'description.json'


def load(folder: str | pathlib.Path) -> Callable[..., np.ndarray]:
  """A function (seed, index i[B], labels i[B] = zeros) -> uint8[B H W C] from an exported folder.

  Raises:
    UsageError: there is none, or it is not for this machine's devices.
  """
  folder = pathlib.Path(folder)
  if not (folder / PROGRAM).is_file():
    raise UsageError(f'{folder} holds no {PROGRAM}: give a folder that adm export made')
  exported = jax.export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
  backend = jax.default_backend()
  names = {'gpu': ('cuda', 'rocm')}.get(backend, (backend,))
  if not set(names) & set(exported.platforms):
    raise UsageError(f'{folder} was exported for {", ".join(exported.platforms)}, these devices '
                     f'are {backend}: export it again with --platforms {backend}')
  params = {name: jnp.asarray(np.asarray(tensor))
            for name, tensor in tensor_files.read(folder / WEIGHTS).items()}
  call = jax.jit(exported.call)

  def sample(seed: int, index: Any, labels: Any = None) -> np.ndarray:
    index = np.asarray(index, np.int32)
    labels = np.zeros_like(index) if labels is None else np.asarray(labels, np.int32)
    return np.asarray(call(params, np.uint32(seed), index, labels))
  return sample
