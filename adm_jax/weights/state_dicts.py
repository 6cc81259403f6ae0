"""State dicts in files, {name: array}, by the file's ending: `.pt` or `.safetensors`."""

import pathlib
from typing import Mapping

import numpy as np

from adm_jax.errors import UsageError
from adm_jax.weights import safetensors_files, torch_files
from adm_jax.weights.lazy_arrays import LazyArray


def read(path: pathlib.Path) -> dict[str, LazyArray]:
  """The tensors of a file, each read when it is asked for.

  Raises:
    UsageError: no such file, an unknown ending, or a file that is not whole.
  """
  if _is_torch(path):
    return torch_files.read_state_dict(path)
  return safetensors_files.read(path)


def write(path: pathlib.Path, state_dict: Mapping[str, np.ndarray | LazyArray]) -> None:
  """Writes a file that PyTorch, or the safetensors library, reads."""
  if _is_torch(path):
    return torch_files.write_state_dict(path, state_dict)
  safetensors_files.write(path, state_dict)


def _is_torch(path: pathlib.Path) -> bool:
  if path.suffix not in ('.pt', '.pth', '.safetensors'):
    raise UsageError(f'{path} ends in {path.suffix or "nothing"}: give a .pt or .safetensors file')
  return path.suffix != '.safetensors'
