"""State dicts in files, {name: array}, by the file's ending: `.pt` or `.safetensors`.

Beside the tensors a file may hold notes, {name: text}, which other readers pass over.
"""

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


def read_notes(path: pathlib.Path) -> dict[str, str]:
  """The notes of a file, {} where there are none; it is one that `read` has read."""
  if _is_torch(path):
    return torch_files.read_notes(path)
  return safetensors_files.read_notes(path)


def write(path: pathlib.Path, state_dict: Mapping[str, np.ndarray | LazyArray],
          notes: Mapping[str, str] | None = None) -> None:
  """Writes a file that PyTorch, or the safetensors library, reads."""
  if _is_torch(path):
    return torch_files.write_state_dict(path, state_dict, notes)
  safetensors_files.write(path, state_dict, notes)


def _is_torch(path: pathlib.Path) -> bool:
  if path.suffix not in ('.pt', '.pth', '.safetensors'):
    raise UsageError(f'{path} ends in {path.suffix or "nothing"}: give a .pt or .safetensors file')
  return path.suffix != '.safetensors'
